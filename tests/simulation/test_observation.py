"""Whole nodes under observation: sound ones stay unsuspected whatever happens, and what is broken is seen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from random import Random

import msgspec
import pytest

from quorate.client.zookeeper import ZooKeeperClient
from quorate.client.zookeeper_errors import NodeExists, ZooKeeperError
from quorate.consensus.membership import Configuration
from quorate.consensus.raft.messages import RaftMessage, RequestVote
from quorate.consensus.records import Recovered, SaveState
from quorate.consensus.replica import ConsensusProtocol, Message, Receive, ReplicaConfig, Tick
from quorate.node.config import LimitsConfig, StorageConfig
from quorate.node.room import CLUSTER_GROUP
from quorate.services.interface import Service
from quorate.services.zookeeper.commands import create_session, write
from quorate.services.zookeeper.protocol import PASSWORD_BYTES, Create, Op
from quorate.services.zookeeper.service import ZOOKEEPER
from quorate.services.zookeeper.store import Store
from quorate.services.zookeeper.tree import EPHEMERAL, Result
from quorate.simulation.cluster import SERVICE_GROUP, ClusterSettings, SimulatedCluster, client_host
from quorate.simulation.configuration_history import ChangeCounts
from quorate.simulation.mailbox import MailboxFaults, MailboxRates
from quorate.simulation.observation import Observer
from quorate.simulation.scheduler import Simulation
from quorate.simulation.store_agreement import StoreAgreement
from quorate.simulation.violation import Violation
from quorate.simulation.zookeeper_store import FinelySlicedStore, ObservedStore, observed_zookeeper
from quorate.storage.log import Log

NODES = 3
SETTINGS = ClusterSettings(
    NODES,
    ZOOKEEPER,
    limits=LimitsConfig(max_tail_bytes=64 << 10, max_message_bytes=16 << 10),
    storage=StorageConfig(segment_bytes=1 << 16, snapshot_log_bytes=1 << 17),
)


class Run:
    """A simulated cluster, under observation or not, with clients that write all the time."""

    def __init__(self, seed: int, observed: bool = True) -> None:
        self.simulation = Simulation(seed)
        self.random = Random(f"{seed}/test")
        self.violations: list[Violation] = []
        self.notes: list[tuple[int, str, str]] = []
        self.written = 0
        self.mailbox = MailboxFaults(Random(f"{seed}/mailbox"))
        note = lambda node, kind, text: self.notes.append((node, kind, text))  # noqa: E731
        self.observer = Observer(range(NODES), self.violations.append, self.mailbox, note)
        self.agreement = StoreAgreement(self.observer.violated)
        if observed:
            self.cluster = SimulatedCluster(self.simulation, SETTINGS, protocols=self._protocols, service=self._service)
        else:
            unobserved = replace(ZOOKEEPER, create_store=FinelySlicedStore)
            self.cluster = SimulatedCluster(self.simulation, SETTINGS, service=lambda _: unobserved)
        self.cluster.on_end = lambda node, error, served: self.violations.append(Violation("end", repr(error)))
        for node in range(NODES):
            self.cluster.start(node)
        for client in range(3):
            machine = self.simulation.boot(client_host(client))
            self.simulation.start(machine, self._write(client))

    def _protocols(self, node: int) -> Mapping[str, ConsensusProtocol]:
        receive = lambda sender, items: self.cluster.nodes[node].received(sender, items)  # noqa: E731
        return self.observer.protocols(node, [SERVICE_GROUP, CLUSTER_GROUP], self.cluster.machine(node).true_s, receive)

    def _service(self, node: int) -> Service:
        return observed_zookeeper(self.agreement, node)

    async def _write(self, number: int) -> None:
        random = Random(number)
        while True:
            client = ZooKeeperClient(self.cluster.client_addresses(), Random(random.getrandbits(32)), timeout_ms=4_000)
            try:
                await client.start()
                with contextlib.suppress(NodeExists):
                    await client.create(f"/{number}")
                await client.create(f"/{number}/e-", ephemeral=True, sequential=True)
                while True:
                    await client.set(f"/{number}", bytes(2_000))
                    self.written += 1
                    await asyncio.sleep(0.03)
            except ZooKeeperError:
                client.abandon()
                await asyncio.sleep(0.1)

    def go_on(self, seconds: float) -> None:
        self.simulation.pass_until(self.simulation.now_s + seconds)

    def leader(self) -> int:
        for _ in range(300):
            leader = self.cluster.leader()
            if leader is not None:
                return leader
            self.go_on(0.1)
        raise AssertionError(f"no leader: {self.cluster.describe()}")


@pytest.mark.parametrize("seed", [1, 2])
def test_sound_nodes_are_not_suspected_through_crashes_and_a_bad_network(seed: int) -> None:
    run = Run(seed)
    run.leader()
    for _ in range(8):
        before = run.written
        run.mailbox.rates = run.random.choice(
            (None, MailboxRates(dropped=0.05, delayed=0.1, duplicated=0.1, longest_delay_s=0.3))
        )
        # Each in turn stays away for so long that it needs a snapshot.
        node = run.random.choice((run.leader(), run.random.randrange(NODES)))
        run.cluster.kill(node, power_loss=run.random.random() < 0.5)
        run.go_on(4.0)
        run.cluster.start(node)
        run.go_on(2.0)
        assert run.written > before
    assert run.violations == []
    coverage = run.observer.coverage()
    unseen = {name for name, count in coverage.items() if count == 0} - asdict(ChangeCounts()).keys()
    # What depends on luck in so short a run may be missing.
    assert unseen <= {"truncations", "step_downs", "barriers_failed"}, coverage
    assert {"role", "commit", "install"} <= {kind for _, kind, _ in run.notes}


def test_to_be_observed_changes_nothing() -> None:
    digests = []
    for observed in (True, False):
        run = Run(3, observed)
        run.go_on(3.0)
        run.cluster.kill(run.leader(), power_loss=True)
        run.go_on(3.0)
        digests.append(run.simulation.digest())
        assert bool(run.observer.groups) is observed
    assert digests[0] == digests[1]


def test_a_disk_that_keeps_nothing_is_seen_at_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(4)
    leader = run.leader()
    with monkeypatch.context() as lie:
        lie.setattr(Log, "sync", lambda self: None)
        run.go_on(0.1)
        run.cluster.kill(leader, power_loss=True)
    run.cluster.start(leader)
    run.go_on(0.5)
    assert [violation.check for violation in run.violations] == ["durability"]


def test_a_damaged_disk_is_not_the_nodes_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(4)
    follower = (run.leader() + 1) % NODES
    with monkeypatch.context() as lie:
        lie.setattr(Log, "sync", lambda self: None)
        run.go_on(0.1)
        run.cluster.kill(follower, power_loss=True)
    run.observer.damaged(follower)
    run.cluster.start(follower)
    run.go_on(0.5)
    assert run.violations == []


def test_a_violation_does_not_stop_the_node_and_is_reported_once() -> None:
    run = Run(5)
    run.leader()
    run.observer.groups[SERVICE_GROUP].views[0].handed_position -= 1
    run.go_on(2.0)
    assert [violation.check for violation in run.violations] == ["state machine safety"]
    written = run.written
    run.go_on(1.0)
    assert run.written > written
    assert all(not node.failed.done() for node in run.cluster.nodes.values())


# --- one replica ---------------------------------------------------------------------------------


CONFIG = ReplicaConfig(0, Configuration.make(1, {0: "", 1: "", 2: ""}))


def request() -> RaftMessage:
    return RequestVote(1, 0, 0, False)


def test_groups_are_told_apart_by_the_order_in_which_a_node_builds_them() -> None:
    violations: list[Violation] = []
    observer = Observer(range(3), violations.append)
    for _ in range(2):
        raft = observer.protocols(0, [7, 3], lambda: 0.0, lambda sender, items: None)["raft"]
        first = raft.build(CONFIG, Recovered(), Random(1), 0)
        second = raft.build(CONFIG, Recovered(), Random(1), 0)
        with pytest.raises(AssertionError, match="more groups"):
            raft.build(CONFIG, Recovered(), Random(1), 0)
    first.step(Receive(1, request()), 0)
    states = {group: group_id for group_id, view in observer.groups.items() for group in [view.views[0].written.state]}
    assert set(states.values()) == {7, 3} and states[None] == 3
    second.step(Receive(1, request()), 0)
    assert observer.groups[3].views[0].written.state == observer.groups[7].views[0].written.state is not None
    assert violations == []


@pytest.mark.parametrize(
    ("rates", "at_once", "late"),
    [
        (MailboxRates(), True, 0),
        (MailboxRates(dropped=1.0), False, 0),
        (MailboxRates(delayed=1.0, longest_delay_s=0.5), False, 1),
        (MailboxRates(duplicated=1.0, longest_delay_s=0.5), True, 1),
    ],
    ids=["nothing", "dropped", "delayed", "duplicated"],
)
def test_what_the_mailbox_does_with_a_message(rates: MailboxRates, at_once: bool, late: int) -> None:
    mailbox = MailboxFaults(Random(1))
    mailbox.rates = rates
    violations: list[Violation] = []
    observer = Observer(range(3), violations.append, mailbox)
    received: list[tuple[int, int]] = []

    def receive(sender: int, items: list[tuple[int, Message]]) -> None:
        for group_id, message in items:
            received.append((sender, group_id))
            effects = replica.step(Receive(sender, message), 0)
            assert effects.messages or effects.messages_after_persist

    replica = observer.protocols(0, [5], lambda: 0.0, receive)["raft"].build(CONFIG, Recovered(), Random(1), 0)
    simulation = Simulation(0)

    async def work() -> bool:
        effects = replica.step(Receive(1, request()), 0)
        assert not received
        # Only messages have to do with the mailbox.
        replica.step(Tick(), 10_000)
        return any(isinstance(record, SaveState) for record in effects.records)

    machine = simulation.boot("10.0.0.1")
    assert simulation.run(machine, work()) is at_once
    simulation.pass_until(2.0)
    assert received == [(1, 5)] * late
    assert violations == []
    assert observer.coverage()["messages_dropped"] == (rates.dropped == 1.0)
    assert observer.coverage()["messages_delayed"] == (rates.delayed == 1.0)
    assert observer.coverage()["messages_duplicated"] == (rates.duplicated == 1.0)


# --- stores --------------------------------------------------------------------------------------

PASSWORD = bytes(PASSWORD_BYTES)


def stores() -> tuple[ObservedStore, ObservedStore, list[Violation]]:
    violations: list[Violation] = []
    agreement = StoreAgreement(violations.append)
    return ObservedStore(agreement, 0), ObservedStore(agreement, 1), violations


def ephemeral(session: int, path: bytes) -> bytes:
    return write(session, 1, Op.CREATE, Create(path, b"x", flags=EPHEMERAL).encode())


def commands() -> list[bytes]:
    return [create_session(1, 4_000, PASSWORD, 0), ephemeral(1, b"/e"), ephemeral(1, b"/f")]


def test_equal_stores_agree_and_so_does_one_that_was_restored() -> None:
    first, second, violations = stores()
    first.apply(commands(), 5)
    second.apply(commands(), 5)
    first.look()
    second.look()
    loader = second.restore()
    for slice_ in first.snapshot():
        loader.feed(slice_)
    loader.finish()
    assert violations == []
    assert first.zxid == second.zxid == 3 and len(first.tree.ephemerals[1]) == 2


@pytest.mark.parametrize(
    ("batch", "time_ms"), [([*commands()[:2], ephemeral(1, b"/g")], 5), (commands(), 6)], ids=["commands", "time"]
)
def test_other_commands_or_another_time_are_seen(batch: list[bytes], time_ms: int) -> None:
    first, second, violations = stores()
    first.apply(commands(), 5)
    second.apply(batch, time_ms)
    assert [violation.check for violation in violations] == ["state machine agreement"]


def test_other_results_are_seen() -> None:
    first, second, violations = stores()
    for store in (first, second):
        store.apply(commands()[:1], 5)
    second.sessions[1] = msgspec.structs.replace(second.sessions[1], generation=9)
    for store in (first, second):
        store.apply(commands()[1:], 5)
    assert [violation.check for violation in violations] == ["state machine agreement"]


def test_another_state_is_seen_where_it_is_looked_at() -> None:
    first, second, violations = stores()
    for store in (first, second):
        store.apply(commands(), 5)
    znode = second.tree.get(b"/e")
    assert znode is not None
    znode.data_buffer = b"\0\0\0\1y"
    first.look()
    second.look()
    assert [violation.check for violation in violations] == ["state machine agreement"]


def test_time_that_goes_back_is_seen_also_behind_a_snapshot() -> None:
    first, second, violations = stores()
    first.apply(commands()[:1], 5)
    first.apply(commands()[1:2], 5)
    loader = second.restore()
    for slice_ in first.snapshot():
        loader.feed(slice_)
    loader.finish()
    assert violations == []
    first.apply(commands()[2:], 4)
    second.apply(commands()[2:], 4)
    assert [violation.check for violation in violations] == ["time order"] * 2


def test_ephemerals_that_outlive_their_session_are_seen() -> None:
    first, _, violations = stores()
    first.apply(commands(), 5)
    del first.sessions[1]
    first.apply([create_session(2, 4_000, PASSWORD, 0)], 6)
    assert [violation.check for violation in violations] == ["ephemeral owner"]


def test_an_ephemeral_that_no_list_knows_is_seen_where_it_is_looked_at() -> None:
    first, _, violations = stores()
    first.apply(commands(), 5)
    first.tree.ephemerals[1].remove(b"/e")
    first.look()
    assert [violation.check for violation in violations] == ["ephemeral owner"] * 2


def test_a_command_that_takes_no_zxid_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Store.apply

    def forgetful(self: Store, commands: Sequence[bytes], time_ms: int) -> list[Result]:
        results = apply(self, commands, time_ms)
        self.zxid -= 1
        return results

    first, _, violations = stores()
    monkeypatch.setattr(Store, "apply", forgetful)
    first.apply(commands(), 5)
    assert [violation.check for violation in violations] == ["zxid order"]
