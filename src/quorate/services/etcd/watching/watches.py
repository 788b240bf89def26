"""Watches: clients are told of each change of their keys once, in the order of revisions.

No watch has a queue.  All watches that are up to date are one group; what a batch changed is read from the history
once, encoded once for all that see it alike, and sent in the same call in which it was applied (`advance`).  A watch
that starts in the past, or whose client does not read, is in no such group: it has a revision, its *cursor*, from which
on it is yet to be told, and catches up from the history a piece at a time (`groups.Laggards`).  So who does not read
costs what lies in its call's buffer, and a number.

How much lies there: a call with more than LOW_WATER_BYTES unsent is sent no events; one with less gets at most
TURN_BYTES more in a turn, and one response.

Exact, because a cursor is all there is to know: the history from a revision on is the same however often it is read,
and on every replica, also on one that a snapshot brought up to date.  Only a compaction takes away from it.  A watch
whose cursor is not behind the compacted revision then has perhaps missed something, a deletion at that very revision
for example, and is canceled.  Whoever asks for the compacted revision itself gets what can still be read at it, as in
etcd.

Where etcd 3.4 and this differ: a request for progress is answered only when all watches of the stream were told of all
up to the revision in the answer (as etcd 3.6 does; 3.4 answers at once, and a client that trusts it misses what its
lagging watches were not told yet).  Several requests that wait, or came in one turn of the loop, are one answer: it
says all that they asked.  A watch that compaction ended is forgotten, and its id is free.  Of one batch, a watch gets
one response with all revisions, under the header of the last.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import Final

from quorate.net.grpc.calls import Call, ServerOptions
from quorate.services.etcd.header import HeaderWriter
from quorate.services.etcd.options import EtcdOptions
from quorate.services.etcd.store import Store
from quorate.services.etcd.watching import responses
from quorate.services.etcd.watching.groups import Group, Laggards, News, Subject, Topic, Watch, merge
from quorate.services.etcd.watching.stream import WatchStream

LOW_WATER_BYTES: Final = ServerOptions().low_water_bytes
TURN_BYTES: Final = 256 << 10
"""Enough for an event for each of a thousand watches of one stream."""
FRAGMENT_OVERHEAD_BYTES: Final = 512 << 10
"""etcd splits a response that is larger than a request may be, and this."""


class Watching:
    """All watches of one door."""

    def __init__(self, store: Store, header: HeaderWriter, options: EtcdOptions) -> None:
        self._store = store
        self._header = header
        self._max_response_bytes = options.max_request_bytes + FRAGMENT_OVERHEAD_BYTES
        self._progress_interval_ms = options.watch_progress_interval_ms
        self._max_steps = options.watch_step
        self._synced = Group(store.revision + 1)
        self._laggards = Laggards()
        self._streams: dict[WatchStream, None] = {}
        self._count = 0
        self._compacted_revision = store.compacted_revision
        self._turn = 0
        """Counts the calls in which events are sent."""
        self._step_is_due = False
        self._progress: deque[tuple[int, WatchStream]] = deque()
        """Streams with watches that want to be told of progress, and when; the earliest first."""
        self._awaiting_progress: dict[WatchStream, None] = {}
        """Streams whose clients asked for progress and were not answered yet."""
        self._just_asked: dict[WatchStream, None] = {}
        """Those of them that asked in this turn of the loop; at its end they are looked at."""
        self._now_ms = 0

    def open(self, call: Call) -> WatchStream:
        """`quorate.net.grpc.calls.Streaming.open`."""
        stream = WatchStream(self, call)
        self._streams[stream] = None
        return stream

    def count(self) -> int:
        return self._count

    # --- what the door says ---

    def advance(self) -> None:
        """The store has applied a batch.  In the same call, so that nobody reads a change before it was told here."""
        store, synced = self._store, self._synced
        first, synced.cursor = synced.cursor, store.revision + 1
        if synced.count and first < synced.cursor:
            news = News(self._max_steps)
            find = synced.index.find
            for version in store.just_applied(first):
                topics = find(version.key)
                if topics:
                    news.note(version, topics, store)
            self._tell(synced, news.by_topic, first, None)
        self._look_for_compaction()

    def restored(self) -> None:
        """The store is a later one: the same history and more, of which all watches are yet to be told."""
        behind, self._synced = self._synced, Group(self._store.revision + 1)
        if behind.cursor == self._synced.cursor:
            self._synced = behind
        elif behind.count:
            self._laggards.put(behind)
            self._schedule()
        self._look_for_compaction()

    def tick(self, now_ms: int) -> None:
        """Called about every 50 ms: tells idle watches of progress."""
        self._now_ms = now_ms
        while self._progress and self._progress[0][0] <= now_ms:
            _, stream = self._progress.popleft()
            if stream in self._streams:
                self._notify_progress(stream)
                self._progress.append((now_ms + self._progress_interval_ms, stream))

    # --- what streams say ---

    def create(
        self, stream: WatchStream, watch_id: int, subject: Subject, start: int, may_split: bool, wants_progress: bool
    ) -> None:
        """`start` 0 is from now on; a negative one is as good as compacted where nothing was, as in etcd."""
        store = self._store
        if not self._synced.count:
            self._synced.cursor = store.revision + 1
        watch = Watch(stream, watch_id, subject, start or self._synced.cursor, may_split, wants_progress)
        stream.call.send(responses.created(self._header.write(store.revision), watch_id))
        if watch.start < store.compacted_revision:
            self._tell_compacted(watch)
            return
        if wants_progress and not stream.is_due_progress:
            stream.is_due_progress = True
            self._progress.append((self._now_ms + self._progress_interval_ms, stream))
        stream.watches[watch_id] = watch
        self._count += 1
        self._go_on(watch, watch.start)

    def refuse(self, stream: WatchStream, reason: str) -> None:
        stream.call.send(responses.refused(self._header.write(self._store.revision), reason))

    def cancel(self, watch: Watch) -> None:
        self._remove(watch)
        stream = watch.stream
        stream.call.send(responses.canceled(self._header.write(self._store.revision), watch.watch_id))
        self.answer_progress(stream)

    def close(self, stream: WatchStream) -> None:
        del self._streams[stream]
        self._awaiting_progress.pop(stream, None)
        self._just_asked.pop(stream, None)
        for watch in list(stream.watches.values()):
            self._remove(watch)

    def resume(self, stream: WatchStream) -> None:
        """The client has read what was sent.  Some of its watches go on now, others in later turns.

        Each is a step, and if there is room for one response only, the others have to wait again.
        """
        waiting = stream.waiting
        for watch in list(islice(waiting, self._max_steps)):
            self._go_on(watch, waiting.pop(watch))
        if waiting and not stream.resume_is_due:
            stream.resume_is_due = True
            asyncio.get_running_loop().call_soon(self._resume_others, stream)
        self.answer_progress(stream)

    def _resume_others(self, stream: WatchStream) -> None:
        stream.resume_is_due = False
        # With more unsent it will be `writable`, because that was asked.
        if stream.call.unsent_bytes() <= LOW_WATER_BYTES:
            self.resume(stream)

    def request_progress(self, stream: WatchStream) -> None:
        """However many come in one turn of the loop, they cost one answer."""
        self._awaiting_progress[stream] = None
        if not self._just_asked:
            asyncio.get_running_loop().call_soon(self._answer_just_asked)
        self._just_asked[stream] = None

    def _answer_just_asked(self) -> None:
        asked, self._just_asked = self._just_asked, {}
        for stream in asked:
            self.answer_progress(stream)

    def answer_progress(self, stream: WatchStream) -> None:
        """If it was asked for, and all watches of the stream are up to date."""
        if stream not in self._awaiting_progress or stream.call.unsent_bytes() > LOW_WATER_BYTES:
            return
        if self._synced.has_all_of(stream):
            del self._awaiting_progress[stream]
            header = self._header.write(self._synced.cursor - 1)
            stream.call.send(responses.progress(header, responses.NO_WATCH_ID))

    # --- places in the history ---

    def _go_on(self, watch: Watch, cursor: int) -> None:
        if cursor >= self._synced.cursor:
            self._synced.add(watch)
        else:
            self._laggards.add(watch, cursor)
            self._schedule()

    def _wait(self, watch: Watch, cursor: int) -> None:
        """Until its client has read; it was told of all before `cursor`."""
        assert watch.group is not None
        watch.group.remove(watch)
        stream = watch.stream
        # Asking for it is what the call answers with `writable`.
        if stream.call.unsent_bytes() > LOW_WATER_BYTES:
            stream.waiting[watch] = cursor
        else:
            self._go_on(watch, cursor)

    def _remove(self, watch: Watch) -> None:
        del watch.stream.watches[watch.watch_id]
        self._count -= 1
        self._leave(watch)

    def _leave(self, watch: Watch) -> None:
        group = watch.group
        if group is None:
            del watch.stream.waiting[watch]
        else:
            group.remove(watch)
            self._laggards.drop_if_empty(group)

    def _look_for_compaction(self) -> None:
        """One took away from the history that watches are yet to read."""
        compacted_revision = self._store.compacted_revision
        if compacted_revision == self._compacted_revision:
            return
        self._compacted_revision = compacted_revision
        groups = self._laggards.take_before(compacted_revision + 1)
        overtaken = [watch for group in groups for watch in group.watches()]
        for stream in self._streams:
            overtaken += (watch for watch, cursor in stream.waiting.items() if cursor <= compacted_revision)
        for watch in overtaken:
            if watch.stream.watches.get(watch.watch_id) is not watch:
                continue  # What was sent to another has ended its call.
            if watch.start > compacted_revision:
                # It wants nothing of what is gone: a snapshot came before what it waits for.
                self._leave(watch)
                self._go_on(watch, watch.start)
            else:
                self._remove(watch)
                self._tell_compacted(watch)
                self.answer_progress(watch.stream)

    def _tell_compacted(self, watch: Watch) -> None:
        # Under a header without a revision, as in etcd.
        compacted_revision = self._store.compacted_revision
        watch.stream.call.send(responses.compacted(self._header.write(0), watch.watch_id, compacted_revision))

    # --- events ---

    def _tell(
        self, group: Group, news: dict[Topic, list[tuple[int, bytes]]], cursor: int, header_revision: int | None
    ) -> None:
        """Send what concerns a group's watches; whose client does not read stays at `cursor`."""
        self._turn += 1
        for topic, events in news.items():
            shared = self._header.write(header_revision or events[-1][0])
            encoded = [event for _, event in events]
            response = b"".join((shared, *encoded))
            for watch in list(topic.watches):
                if watch.group is not group:
                    continue  # What was sent to another has ended its call.
                if watch.start > events[0][0]:
                    self._tell_later_part(watch, shared, events, cursor)
                elif not self._has_room(watch.stream):
                    self._wait(watch, cursor)
                elif watch.may_split:
                    self._send_split(watch, shared, encoded)
                else:
                    self._send(watch, response + watch.id_field)

    def _tell_later_part(self, watch: Watch, shared: bytes, events: list[tuple[int, bytes]], cursor: int) -> None:
        """To a watch that starts in the future."""
        encoded = [event for revision, event in events if revision >= watch.start]
        if not encoded:
            return
        if not self._has_room(watch.stream):
            self._wait(watch, cursor)
        elif watch.may_split:
            self._send_split(watch, shared, encoded)
        else:
            self._send(watch, b"".join((shared, watch.id_field, *encoded)))

    def _has_room(self, stream: WatchStream) -> bool:
        """Asked before a response is made: what cannot be sent is not copied for each watch."""
        if stream.turn != self._turn:
            stream.turn = self._turn
            stream.room = TURN_BYTES if stream.call.unsent_bytes() <= LOW_WATER_BYTES else 0
        return stream.room > 0

    def _send_split(self, watch: Watch, header: bytes, events: list[bytes]) -> None:
        """All or nothing: a client whose watch starts anew after a fragment would see it twice."""
        for fragment in responses.fragments(header + watch.id_field, events, self._max_response_bytes):
            self._send(watch, fragment)

    def _send(self, watch: Watch, response: bytes) -> None:
        watch.was_told = True
        watch.stream.room -= len(response)
        watch.stream.call.send(response)

    # --- catching up ---

    def _schedule(self) -> None:
        if not self._step_is_due:
            self._step_is_due = True
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        """The next group's turn.  One a turn of the loop, so that others' requests come between."""
        self._step_is_due = False
        if not self._laggards:
            return
        group = self._laggards.take()
        news = News(self._max_steps)
        while True:
            start = group.cursor
            group.cursor = self._read_on(group, news)
            self._tell(group, news.take(), start, self._store.revision)
            if not group.count or group.cursor == self._synced.cursor or news.is_enough():
                break
            group = self._laggards.join(group)
        if group.count and group.cursor == self._synced.cursor:
            self._synced = merge(self._synced, group)
            for stream in list(self._awaiting_progress):
                self.answer_progress(stream)
        elif group.count:
            self._laggards.put(group)
        if self._laggards:
            self._schedule()

    def _read_on(self, group: Group, news: News) -> int:
        """Note what comes next for a group; from where on it goes on then.  A revision is never parted."""
        stop = self._laggards.next_cursor(group.cursor, self._synced.cursor)
        find = group.index.find
        revision = group.cursor
        for version in self._store.changes(group.cursor):
            if version.mod_revision != revision:
                revision = version.mod_revision
                if revision >= stop:
                    break
                if news.is_enough():
                    return revision
            news.note(version, find(version.key), self._store)
        return stop

    # --- progress ---

    def _notify_progress(self, stream: WatchStream) -> None:
        """To the watches of a stream that were told of nothing since the last time."""
        header = self._header.write(self._synced.cursor - 1)
        can_send = stream.call.unsent_bytes() <= LOW_WATER_BYTES
        for watch in list(stream.watches.values()):
            if watch.wants_progress and not watch.was_told and can_send and watch.group is self._synced:
                stream.call.send(responses.progress(header, watch.watch_id))
            watch.was_told = False
