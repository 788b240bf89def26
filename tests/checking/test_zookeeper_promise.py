"""Each check of ZooKeeper's promise, shown a history that is right, and the same with one record wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorate.checking.zookeeper.records import (
    BAD_VERSION,
    NO_NODE,
    NODE_EXISTS,
    Call,
    End,
    Hold,
    Kind,
    Part,
    Use,
    Watch,
    WatchKind,
)
from quorate.services.zookeeper.errors import ErrorCode
from quorate.services.zookeeper.protocol import EventType
from tests.checking.zookeeper_log import Log


class Story(Log):
    """A bit of everything, all of it right.  What the tests spoil has a name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = self.session(), self.session(), self.session()
        self._data()
        self._keys()
        self._ephemerals()
        self._sequence_and_connections()
        self._lock()

    def _data(self) -> None:
        first, second = self.first, self.second
        self.create(first, "/r", "a", 0x1)
        read = self.get(first, "/r", "a", (0x1, 0x1, 0), 0x1)
        self.data_watch = self.watch(read, WatchKind.DATA)
        self.set_b = self.set(second, "/r", "b", 0x2, 1)
        self.fire(self.data_watch, EventType.DATA_CHANGED)
        self.read_b = self.get(first, "/r", "b", (0x1, 0x2, 1), 0x2)
        self.refused = self.set(second, "/r", "never", 0x3, code=BAD_VERSION, expected_version=0)
        self.swapped = self.set(second, "/r", "c", 0x4, 2, expected_version=1)
        self.multi_done = self.multi(
            first, 0x5, Part(Kind.SET, "/r", "d", 3), Part(Kind.CREATE, "/m", "e"), Part(Kind.CHECK, "/r", version=3)
        )
        self.multi_failed = self.multi(
            second, 0x6, Part(Kind.SET, "/r", "f"), Part(Kind.DELETE, "/nothing"), code=NO_NODE
        )
        self.read_d = self.get(second, "/r", "d", (0x1, 0x5, 3), 0x6)
        self.read_m = self.get(second, "/m", "e", (0x5, 0x5, 0), 0x6)

    def _keys(self) -> None:
        first, second = self.first, self.second
        absent = self.absent(first, "/k/1", 0x6)
        self.exist_watch = self.watch(absent, WatchKind.EXIST)
        listed = self.children(first, "/k", (), 0x6)
        self.child_watch = self.watch(listed, WatchKind.CHILD)
        self.made_k = self.create(second, "/k/1", "k", 0x10)
        self.fire(self.exist_watch, EventType.CREATED)
        self.fire(self.child_watch, EventType.CHILDREN_CHANGED)
        self.read_k = self.exists(first, "/k/1", (0x10, 0x10, 0), 0x10)
        self.child_watch_of_k = self.watch(self.children(first, "/k/1", (), 0x10), WatchKind.CHILD)
        self.exists_already = self.create(first, "/k/1", "k2", 0x11, code=NODE_EXISTS)
        self.deleted_k = self.delete(second, "/k/1", 0x12)
        self.fire(self.child_watch_of_k, EventType.DELETED)
        self.absent_k = self.absent(first, "/k/1", 0x12)
        self.set_nothing = self.set(first, "/k/1", "k3", 0x13, code=NO_NODE)
        self.listed_k = self.children(second, "/k", (), 0x13)
        self.multi_refused = self.multi(
            second, 0x14, Part(Kind.SET, "/r", "g"), Part(Kind.CHECK, "/r", version=3), code=BAD_VERSION
        )

    def _ephemerals(self) -> None:
        first, second, third = self.first, self.second, self.third
        self.made_e = self.create(second, "/e/1", "e1", 0x20, ephemeral=True)
        self.create(third, "/e/2", "e2", 0x21, ephemeral=True)
        self.create(third, "/e/3", "e3", 0x22, ephemeral=True)
        self.listed_e = self.children(first, "/e", ("1", "2", "3"), 0x22)
        self.list_watch_of_e = self.watch(self.listed_e, WatchKind.CHILD)
        seen = self.exists(first, "/e/1", (0x20, 0x20, 0), 0x22, owner=0xA0 + second)
        self.watch_of_closed = self.watch(seen, WatchKind.DATA)
        seen = self.exists(first, "/e/3", (0x22, 0x22, 0), 0x22, owner=0xA0 + third)
        self.watch_of_expired = self.watch(seen, WatchKind.DATA)
        self.last_of_third = self.get(third, "/r", "d", (0x1, 0x5, 3), 0x22)
        self.closed = self.close(second, 0x23)
        self.fire(self.watch_of_closed, EventType.DELETED)
        self.fire(self.list_watch_of_e, EventType.CHILDREN_CHANGED)
        self.absent_e = self.absent(first, "/e/1", 0x23)
        # The third session has expired: nobody is told at which zxid.
        self.fire(self.watch_of_expired, EventType.DELETED)
        self.gone_by = self.absent(first, "/e/2", 0x24)
        self.listed_later = self.children(first, "/e", (), 0x25)

    def _sequence_and_connections(self) -> None:
        first = self.first
        self.create(first, "/s/x-0000000000", None, 0x30, sequential=True)
        self.second_in_sequence = self.create(first, "/s/x-0000000002", None, 0x31, sequential=True)
        self.made_own = self.create(first, "/own", "o", 0x32)
        for number in range(3):
            self.set(first, "/own", f"o{number}", 0x33 + number, 1 + number, connection=1)
        # The connection was lost with three sets under way.  The second was done, so the first was too.
        for number in range(3, 6):
            self.set(first, "/own", f"o{number}", None, connection=2)
        self.read_own = self.get(first, "/own", "o4", (0x32, 0x40, 5), 0x41)

    def _lock(self) -> None:
        first, fourth = self.first, self.session()
        claim = self.create(first, "/l/a-0000000000", None, 0x50, ephemeral=True, sequential=True)
        listed = self.children(first, "/l", ("a-0000000000",), 0x50)
        self.hold = Hold("/l", claim.path, first, claim.czxid, listed.zxid, listed.invoked_at)
        later = self.create(fourth, "/l/b-0000000001", None, 0x51, ephemeral=True, sequential=True)
        self.in_line = self.children(fourth, "/l", ("a-0000000000", "b-0000000001"), 0x51)
        self.hold.release = self.delete(first, claim.path, 0x52)
        listed = self.children(fourth, "/l", ("b-0000000001",), 0x52)
        self.next_hold = Hold("/l", later.path, fourth, later.czxid, listed.zxid, listed.invoked_at)
        self.history.holds += [self.hold, self.next_hold]
        self.use = Use("/l", fourth, 0x51, 99.0, True)
        self.history.uses += [Use("/l", first, 0x50, 98.0, True), self.use, Use("/l", first, 0x50, 99.5, False)]


