"""Void entries of Paxos, in whole nodes: nobody waits for them, nobody has them, and a snapshot may end in one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from quorate.client.zookeeper import ZooKeeperClient
from quorate.client.zookeeper_errors import ConnectionLoss, ZooKeeperError
from quorate.consensus.paxos.ballots import ballot_of
from quorate.consensus.paxos.hard_state import decode_hard_state, encode_hard_state
from quorate.consensus.paxos.messages import Accept
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.records import Entry, Recovered, SaveEntry, SaveState
from quorate.consensus.replica import ConsensusProtocol, Effects, Event, RandomSource, Receive, Replica, ReplicaConfig
from quorate.node.wire import Batch, Payload, PayloadCodec
from quorate.services.cluster.commands import Add, Promote
from quorate.simulation.cluster import SERVICE_GROUP
from quorate.storage.log import Log
from tests.node.whole_nodes import WholeNodes, endpoint_of

PAXOS = PROTOCOLS["paxos"]


class Deaf:
    """A replica that misses proposals in which one of some words stands.  All else is the replica's own."""

    def __init__(self, replica: Replica, missed: list[bytes]) -> None:
        self._replica = replica
        self._missed = missed
        self.deadline_ms = replica.deadline_ms
        self.status = replica.status
        self.configuration = replica.configuration
        self.settled_version = replica.settled_version
        self.quorum_contact_ms = replica.quorum_contact_ms
        self.uncommitted_bytes = replica.uncommitted_bytes

    def step(self, event: Event, now_ms: int) -> Effects:
        if isinstance(event, Receive) and isinstance(event.message, Accept):
            heard = tuple(
                entry for entry in event.message.entries if not any(word in entry.payload for word in self._missed)
            )
            if heard != event.message.entries:
                if not heard:
                    return Effects()
                event = Receive(event.sender, _told(event.message, heard))
        return self._replica.step(event, now_ms)


def _told(message: Accept, entries: tuple[Entry, ...]) -> Accept:
    return Accept(
        message.ballot, message.sent_position, message.commit_position, message.round, entries, message.round_trip_ms
    )


class PartlyDeaf(WholeNodes):
    def __init__(self) -> None:
        super().__init__(3, protocol="paxos")
        self.missed: dict[int, list[bytes]] = {node: [] for node in self.known}
        """Node -> words of proposals that do not reach it."""
        self._protocols = self._deaf

    def _deaf(self, node: int) -> Mapping[str, ConsensusProtocol]:
        def build(config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> Replica:
            return Deaf(PAXOS.build(config, recovered, random, now_ms), self.missed[node])

        return MappingProxyType({"paxos": replace(PAXOS, build=build)})


def test_what_a_leader_wrote_after_a_lost_write_is_on_no_node_and_its_client_is_told_that_it_is_in_doubt() -> None:
    cluster = PartlyDeaf()
    leader = cluster.start_all()
    one, other = (node for node in cluster.members if node != leader)
    outcomes: dict[str, str] = {}
    clients: dict[int, ZooKeeperClient] = {}

    async def connect() -> None:
        for node in (leader, one):
            clients[node] = ZooKeeperClient([endpoint_of(node)], cluster.random, 20_000)
            await clients[node].start()
        await clients[leader].create("/before", b"")

    async def create(node: int, path: str) -> None:
        try:
            await clients[node].create(path, b"")
            outcomes[path] = "done"
        except ZooKeeperError as error:
            outcomes[path] = type(error).__name__

    cluster.run(connect())
    cluster.missed[one] += [b"/lost"]
    cluster.missed[other] += [b"/lost", b"/void"]
    machine = cluster.simulation.boot("10.0.9.1", "writers")
    cluster.simulation.start(machine, create(leader, "/lost"))
    # Through the other node, which accepts it behind a hole, and waits for it.  It comes to the leader a moment later,
    # and before that knows that anything is missing anywhere.
    cluster.simulation.start(machine, create(one, "/void"))
    lost = cluster.applied(leader) + 1
    cluster.wait_for(lambda: [last_position(cluster, node) for node in (leader, one)] == [lost + 1] * 2 or None)
    assert cluster.applied(leader) == cluster.applied(one) == lost - 1, "a quorum holds the second write, and waits"
    assert not outcomes
    cluster.lose_power(leader)
    for node in (one, other):
        cluster.missed[node].clear()
    cluster.wait_for_leader()
    cluster.wait_for(lambda: "/void" in outcomes or None)
    assert outcomes["/void"] == ConnectionLoss.__name__
    cluster.start(leader)
    cluster.wait_for(lambda: len({cluster.applied(node) for node in cluster.members}) == 1 or None)
    for node in cluster.members:
        tree = cluster.stores[node].tree
        assert tree.get(b"/before") is not None
        assert tree.get(b"/lost") is None and tree.get(b"/void") is None, f"node {node} has what was not to be"
    assert len(cluster.store_digests()) == 1
    cluster.close()


def last_position(cluster: WholeNodes, node: int) -> int:
    group = cluster.group(node)
    return group.replica.status().last_position if group is not None else 0


def test_a_snapshot_that_ends_in_a_void_entry_is_loaded_sent_and_gone_on_from() -> None:
    cluster = WholeNodes(3, protocol="paxos", spares=1)
    cluster.start_all()
    cluster.wait_for(lambda: cluster.settled(1) or None)
    cluster.wait_for(lambda: len({cluster.applied(node) for node in cluster.members}) == 1 or None)
    last = cluster.applied(0)
    for node in cluster.members:
        cluster.kill(node)
        add_void_entry(cluster, node, last + 1)

    cluster.start_and_wait(0)
    cluster.wait_for(lambda: cluster.applied(0) == last + 1 or None)  # known to be chosen, though nobody leads
    group = cluster.group(0)
    assert group is not None

    async def snapshot() -> None:
        assert cluster.nodes[0].start_snapshot(group)
        await asyncio.sleep(0.05)

    cluster.simulation.start(cluster.machine(0), snapshot())
    cluster.pass_time(0.1)
    info = cluster.nodes[0].newest_snapshot(group)
    assert info is not None
    assert (info.position, info.generation) == (last + 1, 0)

    cluster.kill(0)
    cluster.start_and_wait(0)
    assert cluster.applied(0) == last + 1, "loaded"
    cluster.start_and_wait(1)
    cluster.wait_for_leader()
    cluster.start_and_wait(2)
    cluster.start(3)
    cluster.change(Add(0, 3, cluster.peer_address(3)))
    cluster.change(Promote(0, 3))
    cluster.wait_for(lambda: len({cluster.applied(node) for node in cluster.known}) == 1 or None)
    assert len(cluster.store_digests()) == 1
    cluster.close()


def add_void_entry(cluster: WholeNodes, node: int, position: int) -> None:
    """To the log of a node that is down: of a leader whose entry before it was not chosen; known to be chosen."""
    machine = cluster.simulation.boot(f"10.0.9.{node}", "editor")
    disk = cluster.disks[node]
    disk.attach(machine)
    log, recovery = Log.open(disk, segment_bytes=cluster.settings.storage.segment_bytes)
    ballot = ballot_of(7, 5)
    assert decode_hard_state(recovery.groups[SERVICE_GROUP].state).promised < ballot
    payload = PayloadCodec().encode(Payload(0, [Batch(5, 0, 1, [b"no command, and never applied"])]))
    log.append(
        SERVICE_GROUP,
        [SaveState(encode_hard_state(ballot, position, {})), SaveEntry(Entry(position, ballot, payload))],
    )
    log.close()
    disk.detach()
