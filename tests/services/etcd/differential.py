"""The same steps sent to two servers of etcd's API, and what is different in what they answer.

A step is a request with *relative* numbers: revisions as on a store that is new (where the first write makes 2), and
leases by small names.  A `Run` translates them for each server and back, so a sequence of steps can be run again, and
without some of its steps, on servers that have been written to before: that is how a difference is made smaller.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeAlias

import grpc
from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from quorate.services.etcd import etcd_pb2 as pb

Answer: TypeAlias = str
"""A response or an error as text, relative again: two answers are the same if their texts are."""

REVISIONS = {
    *("revision", "create_revision", "mod_revision", "start_revision", "compact_revision"),
    *("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"),
}
LEASES = {"lease", "ID"}
IDENTITIES = {"cluster_id", "member_id", "raft_term"}
CALL_S = 10.0
QUIET_S = 10.0
"""How long the events of a watch may take to come, on a busy machine."""
SHRINKING_QUIET_S = 1.0
SHRINKING_S = 60.0

METHODS: dict[type[Message], tuple[str, type[Message]]] = {
    pb.RangeRequest: ("/etcdserverpb.KV/Range", pb.RangeResponse),
    pb.PutRequest: ("/etcdserverpb.KV/Put", pb.PutResponse),
    pb.DeleteRangeRequest: ("/etcdserverpb.KV/DeleteRange", pb.DeleteRangeResponse),
    pb.TxnRequest: ("/etcdserverpb.KV/Txn", pb.TxnResponse),
    pb.CompactionRequest: ("/etcdserverpb.KV/Compact", pb.CompactionResponse),
    pb.LeaseGrantRequest: ("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse),
    pb.LeaseRevokeRequest: ("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse),
    pb.LeaseTimeToLiveRequest: ("/etcdserverpb.Lease/LeaseTimeToLive", pb.LeaseTimeToLiveResponse),
    pb.LeaseLeasesRequest: ("/etcdserverpb.Lease/LeaseLeases", pb.LeaseLeasesResponse),
}


@dataclass(frozen=True)
class Step:
    """One request; those of `Watch` go to the one stream that a run has."""

    request: Message

    def __str__(self) -> str:
        name = type(self.request).__name__.removesuffix("Request")
        return f"{name:<16} {MessageToString(self.request, as_one_line=True)}"

    @property
    def moves_watches(self) -> bool:
        """Whether it matters behind this step how much the watches were told before it.

        A watch that is about to be cancelled keeps its number from others.
        """
        return isinstance(self.request, pb.WatchRequest | pb.CompactionRequest)


class Difference(AssertionError):
    """The answers to a step are not the same."""

    def __init__(self, index: int, text: str) -> None:
        super().__init__(text)
        self.index = index


class Change(NamedTuple):
    """An event, in relative numbers."""

    key: bytes
    deleted: bool
    revision: int
    text: Answer


@dataclass(frozen=True)
class Live:
    """A watch that was created and not cancelled."""

    request: pb.WatchCreateRequest
    start: int
    """The first revision that it is to be told of."""
    created: int
    """The revision of the answer to creating it."""
    already: int
    """Changes that were told under its number before: it may have been another's."""
    compacted: bool
    """It starts before what was compacted when it was created, so it is about to be cancelled."""

    def sees(self, change: Change) -> bool:
        """Whether etcd's documentation says that it is told of this change."""
        request = self.request
        key, end = request.key or b"\0", request.range_end
        hit = change.key == key if not end else key <= change.key and (end == b"\0" or change.key < end)
        unwanted = pb.WatchCreateRequest.NODELETE if change.deleted else pb.WatchCreateRequest.NOPUT
        return hit and change.revision >= self.start and unwanted not in request.filters


@dataclass
class Watched:
    """What came for one watch, in order."""

    changes: list[Change] = field(default_factory=list)
    """Without how they were gathered into messages, which is a matter of time."""
    controls: list[Answer] = field(default_factory=list)
    """The answers to creating and cancelling."""


