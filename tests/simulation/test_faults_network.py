"""Faults of the network do what they say, and leave nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from quorate.simulation.cluster import client_host, host_of
from quorate.simulation.network import DELAY_S, RETRANSMISSION_S
from tests.simulation.faults_stage import Stage, host_pairs


def _delays_s(stage: Stage, source: str, target: str, count: int = 300) -> list[float]:
    return [stage.simulation.network.draw_delay_s(source, target) for _ in range(count)]


def test_delay_slows_the_links_of_its_target_and_no_others() -> None:
    stage = Stage()
    stage.begin("delay", "0", 50.0, for_s=1.0)
    for other in (host_of(1), client_host(0)):
        assert min(_delays_s(stage, host_of(0), other)) >= 50 * DELAY_S[0]
        assert min(_delays_s(stage, other, host_of(0))) >= 50 * DELAY_S[0]
    assert max(_delays_s(stage, host_of(1), host_of(2))) <= DELAY_S[1]
    stage.pass_time(1.01)
    assert max(_delays_s(stage, host_of(0), host_of(1))) <= DELAY_S[1]
    assert stage.count("delay") == 1


def test_overlapping_delays_end_one_by_one() -> None:
    stage = Stage()
    stage.begin("delay", "all", 10.0, for_s=2.0)
    stage.begin("delay", "0", 100.0, for_s=1.0)
    assert min(_delays_s(stage, host_of(0), host_of(1))) >= 100 * DELAY_S[0]
    stage.pass_time(1.01)
    assert 10 * DELAY_S[0] <= min(_delays_s(stage, host_of(0), host_of(1))) < 20 * DELAY_S[0]
    stage.pass_time(1.0)
    assert max(_delays_s(stage, host_of(0), host_of(1))) <= DELAY_S[1]


def test_lost_packets_come_after_a_retransmission() -> None:
    stage = Stage()
    stage.begin("loss", "all", 0.2, for_s=1.0)
    late = [delay_s for delay_s in _delays_s(stage, host_of(0), client_host(1)) if delay_s > RETRANSMISSION_S]
    assert 30 < len(late) < 100
    stage.pass_time(1.01)
    assert max(_delays_s(stage, host_of(0), client_host(1))) < RETRANSMISSION_S


def test_resets_break_connections_and_peers_connect_again() -> None:
    stage = Stage()
    stage.elected()
    stage.begin("resets", "all", 0.1, for_s=2.0)
    stage.pass_time(2.01)
    resets = stage.simulation.network.connections_reset
    assert resets > 5
    assert 0 < stage.count("resets") <= resets
    stage.pass_time(5)
    assert stage.simulation.network.connections_reset == resets
    assert stage.cluster.leader() is not None


def test_split_reads_hand_out_what_came_in_pieces() -> None:
    stage = Stage(clients=2)
    server, client = stage.simulation.machines[client_host(0)], stage.simulation.machines[client_host(1)]
    reads: list[int] = []

    class Counting(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            reads.append(len(data))

    async def listen() -> None:
        await asyncio.get_running_loop().create_server(Counting, client_host(0), 7000)

    async def send() -> None:
        _, writer = await asyncio.open_connection(client_host(0), 7000)
        for _ in range(20):
            writer.write(bytes(1000))
            await asyncio.sleep(0.01)

    stage.simulation.run(server, listen())
    stage.begin("split-reads", "all", 0.8, for_s=1.0)
    stage.simulation.run(client, send())
    stage.pass_time(1.0)
    assert sum(reads) == 20_000
    assert len(reads) > 40
    reads.clear()
    stage.simulation.run(client, send())
    stage.pass_time(0.1)
    assert reads == [1000] * 20


@pytest.mark.parametrize(
    ("fault", "counter"), [("message-loss", "dropped"), ("duplication", "duplicated"), ("reordering", "delayed")]
)
def test_messages_of_the_protocol_meet_their_fate(fault: str, counter: str) -> None:
    stage = Stage()
    stage.elected()
    stage.begin(fault, "all", 0.3, for_s=2.0)
    stage.pass_time(2.01)
    counts = {name: getattr(stage.mailbox, name) for name in ("dropped", "duplicated", "delayed")}
    assert counts.pop(counter) > 5
    assert set(counts.values()) == {0}
    assert stage.mailbox.rates is None
    assert stage.count(fault) == 1


def test_overlapping_message_faults_keep_each_its_own_rate() -> None:
    stage = Stage()
    stage.begin("message-loss", "all", 0.1, for_s=3.0)
    stage.begin("message-loss", "all", 0.2, for_s=1.0)
    stage.begin("reordering", "all", 0.3, for_s=2.0)
    rates = stage.mailbox.rates
    assert rates is not None
    assert (rates.dropped, rates.delayed, rates.duplicated) == (0.2, 0.3, 0.0)
    assert rates.longest_delay_s > 0
    stage.pass_time(2.01)
    rates = stage.mailbox.rates
    assert rates is not None
    assert (rates.dropped, rates.delayed, rates.longest_delay_s) == (0.1, 0.0, 0.0)
    stage.pass_time(1)
    assert stage.mailbox.rates is None


def test_halves_hear_nothing_of_each_other() -> None:
    stage = Stage(nodes=5)
    stage.begin("partition-halves", "0,3", for_s=1.0)
    assert stage.closed() == host_pairs([0, 3], [1, 2, 4])
    stage.pass_time(1.01)
    assert stage.closed() == set()
    assert stage.count("partition-halves") == stage.count("partitions") == 1


def test_halves_may_take_the_clients_with_them() -> None:
    stage = Stage(clients=10)
    stage.begin("partition-halves", "0", amount=1.0, for_s=1.0)
    cut_clients = {source for source, target in stage.closed() if source.startswith("10.0.1") and target == host_of(0)}
    cut_from_rest = {
        source for source, target in stage.closed() if source.startswith("10.0.1") and target == host_of(1)
    }
    assert cut_clients and cut_from_rest
    assert not cut_clients & cut_from_rest
    assert len(cut_clients | cut_from_rest) == 10


def test_an_isolated_leader_is_replaced_and_comes_back_as_a_follower() -> None:
    stage = Stage()
    stage.write_from(0)
    old = stage.elected()
    others = [node for node in stage.cluster.members if node != old]
    stage.begin("partition-isolation", "leader", for_s=5.0)
    assert stage.closed() == host_pairs([old], others)
    stage.wait_for(lambda: stage.cluster.leader() not in (old, None), within_s=4)
    stage.pass_time(6)
    assert stage.closed() == set()
    stage.wait_for(lambda: len(set(map(stage.cluster.applied, stage.cluster.members))) == 1)
    assert stage.cluster.nodes[old].status()["role"] == "follower"
    assert not stage.violations


@pytest.mark.parametrize(("amount", "outward"), [(0.0, True), (1.0, False)])
def test_one_way_cuts_one_direction(amount: float, outward: bool) -> None:
    stage = Stage()
    stage.begin("partition-one-way", "1", amount, for_s=1.0)
    away = {(host_of(1), host_of(0)), (host_of(1), host_of(2))}
    assert stage.closed() == (away if outward else {(target, source) for source, target in away})
    stage.pass_time(1.01)
    assert stage.closed() == set()


def test_a_bridge_hears_both_sides() -> None:
    stage = Stage(nodes=5)
    stage.begin("partition-bridge", "2", for_s=1.0)
    closed = stage.closed()
    assert all(host_of(2) not in link for link in closed)
    # Two on either side: four pairs, both directions.
    assert len(closed) == 8
    stage.pass_time(1.01)
    assert stage.closed() == set()


def test_flapping_cuts_and_mends_again_and_again() -> None:
    stage = Stage()
    stage.begin("partition-flapping", "0", 0.1, for_s=3.0)
    seen = set()
    for _ in range(60):
        seen.add(len(stage.closed()))
        stage.pass_time(0.05)
    assert seen == {0, 4}
    assert stage.count("partitions") > 5
    stage.pass_time(0.1)
    assert stage.closed() == set()


def test_a_client_is_cut_off_from_the_leader() -> None:
    stage = Stage()
    leader = stage.elected()
    stage.begin("partition-client", "client-1,leader", 0.0, for_s=2.0)
    stage.begin("partition-client", "client-0,leader", 1.0, for_s=1.0)
    link = (client_host(1), host_of(leader))
    assert stage.closed() == {link, link[::-1], (client_host(0), host_of(leader))}
    stage.pass_time(1.01)
    assert stage.closed() == {link, link[::-1]}
    stage.pass_time(1)
    assert stage.closed() == set()