def test_the_story_is_right() -> None:
    assert Story().findings() == []


def test_what_was_wrong_first_is_told_first() -> None:
    story = Story()
    story.listed_later.children = ("3",)
    story.data_watch.fired_arrival = 0
    story.next_hold.token = 0x4F
    times = [finding.at for finding in story.findings()]
    assert times == sorted(times)
    assert times[0] == story.set_b.invoked_at + 1.5
    assert story.findings()[-1].check == "locks"


def _forget_event(story: Story) -> None:
    story.data_watch.fired_arrival = story.data_watch.fired_times = 0


def _fire_late(story: Story) -> None:
    story.data_watch.fired_arrival, story.read_b.arrival = story.read_b.arrival, story.data_watch.fired_arrival


def _set(call: Callable[[Story], Call], **fields: object) -> Callable[[Story], None]:
    def spoil(story: Story) -> None:
        for name, value in fields.items():
            setattr(call(story), name, value)

    return spoil


def _undo(call: Callable[[Story], Call]) -> Callable[[Story], None]:
    """The call had never been made."""
    return lambda story: story.history.calls.remove(call(story))


def _unfired(watch: Callable[[Story], Watch]) -> Callable[[Story], None]:
    def spoil(story: Story) -> None:
        watch(story).fired_arrival = watch(story).fired_times = 0

    return spoil


