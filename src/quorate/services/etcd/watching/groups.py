"""Watches in groups, each of which has one place in the history.

A *topic* is what watches can have in common: range, filters, whether they want what was before.  Watches of a topic
see the same events as the same bytes.  A *group* holds the watches that were told of the same revisions, by topic: one
group is up to date, the others are behind it, each somewhere else.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from quorate.services.etcd.versions import Version
from quorate.services.etcd.watching.index import RangeIndex
from quorate.services.etcd.watching.responses import encode_event, watch_id_field

if TYPE_CHECKING:
    from quorate.services.etcd.store import Store
    from quorate.services.etcd.watching.stream import WatchStream

MAX_STEP_BYTES: Final = 256 << 10
"""Bytes of events in such a step."""


class Subject(NamedTuple):
    """What a topic is about."""

    key: bytes
    end: bytes
    """As in `index`."""
    wants_previous: bool
    wants_puts: bool
    wants_deletes: bool


class Watch:
    """What one client's watch is, and where it is in the history."""

    __slots__ = (
        "group",
        "id_field",
        "may_split",
        "start",
        "stream",
        "subject",
        "wants_progress",
        "was_told",
        "watch_id",
    )

    def __init__(
        self, stream: WatchStream, watch_id: int, subject: Subject, start: int, may_split: bool, wants_progress: bool
    ) -> None:
        self.stream: Final = stream
        self.watch_id: Final = watch_id
        self.id_field: Final = watch_id_field(watch_id)
        self.subject: Final = subject
        self.start: Final = start
        """It is not told of earlier revisions."""
        self.may_split: Final = may_split
        self.wants_progress: Final = wants_progress
        self.was_told = False
        """Of an event since the last time for progress."""
        self.group: Group | None = None
        """None while it waits for its client to read, and when it is over."""


class Topic:
    """The watches of a group that are about one subject."""

    __slots__ = ("subject", "watches")

    def __init__(self, subject: Subject) -> None:
        self.subject: Final = subject
        self.watches: dict[Watch, None] = {}


class Group:
    """Watches that were told of all before revision `cursor`, and of nothing from there on."""

    __slots__ = ("count", "cursor", "index", "streams", "topics")

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.count = 0
        self.streams: dict[WatchStream, int] = {}
        """How many of a stream's watches are in it, so that nobody has to look at each whether all are."""
        self.topics: dict[Subject, Topic] = {}
        self.index: RangeIndex[Topic] = RangeIndex()

    def add(self, watch: Watch) -> None:
        subject = watch.subject
        topic = self.topics.get(subject)
        if topic is None:
            topic = self.topics[subject] = Topic(subject)
            self.index.add(subject.key, subject.end, topic)
        topic.watches[watch] = None
        watch.group = self
        self.count += 1
        self.streams[watch.stream] = self.streams.get(watch.stream, 0) + 1

    def remove(self, watch: Watch) -> None:
        """One that is in it."""
        subject = watch.subject
        topic = self.topics[subject]
        del topic.watches[watch]
        watch.group = None
        self.count -= 1
        self.streams[watch.stream] -= 1
        if not self.streams[watch.stream]:
            del self.streams[watch.stream]
        if not topic.watches:
            del self.topics[subject]
            self.index.remove(subject.key, subject.end, topic)

    def has_all_of(self, stream: WatchStream) -> bool:
        return self.streams.get(stream, 0) == len(stream.watches)

    def watches(self) -> list[Watch]:
        return [watch for topic in self.topics.values() for watch in topic.watches]


def merge(one: Group, other: Group) -> Group:
    """Both in one, at the cursor of both: the smaller moves, so a watch moves seldom however many groups meet."""
    large, small = (one, other) if one.count >= other.count else (other, one)
    for watch in small.watches():
        large.add(watch)
    small.topics.clear()
    small.streams.clear()
    small.count = 0
    return large