class Watches:
    """One stream of `Watch`, read by a thread.  At most one watch is being created at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._requests: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._creating = pb.WatchCreateRequest()
        self._compacted = 0
        self.of: dict[int, Watched] = {}
        self.live: dict[int, Live] = {}
        self.overtaken: set[int] = set()
        """Numbers of watches that a compaction cancelled."""
        self.broken: str | None = None
        call = server.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        self._call = call(self._drain())
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _drain(self) -> Iterator[pb.WatchRequest]:
        yield from iter(self._requests.get, None)

    def _read(self) -> None:
        try:
            for response in self._call:
                with self._changed:
                    self._take(response)
                    self._changed.notify_all()
        except Exception as error:
            with self._changed:
                self.broken = error_text(error) if isinstance(error, grpc.RpcError) else repr(error)
                self._changed.notify_all()

    def _take(self, response: pb.WatchResponse) -> None:
        revisions = [event.kv.mod_revision for event in response.events]
        if revisions != sorted(revisions) or max(revisions, default=0) > response.header.revision:
            self.broken = f"events of revisions {revisions} under a header of {response.header.revision}"
        watch = self.of.setdefault(response.watch_id, Watched())
        for event in response.events:
            text = self._server.text(event)
            watch.changes.append(Change(event.kv.key, event.type == pb.Event.DELETE, event.kv.mod_revision, text))
        del response.events[:]
        if response.compact_revision:
            # It is found out at some moment after the watch was created.
            response.header.revision = 0
        if response.created or response.canceled:
            watch.controls.append(self._server.text(response))
        if response.created and not response.canceled:
            # A watch from the present on begins behind the revision of this very answer.
            start = self._creating.start_revision or response.header.revision + 1
            revision, already = response.header.revision, len(watch.changes)
            self.live[response.watch_id] = Live(self._creating, start, revision, already, start < self._compacted)
        if response.canceled:
            self.live.pop(response.watch_id, None)
        if response.compact_revision:
            self.overtaken.add(response.watch_id)

    def create(self, request: pb.WatchCreateRequest, compacted: int) -> None:
        """Ask for a watch, in relative numbers, and wait for the answer; what is before `compacted` is forgotten."""
        with self._changed:
            before = self._answers()
            self._compacted = compacted
            self._creating = request
            self._send(pb.WatchRequest(create_request=request))
            self._changed.wait_for(lambda: self.broken is not None or self._answers() > before, CALL_S)

    def cancel(self, number: int) -> None:
        """Wait for the answer if there is such a watch; else none comes."""
        with self._changed:
            self._send(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=number)))
            self._changed.wait_for(lambda: self.broken is not None or number not in self.live, CALL_S)

    def _answers(self) -> int:
        return sum(len(watch.controls) for watch in self.of.values())

    def _send(self, request: pb.WatchRequest) -> None:
        translated = self._server.absolute(request)
        assert isinstance(translated, pb.WatchRequest)
        self._requests.put(translated)

    def wait_for(self, changes: Sequence[Change], quiet_s: float) -> None:
        """Until every watch was told of those of the changes that it should see, or was cancelled, or time is over."""

        def settled() -> bool:
            return self.broken is not None or all(
                not live.compacted and len(self.of[number].changes) - live.already >= sum(map(live.sees, changes))
                for number, live in self.live.items()
            )

        with self._changed:
            self._changed.wait_for(settled, quiet_s)

    def wait_until(self, revision: int, quiet_s: float) -> list[Change]:
        """What the first watch was told of, once that includes this revision or time is over."""
        with self._changed:
            self._changed.wait_for(lambda: any(c.revision >= revision for c in self.of[0].changes), quiet_s)
            return list(self.of[0].changes)

    def would_be_lost(self, compacted: int) -> bool:
        """Whether a compaction may overtake a watch.

        One that starts in the past is behind, in etcd, until a round of a tenth of a second has found it, even where
        there is nothing that it should be told; whether a compaction finds it so is a matter of time.  What proves
        that it has caught up is an event behind its creation.
        """
        with self._changed:
            return any(
                live.start < compacted
                and live.start <= live.created
                and all(change.revision <= live.created for change in self.of[number].changes[live.already :])
                for number, live in self.live.items()
            )

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()
        self._thread.join(CALL_S)


class Server:
    """One of the two, with the numbers by which its revisions and leases are translated."""

    def __init__(self, name: str, endpoint: str) -> None:
        self.name = name
        self.channel = grpc.insecure_channel(endpoint, [("grpc.max_receive_message_length", -1)])
        self.base = 1
        """The revision that a run calls 1."""
        self.leases: dict[int, int] = {}
        """Name of a lease whose id the server drew -> that id."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.channel.close()

    def start(self, request: Message) -> grpc.Future[Any]:
        """Send a request with absolute numbers."""
        path, response = METHODS[type(request)]
        call = self.channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=response.FromString
        )
        future: grpc.Future[Any] = call.future(request, timeout=CALL_S)
        return future

    def call(self, request: Message) -> Any:
        return self.start(request).result()

    def reset(self) -> None:
        """Leave no key, no lease, and no history before revision 1 of the run."""
        for lease in self.call(pb.LeaseLeasesRequest()).leases:
            self.call(pb.LeaseRevokeRequest(ID=lease.ID))
        self.call(pb.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
        self.call(pb.PutRequest(key=b"reset"))
        self.base = self.call(pb.DeleteRangeRequest(key=b"reset")).header.revision
        self.call(pb.CompactionRequest(revision=self.base))
        self.leases.clear()

    def absolute(self, request: Message) -> Message:
        """The request in this server's numbers."""
        translated = type(request)()
        translated.CopyFrom(request)
        walk(translated, lambda n: n + self.base - 1 if n > 0 else n, lambda n: self.leases.get(n, n))
        return translated

    def text(self, response: Message) -> Answer:
        """The response in the run's numbers.  It is changed."""
        names = {lease: name for name, lease in list(self.leases.items())}
        walk(response, lambda n: n - self.base + 1 if n > 0 else n, lambda n: names.get(n, n))
        return f"{type(response).__name__} {MessageToString(response, as_one_line=True)}"

    def answer(self, request: Message, future: grpc.Future[Any]) -> tuple[Answer, int]:
        """Wait for the answer to a relative request; the revision of its header, or 0 with an error."""
        try:
            response = future.result()
        except grpc.RpcError as error:
            return error_text(error), 0
        if isinstance(response, pb.LeaseGrantResponse) and isinstance(request, pb.LeaseGrantRequest) and not request.ID:
            self.leases[-1 - len(self.leases)] = response.ID
        if isinstance(response, pb.LeaseTimeToLiveResponse):
            response.TTL = max(-1, min(response.TTL, 1))
            response.keys.sort()
        text = self.text(response)
        if isinstance(response, pb.LeaseLeasesResponse):
            # Those with equal expiry come in any order.
            text = str(sorted(lease.ID for lease in response.leases))
        return text, response.header.revision


def error_text(error: Any) -> Answer:
    return f"{error.code().name}: {error.details()}"


def walk(message: Message, revision: Callable[[int], int], lease: Callable[[int], int]) -> None:
    """Translate every revision and lease of a message, in place; of identities keep only whether they are there."""
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if name in REVISIONS:
            setattr(message, name, revision(value))
        elif name in LEASES:
            setattr(message, name, lease(value))
        elif name in IDENTITIES:
            setattr(message, name, 1)
        elif isinstance(value, Message):
            walk(value, revision, lease)
        elif descriptor.is_repeated and value and isinstance(value[0], Message):
            for item in value:
                walk(item, revision, lease)


class Run:
    """One sequence of steps on both servers, from an empty store; raises Difference.  Close it."""

    def __init__(self, servers: Sequence[Server], quiet_s: float = QUIET_S) -> None:
        self._servers = servers
        self._quiet_s = quiet_s
        self._steps = 0
        self._compacted = 1
        self._given: set[int] = set()
        """Numbers that were given to watches; with 0, which is the number of the first that was given none, too."""
        self.revision = 1
        """That of the newest header."""
        for server in servers:
            server.reset()
        self._watches = [Watches(server) for server in servers]
        # Sees everything from the start, and so tells what the other watches should have been told.
        self._witnesses = [Watches(server) for server in servers]
        for witness in self._witnesses:
            witness.create(pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=2), 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        for watches in (*self._watches, *self._witnesses):
            watches.close()

    def take(self, step: Step) -> None:
        """Send a step to both and compare the answers."""
        if step.moves_watches:
            self.compare_watches()
        request = step.request
        if self._is_a_matter_of_etcds_own(request):
            pass
        elif isinstance(request, pb.WatchRequest):
            self._watch(request)
        else:
            futures = [server.start(server.absolute(request)) for server in self._servers]
            answers = [server.answer(request, future) for server, future in zip(self._servers, futures, strict=True)]
            self._check("", [text for text, _ in answers])
            self.revision = max(self.revision, answers[0][1])
            if isinstance(request, pb.CompactionRequest) and answers[0][1]:
                self._compacted = request.revision
        self._steps += 1

    def _is_a_matter_of_etcds_own(self, request: Message) -> bool:
        """Steps that are left out.

        etcd keeps the number of a watch that a compaction cancelled: it is refused to others until the client cancels
        what is cancelled already.
        """
        watches = self._watches[0]
        if isinstance(request, pb.CompactionRequest):
            return watches.would_be_lost(request.revision)
        if isinstance(request, pb.WatchRequest) and watches.overtaken:
            is_given = request.create_request.watch_id or request.HasField("cancel_request")
            return bool(is_given) or not watches.overtaken.isdisjoint(self._given)
        return False

    def _watch(self, request: pb.WatchRequest) -> None:
        self._given.add(request.create_request.watch_id)
        for watches in self._watches:
            if request.HasField("create_request"):
                watches.create(request.create_request, self._compacted)
            else:
                watches.cancel(request.cancel_request.watch_id)

    def compare_watches(self) -> None:
        """Wait until both have told the watches all that they should, and compare."""
        for watches, witness in zip(self._watches, self._witnesses, strict=True):
            changes = witness.wait_until(self.revision, self._quiet_s) if self.revision > 1 else []
            watches.wait_for(changes, self._quiet_s)
        theirs, ours = self._watches
        self._check("the stream of watches", [str(watches.broken) for watches in self._watches])
        for number in sorted(theirs.of.keys() | ours.of.keys()):
            both = [watches.of.get(number, Watched()) for watches in self._watches]
            self._check(f"what was said of watch {number}", ["\n".join(watch.controls) for watch in both])
            texts = ["\n".join(change.text for change in watch.changes) for watch in both]
            self._check(f"the events of watch {number}", texts)

    def _check(self, what: str, answers: Sequence[Answer]) -> None:
        if answers[0] != answers[1]:
            lines = [f"{server.name}: {answer}" for server, answer in zip(self._servers, answers, strict=True)]
            raise Difference(self._steps, "\n".join([what, *lines] if what else lines))


def replay(servers: Sequence[Server], steps: Sequence[Step]) -> Difference | None:
    """Run the steps from an empty store; the first difference."""
    try:
        with Run(servers, SHRINKING_QUIET_S) as run:
            for step in steps:
                run.take(step)
            run.compare_watches()
    except Difference as difference:
        return difference
    return None


def shrink(servers: Sequence[Server], steps: Sequence[Step], difference: Difference) -> tuple[list[Step], Difference]:
    """As few of the steps as still show a difference: nothing behind it, then ever smaller pieces left out."""
    kept = list(steps[: difference.index + 1])
    piece = max(len(kept) // 2, 1)
    deadline_s = time.monotonic() + SHRINKING_S
    while True:
        start = 0
        while start < len(kept) and time.monotonic() < deadline_s:
            fewer = kept[:start] + kept[start + piece :]
            found = replay(servers, fewer)
            if found is None:
                start += piece
            else:
                kept, difference = fewer[: found.index + 1], found
        if piece == 1:
            return kept, difference
        piece //= 2