def _check_another(multi: Callable[[Story], Call], version: int) -> Callable[[Story], None]:
    def spoil(story: Story) -> None:
        multi(story).parts[-1].version = version

    return spoil


def _undo_part(multi: Callable[[Story], Call]) -> Callable[[Story], None]:
    """The last one had not been asked for."""

    def spoil(story: Story) -> None:
        multi(story).parts = multi(story).parts[:-1]

    return spoil


def _do(action: Callable[[Story], object]) -> Callable[[Story], None]:
    def spoil(story: Story) -> None:
        action(story)

    return spoil


SPOILED: dict[str, tuple[str, Callable[[Story], None]]] = {
    "a write is not behind what was shown before it": ("linearizable writes", _set(lambda s: s.multi_done, zxid=0x1)),
    "a refusal is not behind what was shown before it": ("linearizable writes", _set(lambda s: s.refused, zxid=0x0)),
    "a synced read is older than what was shown": ("linearizable reads", _set(lambda s: s.read_m, zxid=0x5)),
    "two writes have one zxid": ("writes", _set(lambda s: s.set_b, zxid=0x1, mzxid=0x1)),
    "a set is answered with another mzxid": ("writes", _set(lambda s: s.set_b, mzxid=0x1)),
    "a set leaves a version out": ("writes", _set(lambda s: s.set_b, version=2)),
    "a set ignores the expected version": ("writes", _set(lambda s: s.swapped, expected_version=0)),
    "a set is refused for the right version": ("writes", _set(lambda s: s.refused, expected_version=1)),
    "a multi is done though its check is wrong": ("writes", _check_another(lambda s: s.multi_done, 2)),
    "a multi is refused though its check is right": ("writes", _check_another(lambda s: s.multi_refused, 4)),
    "a multi is refused for a node that is there": ("writes", _undo_part(lambda s: s.multi_failed)),
    "a multi is refused for another reason": ("writes", _set(lambda s: s.multi_refused, code=NODE_EXISTS)),
    "a set is done on no node": ("writes", _undo(lambda s: s.made_own)),
    "an ephemeral belongs to another session": ("writes", _set(lambda s: s.made_e, owner=0xA0)),
    "a node is created twice": ("reads", _set(lambda s: s.exists_already, code=0, czxid=0x11, mzxid=0x11, version=0)),
    "a read is stale": ("reads", _set(lambda s: s.read_b, value="a", mzxid=0x1, version=0)),
    "a read finds what nobody wrote": ("reads", _set(lambda s: s.read_b, value="x")),
    "a read finds what was refused": ("reads", _set(lambda s: s.read_d, value="never", mzxid=0x6)),
    "a read finds a part of a failed multi": ("reads", _set(lambda s: s.read_d, value="f", mzxid=0x6)),
    "a read misses a part of a multi": ("reads", _set(lambda s: s.read_d, value="c", mzxid=0x4, version=2)),
    "a read shows another version": ("reads", _set(lambda s: s.read_b, version=0)),
    "a read shows another czxid": ("reads", _set(lambda s: s.read_b, czxid=0x2)),
    "one value has two mzxids": ("reads", _set(lambda s: s.last_of_third, mzxid=0x6)),
    "an acknowledged create is lost": ("reads", _set(lambda s: s.read_k, code=NO_NODE)),
    "a deleted node is seen": ("reads", _set(lambda s: s.absent_k, code=0, czxid=0x10, mzxid=0x10, version=0)),
    "a deleted node is listed": ("reads", _set(lambda s: s.listed_k, children=("1",))),
    "a create finds a node that is not there": ("reads", _undo(lambda s: s.made_k)),
    "a set finds no node where one is": ("reads", _undo(lambda s: s.deleted_k)),
    "zxids of a session go back": ("session order", _set(lambda s: s.listed_k, zxid=0x11, synced=False)),
    "answers of a session come out of order": ("session order", _set(lambda s: s.read_m, arrival=1)),
    "what comes on a connection is not what is due": (
        "session order",
        _do(lambda s: setattr(s.history.sessions[1], "broken_connections", 1)),
    ),
    "two sessions have one id": ("session order", _do(lambda s: setattr(s.history.sessions[1], "session_id", 0xA0))),
    "an unknown write happens after a later answer": ("session order", _set(lambda s: s.read_own, mzxid=0x60)),
    "what went over one connection has a gap": ("session order", _set(lambda s: s.read_own, version=4)),
    "numbers of sequential nodes go back": (
        "sequences",
        _set(lambda s: s.second_in_sequence, path="/s/x-0000000000"),
    ),
    "an ephemeral outlives its closed session": (
        "ephemerals",
        _set(lambda s: s.absent_e, code=0, czxid=0x20, mzxid=0x20, version=0, owner=0xA1),
    ),
    "a part of an expired session's ephemerals is left": (
        "ephemerals",
        _set(lambda s: s.listed_later, children=("3",)),
    ),
    "an ephemeral vanishes from a session that is served": (
        "ephemerals",
        _set(lambda s: s.listed_e, children=("2", "3")),
    ),
    "a watch does not fire": ("watches", _forget_event),
    "a watch fires behind what it announces": ("watches", _fire_late),
    "a watch fires twice": ("watches", _do(lambda s: setattr(s.data_watch, "fired_times", 2))),
    "a watch fires with a wrong event": ("watches", _do(lambda s: setattr(s.data_watch, "event_type", 1))),
    "a watch fires for nothing": ("watches", _do(lambda s: setattr(s.data_watch, "set_zxid", 0x5))),
    "an exist watch does not fire": ("watches", _do(lambda s: setattr(s.exist_watch, "fired_arrival", 0))),
    "a child watch does not fire": ("watches", _do(lambda s: setattr(s.child_watch, "fired_arrival", 0))),
    "a child watch of a node that is deleted does not fire": ("watches", _unfired(lambda s: s.child_watch_of_k)),
    "a watch of a closed session's ephemeral does not fire": ("watches", _unfired(lambda s: s.watch_of_closed)),
    "a watch of an expired session's ephemeral does not fire": ("watches", _unfired(lambda s: s.watch_of_expired)),
    "a child watch does not fire when a session ends": ("watches", _unfired(lambda s: s.list_watch_of_e)),
    "an event comes unasked": ("watches", _do(lambda s: setattr(s.history.sessions[0], "unasked_events", 1))),
    "a lock is passed on while it is held": ("locks", _do(lambda s: setattr(s.next_hold, "held_zxid", 0x51))),
    "a lock is taken from a session that is served": ("locks", _do(lambda s: setattr(s.hold, "release", None))),
    "tokens do not grow": ("locks", _do(lambda s: setattr(s.next_hold, "token", 0x4F))),
    "a lower token is accepted": ("locks", _do(lambda s: setattr(s.history.uses[2], "accepted", True))),
    "a token is used by another session": ("locks", _do(lambda s: setattr(s.use, "session", 2))),
}