class News:
    """Events of some revisions, for the topics that they concern, and what it cost to find them."""

    __slots__ = ("_max_steps", "by_topic", "events_bytes", "steps")

    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps
        self.by_topic: dict[Topic, list[tuple[int, bytes]]] = {}
        """(revision, event as a field of the response), in their order."""
        self.steps = 0
        self.events_bytes = 0
        """Both count an event once for each watch."""

    def is_enough(self) -> bool:
        return self.steps >= self._max_steps or self.events_bytes >= MAX_STEP_BYTES

    def take(self) -> dict[Topic, list[tuple[int, bytes]]]:
        """The events; more may be noted then, and the cost goes on counting."""
        by_topic, self.by_topic = self.by_topic, {}
        return by_topic

    def note(self, version: Version, topics: Iterable[Topic], store: Store) -> None:
        self.steps += 1
        plain = with_previous = b""
        for topic in topics:
            subject = topic.subject
            if not (subject.wants_puts if version.version else subject.wants_deletes):
                continue
            if subject.wants_previous and version.version != 1:
                if not with_previous:
                    with_previous = encode_event(version, store.version_before(version))
                event = with_previous
            else:
                if not plain:
                    plain = encode_event(version, None)
                event = plain
            self.by_topic.setdefault(topic, []).append((version.mod_revision, event))
            self.steps += len(topic.watches)
            self.events_bytes += len(event) * len(topic.watches)


class Laggards:
    """The groups that are behind, and whose turn it is to catch up.

    They take turns; the next one reads a bounded piece of the history for all its watches together.  Where it comes to
    the place of another, they become one and go on together.  So none waits for another's long way, and however many
    watches start wherever in the history, it is read a few times for all of them: what a round of turns leaves apart
    meets by twos in the next, so it is no more often than the logarithm of the number of pieces.
    """

    __slots__ = ("_cursors", "_groups", "_turns")

    def __init__(self) -> None:
        self._groups: dict[int, Group] = {}
        """By cursor."""
        self._cursors: list[int] = []
        """In their order."""
        self._turns: dict[Group, None] = {}
        """All groups, the next one first."""

    def __bool__(self) -> bool:
        return bool(self._turns)

    def add(self, watch: Watch, cursor: int) -> None:
        group = self._groups.get(cursor)
        if group is None:
            group = Group(cursor)
            group.add(watch)
            self._place(group)
        else:
            group.add(watch)

    def put(self, group: Group) -> None:
        """A group that had its turn, or has fallen behind: at the end of the line, with the one that is there."""
        self._place(self.join(group))

    def join(self, group: Group) -> Group:
        """A group of none of these with the one of these that is where it is, if there is one; it is none of them."""
        there = self._groups.get(group.cursor)
        if there is None:
            return group
        self._remove(there)
        return merge(there, group)

    def _place(self, group: Group) -> None:
        self._groups[group.cursor] = group
        insort(self._cursors, group.cursor)
        self._turns[group] = None

    def take(self) -> Group:
        """The group whose turn it is, which is none of these any more."""
        group = next(iter(self._turns))
        self._remove(group)
        return group

    def take_before(self, cursor: int) -> list[Group]:
        """All groups with an earlier cursor, which are none of these any more."""
        groups = [self._groups[early] for early in self._cursors[: bisect_left(self._cursors, cursor)]]
        for group in groups:
            self._remove(group)
        return groups

    def next_cursor(self, cursor: int, otherwise: int) -> int:
        """The cursor of the next group behind this one, where there is one."""
        place = bisect_left(self._cursors, cursor + 1)
        return self._cursors[place] if place < len(self._cursors) else otherwise

    def drop_if_empty(self, group: Group) -> None:
        if not group.count and group in self._turns:
            self._remove(group)

    def _remove(self, group: Group) -> None:
        del self._groups[group.cursor]
        del self._cursors[bisect_left(self._cursors, group.cursor)]
        del self._turns[group]
