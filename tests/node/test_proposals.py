"""Proposals: in order, once, and nobody is left waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quorate.consensus.replica import Effects, Event, Leadership, Message, Propose, Refusal, Role
from quorate.net.connection import Direction
from quorate.node.proposals import MAX_WAITING_BYTES, Proposals, WaiterEvents
from quorate.node.wire import Batch, Forward, ForwardRefused, Payload, PayloadCodec
from quorate.services.interface import Refused, Waiter

NODE, PEER, BOOT = 0, 1, 77
LEADS = Leadership(Role.LEADER, NODE, 5, ready=True)
FOLLOWS = Leadership(Role.FOLLOWER, PEER, 5)
NOBODY = Leadership(Role.FOLLOWER, None, 5)


@dataclass
class Bench:
    """Proposals between a door and a node that only take notes."""

    refuse_with: Refusal | None = None
    full: bool = False
    quorum_full: bool = False
    connected: bool = True
    uncommitted: int = 0
    now: int = 1000
    scheduled: int = 0
    proposed: list[Payload] = field(default_factory=list)
    sent: list[tuple[int, Message]] = field(default_factory=list)
    ended: list[tuple[str, Waiter]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.proposals = Proposals(1, NODE, BOOT, self, hold_ms=500, max_uncommitted_bytes=1000)
        self.proposals.attach(WaiterEvents(self._refused, self._lost, lambda: self.ended.append(("relieved", None))))

    def _refused(self, waiters: Sequence[Waiter], why: Refused) -> None:
        self.ended += [(why.name, waiter) for waiter in waiters]

    def _lost(self, waiters: Sequence[Waiter]) -> None:
        self.ended += [("lost", waiter) for waiter in waiters]

    def now_ms(self) -> int:
        return self.now

    def wall_ms(self) -> int:
        return 1_000_000 + self.now

    def clock(self) -> float:
        return self.now / 1000

    def step(self, group_id: int, event: Event) -> Effects:
        assert isinstance(event, Propose)
        if self.refuse_with is None:
            self.proposed.append(PayloadCodec().decode(event.payload))
        return Effects(refused=self.refuse_with)

    def schedule(self) -> None:
        self.scheduled += 1

    def when_durable(self, done: object) -> None:
        raise AssertionError("not used here")

    def send(self, group_id: int, to: int, message: Message) -> bool:
        if self.connected:
            self.sent.append((to, message))
        return self.connected

    def install_snapshot(self, group_id: int, position: int) -> None:
        raise AssertionError("not used here")

    def configured(self) -> None:
        raise AssertionError("not used here")

    def led(self, service: str, before: Leadership, after: Leadership) -> None:
        raise AssertionError("not used here")

    def own_disk_full(self) -> bool:
        return self.full

    def refuses_writes(self) -> bool:
        return self.full or self.quorum_full

    def submit(self, *commands: bytes) -> None:
        self.proposals.submit(list(commands), [command.decode() for command in commands])

    def flush(self, leadership: Leadership) -> None:
        self.proposals.flush(leadership, lambda: self.uncommitted)


def test_a_leader_puts_what_is_pending_into_one_entry_in_order() -> None:
    bench = Bench()
    bench.submit(b"a", b"b")
    bench.submit(b"c")
    bench.proposals.take_forward(PEER, Forward(5, Batch(PEER, 9, 1, [b"x"])), LEADS)
    bench.flush(LEADS)
    (payload,) = bench.proposed
    assert payload.time_ms == 1_001_000
    assert [(batch.origin, batch.sequence, batch.commands) for batch in payload.batches] == [
        (PEER, 1, [b"x"]),
        (NODE, 1, [b"a", b"b", b"c"]),
    ]
    assert bench.proposals.take_waiters(payload.batches[0]) is None
    assert bench.proposals.take_waiters(payload.batches[1]) == ["a", "b", "c"]
    assert bench.proposals.take_waiters(payload.batches[1]) is None, "a waiter comes back once"


def test_a_follower_forwards_once_and_in_order() -> None:
    bench = Bench()
    bench.submit(b"a")
    bench.flush(FOLLOWS)
    bench.submit(b"b")
    bench.flush(FOLLOWS)
    bench.flush(FOLLOWS)
    forwards = [message for _, message in bench.sent if isinstance(message, Forward)]
    assert [(forward.generation, forward.batch.sequence, forward.batch.commands) for forward in forwards] == [
        (5, 1, [b"a"]),
        (5, 2, [b"b"]),
    ]


def test_an_earlier_life_of_this_node_has_no_waiters() -> None:
    bench = Bench()
    bench.submit(b"a")
    bench.flush(LEADS)
    assert bench.proposals.take_waiters(Batch(NODE, BOOT + 1, 1, [b"a"])) is None
    assert bench.proposals.take_waiters(Batch(PEER, BOOT, 1, [b"a"])) is None


def test_without_a_leader_commands_wait_and_are_then_refused() -> None:
    bench = Bench()
    bench.proposals.leadership_changed(NOBODY)
    bench.submit(b"a")
    bench.flush(NOBODY)
    bench.proposals.tick(bench.now + 500)
    assert bench.ended == []
    bench.proposals.tick(bench.now + 501)
    assert bench.ended == [("NO_LEADER", "a")]


def test_a_leader_that_cannot_be_reached_is_no_better_than_none() -> None:
    bench = Bench(connected=False)
    bench.submit(b"a")
    bench.flush(FOLLOWS)
    bench.now += 400
    bench.submit(b"b")
    bench.flush(FOLLOWS)
    bench.proposals.tick(bench.now + 101)
    assert bench.ended == [("NO_LEADER", "a"), ("NO_LEADER", "b")]


def test_a_refused_forward_takes_what_follows_with_it() -> None:
    bench = Bench()
    bench.submit(b"a")
    bench.flush(FOLLOWS)
    bench.submit(b"behind it")
    bench.proposals.forward_refused(ForwardRefused(BOOT, 1, False))
    assert bench.ended == [("NO_LEADER", "a"), ("NO_LEADER", "behind it")]


def test_a_leader_that_is_overloaded_keeps_the_order_of_what_waits() -> None:
    bench = Bench(refuse_with=Refusal.OVERLOADED, uncommitted=900)
    for sequence in (1, 2):
        bench.proposals.take_forward(PEER, Forward(5, Batch(PEER, 9, sequence, [b"x"])), LEADS)
    bench.submit(b"a")
    bench.flush(LEADS)
    bench.refuse_with = None
    bench.proposals.take_forward(PEER, Forward(5, Batch(PEER, 9, 3, [b"y"])), LEADS)
    bench.flush(LEADS)
    assert bench.proposed == [], "nothing was committed since: it would only be refused again"
    bench.uncommitted = 800
    bench.flush(LEADS)
    batches = [(batch.origin, batch.sequence) for payload in bench.proposed for batch in payload.batches]
    assert [sequence for origin, sequence in batches if origin == PEER] == [1, 2, 3]
    assert bench.sent == [] and bench.ended == []


def test_a_follower_whose_disk_is_full_refuses_instead_of_forwarding() -> None:
    bench = Bench(full=True)
    bench.submit(b"a")
    bench.flush(FOLLOWS)
    assert bench.sent == [] and bench.ended == [("DISK_FULL", "a")]


def test_commands_that_waited_for_a_leader_go_to_it() -> None:
    bench = Bench()
    bench.proposals.leadership_changed(NOBODY)
    bench.submit(b"a")
    bench.flush(NOBODY)
    bench.proposals.leadership_changed(FOLLOWS)
    bench.connected = False
    bench.flush(FOLLOWS)
    assert bench.sent == [] and bench.ended == []
    bench.connected = True
    bench.flush(FOLLOWS)
    assert len(bench.sent) == 1


def test_a_lost_leader_leaves_doubt_and_nothing_overtakes_it() -> None:
    bench = Bench()
    bench.submit(b"under way")
    bench.flush(FOLLOWS)
    bench.submit(b"behind it")
    bench.proposals.leadership_changed(NOBODY)
    assert bench.ended == [("lost", "under way"), ("NO_LEADER", "behind it")]
    bench.flush(FOLLOWS)
    assert len(bench.sent) == 1, "nothing is sent a second time"


def test_a_lost_connection_to_the_leader_ends_what_went_over_it() -> None:
    bench = Bench()
    bench.submit(b"a")
    bench.flush(FOLLOWS)
    bench.proposals.peer_lost(2, Direction.OUTGOING, FOLLOWS)
    bench.proposals.peer_lost(PEER, Direction.INCOMING, FOLLOWS)
    assert bench.ended == []
    bench.proposals.peer_lost(PEER, Direction.OUTGOING, FOLLOWS)
    assert bench.ended == [("lost", "a")]


def test_a_leader_drops_what_came_over_a_connection_that_ended() -> None:
    bench = Bench()
    bench.proposals.take_forward(PEER, Forward(5, Batch(PEER, 9, 1, [b"x"])), LEADS)
    bench.proposals.take_forward(2, Forward(5, Batch(2, 9, 1, [b"y"])), LEADS)
    bench.proposals.peer_lost(2, Direction.OUTGOING, LEADS)
    bench.proposals.peer_lost(PEER, Direction.INCOMING, LEADS)
    bench.flush(LEADS)
    assert [batch.commands for payload in bench.proposed for batch in payload.batches] == [[b"y"]]


def test_a_batch_meant_for_another_leadership_is_refused() -> None:
    bench = Bench()
    for count, leadership in enumerate((FOLLOWS, Leadership(Role.LEADER, NODE, 6)), 1):
        bench.proposals.take_forward(PEER, Forward(5, Batch(PEER, 9, 3, [b"x"])), leadership)
        assert bench.scheduled == count, "the refusal does not wait for somebody else's flush"
    assert bench.sent == [(PEER, ForwardRefused(9, 3, False))] * 2
    bench.flush(LEADS)
    assert bench.proposed == []


def test_a_refused_forward_is_told_to_its_waiters() -> None:
    bench = Bench()
    bench.submit(b"a")
    bench.flush(FOLLOWS)
    bench.submit(b"b")
    bench.flush(FOLLOWS)
    bench.proposals.forward_refused(ForwardRefused(BOOT, 1, True))
    bench.proposals.forward_refused(ForwardRefused(BOOT + 1, 2, True))
    bench.proposals.forward_refused(ForwardRefused(BOOT, 1, False))
    assert bench.ended == [("DISK_FULL", "a")]


def test_a_full_disk_refuses_here_and_for_the_followers() -> None:
    bench = Bench(full=True)
    bench.submit(b"a")
    bench.proposals.take_forward(PEER, Forward(5, Batch(PEER, 9, 4, [b"x"])), LEADS)
    bench.flush(LEADS)
    assert bench.proposed == []
    assert bench.ended == [("DISK_FULL", "a")]
    assert bench.sent == [(PEER, ForwardRefused(9, 4, True))]


def test_a_proposal_that_the_replica_refuses_waits_for_the_next_leader() -> None:
    bench = Bench(refuse_with=Refusal.NOT_LEADER)
    bench.submit(b"a")
    bench.submit(b"b")
    bench.flush(LEADS)
    assert bench.ended == []
    bench.flush(FOLLOWS)
    ((_, forward),) = bench.sent
    assert isinstance(forward, Forward) and forward.batch.commands == [b"a", b"b"]


def test_too_much_waiting_stops_the_doors_until_half_is_done() -> None:
    bench = Bench()
    big = b"x" * (MAX_WAITING_BYTES // 4)
    for _ in range(4):
        bench.submit(big)
    assert bench.proposals.congested()
    bench.flush(LEADS)
    assert len(bench.proposed) == 4, "an entry is bounded"
    for payload in bench.proposed[:3]:
        bench.proposals.take_waiters(payload.batches[0])
    assert not bench.proposals.congested()
    assert bench.ended == [("relieved", None)]


def test_many_small_commands_count_as_well() -> None:
    bench = Bench()
    bench.proposals.submit([b""] * 300_000, [None] * 300_000)
    assert bench.proposals.congested()