@pytest.mark.parametrize("what", SPOILED)
def test_one_wrong_record_is_found(what: str) -> None:
    check, spoil = SPOILED[what]
    story = Story()
    spoil(story)
    assert check in story.checks(), story.findings()


# --- what is not known ---------------------------------------------------------------------------


def test_a_write_of_unknown_outcome_explains_what_is_seen_of_it_and_nothing_else() -> None:
    log = Log()
    first, second = log.session(), log.session()
    log.create(first, "/r", "a", 1)
    log.set(first, "/r", "b", None)
    log.get(second, "/r", "a", (1, 1, 0), 1)
    log.exists(second, "/r", (1, 3, 1), 3)
    log.get(second, "/r", "b", (1, 3, 1), 4)
    assert log.findings() == []
    log.get(second, "/r", "a", (1, 1, 0), 5)
    assert log.checks() == {"reads"}


def test_an_unknown_write_happens_before_its_session_is_answered_again_or_never() -> None:
    log = Log()
    first, second = log.session(), log.session()
    log.create(first, "/k", "a", 1)
    log.delete(first, "/k", None)
    log.get(first, "/k", "a", (1, 1, 0), 4)
    assert log.findings() == []
    log.absent(second, "/k", 6)
    assert log.checks() == {"reads"}


def test_an_unknown_write_does_not_happen_before_it_was_sent() -> None:
    log = Log()
    first, second = log.session(), log.session()
    log.create(first, "/k", "a", 1)
    late = log.absent(second, "/k", 3)
    log.delete(first, "/k", None)
    assert log.checks() == {"reads"}
    # Unless both were under way at the same time.
    late.returned_at = 9.0
    assert log.findings() == []


def test_an_unknown_multi_is_done_as_a_whole() -> None:
    log = Log()
    first, second = log.session(), log.session()
    log.create(first, "/a", "1", 1)
    log.create(first, "/b", "1b", 2)
    log.multi(first, None, Part(Kind.SET, "/a", "2"), Part(Kind.SET, "/b", "2b"))
    log.get(second, "/a", "2", (1, 3, 1), 3)
    other = log.get(second, "/b", "2b", (2, 3, 1), 4)
    assert log.findings() == []
    other.value, other.mzxid, other.version = "1b", 2, 0
    assert log.checks() == {"reads"}


def test_an_unknown_sequential_create_explains_a_child_that_nobody_was_told_of() -> None:
    log = Log()
    first, second = log.session(), log.session()
    log.create(first, "/l/c-", None, None, ephemeral=True, sequential=True)
    log.children(second, "/l", ("c-0000000007",), 4)
    assert log.findings() == []
    log.children(second, "/l", ("d-0000000008",), 5)
    assert log.checks() == {"reads"}


def test_a_session_that_was_left_may_end_at_any_time_but_only_once() -> None:
    log = Log()
    first, second = log.session(), log.session()
    log.create(first, "/e/1", "a", 1, ephemeral=True)
    log.create(first, "/e/2", "b", 2, ephemeral=True)
    log.history.sessions[first].end = End.LEFT
    log.children(second, "/e", ("1", "2"), 9)
    log.absent(second, "/e/2", 10)
    assert log.findings() == []
    log.exists(second, "/e/1", (1, 1, 0), 11, owner=0xA0)
    assert log.checks() == {"ephemerals"}


def test_a_session_lasts_for_its_timeout_from_a_ping_that_was_answered() -> None:
    log = Log()
    session = log.history.sessions[log.session()]
    session.end, session.ended_at, session.vouched_at = End.EXPIRED, 9.0, 5.1
    assert log.findings() == []
    session.vouched_at = 5.6
    assert log.checks() == {"session expiry"}
    session.end = End.LEFT
    assert log.findings() == []


def test_an_ephemeral_of_unknown_outcome_that_was_listed_belongs_to_whoever_may_have_made_it() -> None:
    log = Log()
    first, second = log.session(), log.session()
    log.create(first, "/e/1", "a", None, ephemeral=True)
    log.children(second, "/e", ("1",), 2)
    log.children(second, "/e", (), 5)
    assert log.findings() == []
    log.get(first, "/other", "x", (0, 0, 0), 6).code = NO_NODE
    assert log.checks() == {"ephemerals"}


def test_what_belongs_to_a_session_whose_client_knows_that_it_has_expired_is_not_seen() -> None:
    log = Log()
    first, second = log.session(), log.session()
    log.create(first, "/e/1", "a", 1, ephemeral=True)
    session = log.history.sessions[first]
    session.end, session.ended_at = End.EXPIRED, 0.9
    seen = log.exists(second, "/e/1", (1, 1, 0), 2, owner=0xA0)
    assert log.checks() == {"ephemerals"}
    # A read without a sync may be behind.
    seen.synced = False
    assert log.findings() == []


def test_nodes_that_come_and_go_unseen_need_not_fire_an_exist_watch() -> None:
    log = Log()
    first, second = log.session(), log.session()
    watch = log.watch(log.absent(first, "/k", 1), WatchKind.EXIST)
    log.create(second, "/k", "a", 2)
    log.delete(second, "/k", 3)
    log.get(first, "/other", "x", (0, 0, 0), 3).code = NO_NODE
    assert log.findings() == []
    log.create(second, "/k", "b", 4)
    log.get(first, "/other", "x", (0, 0, 0), 4).code = NO_NODE
    assert log.checks() == {"watches"}
    watch.set_arrival = 0
    assert log.findings() == []


def test_a_watch_may_be_fired_by_a_write_of_unknown_outcome() -> None:
    log = Log()
    first, second = log.session(), log.session()
    log.create(first, "/k", "a", 1)
    watch = log.watch(log.get(first, "/k", "a", (1, 1, 0), 1), WatchKind.DATA)
    unknown = log.set(second, "/k", "b", None)
    log.fire(watch, EventType.DATA_CHANGED)
    assert log.findings() == []
    log.history.calls.remove(unknown)
    assert log.checks() == {"watches"}


def test_a_watch_of_an_ephemeral_that_may_be_gone_is_not_due_before_somebody_knows() -> None:
    log = Log()
    first, second, third = log.session(), log.session(), log.session()
    log.create(second, "/e/1", "a", 1, ephemeral=True)
    listed = log.children(first, "/e", ("1",), 1)
    log.watch(log.exists(first, "/e/1", (1, 1, 0), 1, owner=0xA1), WatchKind.DATA)
    log.history.sessions[second].end = End.LEFT
    log.get(first, "/other", "x", (0, 0, 0), 4).code = NO_NODE
    log.absent(third, "/e/1", 5)
    log.absent(third, "/e/1", 9)
    assert log.findings() == []
    later = log.absent(first, "/other", 5, synced=False)
    assert log.checks() == {"watches"}
    later.zxid = 4
    assert log.findings() == []
    # It may have gone before a watch that was set on the list of an older state.
    log.history.watches.clear()
    watch = log.watch(listed, WatchKind.CHILD)
    later.zxid = 5
    assert log.checks() == {"watches"}
    watch.set_zxid = 2
    assert log.findings() == []


def test_a_multi_is_refused_for_what_may_have_been_there() -> None:
    log = Log()
    first, second = log.session(), log.session()
    log.create(first, "/r", "a", 1)
    unknown = log.set(second, "/r", "b", None)
    log.multi(first, 5, Part(Kind.CHECK, "/r", version=0), code=BAD_VERSION)
    assert log.findings() == []
    log.history.calls.remove(unknown)
    assert log.checks() == {"writes"}


def test_what_a_door_gave_up_has_no_zxid_of_its_own() -> None:
    log = Log()
    first = log.session()
    log.create(first, "/k", "a", 5)
    log.set(first, "/k", "b", 3, code=int(ErrorCode.SYSTEM_ERROR))
    log.get(first, "/k", "a", (5, 5, 0), 5)
    assert log.findings() == []
    log.get(first, "/k", "b", (5, 6, 1), 6)
    assert log.checks() == {"reads"}


def test_a_set_shows_that_its_node_was_made_anew() -> None:
    log = Log()
    first, second, third = log.session(), log.session(), log.session()
    log.create(first, "/k", "a", 1)
    gone, made = log.delete(second, "/k", None), log.create(third, "/k", "b", None)
    log.set(first, "/k", "c", 8, 1).czxid = 5
    log.get(first, "/k", "c", (5, 8, 1), 8)
    assert log.findings() == []
    log.history.calls.remove(gone)
    log.history.calls.remove(made)
    assert log.checks() == {"writes"}


def test_an_exist_watch_need_not_tell_of_a_node_that_came_and_went_however_often() -> None:
    log = Log()
    first, second, third = log.session(), log.session(), log.session()
    watch = log.watch(log.absent(first, "/k", 1), WatchKind.EXIST)
    log.create(second, "/k", "a", 3)
    log.delete(second, "/k", 4)
    log.get(first, "/r", "x", (0, 0, 0), 6).code = NO_NODE
    made = log.create(third, "/k", "b", None)
    log.delete(second, "/k", 9)
    assert log.findings() == []
    log.history.calls.remove(made)
    log.history.calls = [call for call in log.history.calls if call.zxid not in (4, 9)]
    assert log.checks() == {"watches"}
    assert watch.fired_times == 0
