"""One call of Watch: many watches of one client.  `quorate.net.grpc.calls.StreamHandler`.

Source of what is answered: etcd 3.4's `etcdserver/api/v3rpc/watch.go` and `mvcc/watcher.go`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from quorate.net.grpc.calls import Call
from quorate.net.grpc.status import Code
from quorate.services.etcd import etcd_pb2 as pb
from quorate.services.etcd.watching.groups import Subject, Watch
from quorate.services.etcd.watching.index import NO_END, SINGLE

if TYPE_CHECKING:
    from quorate.services.etcd.watching.watches import Watching

RANGE_IS_EMPTY: Final = "mvcc: watcher range is empty"
ID_IS_TAKEN: Final = "mvcc: duplicate watch ID provided on the WatchStream"


class WatchStream:
    """The watches of one call, by id, and what they wait for."""

    __slots__ = (
        "_next_id",
        "_watching",
        "call",
        "is_due_progress",
        "resume_is_due",
        "room",
        "turn",
        "waiting",
        "watches",
    )

    def __init__(self, watching: Watching, call: Call) -> None:
        self._watching = watching
        self.call: Final = call
        self.watches: dict[int, Watch] = {}
        self.waiting: dict[Watch, int] = {}
        """Watches that go on when the client has read what was sent -> the revision from which on."""
        self.is_due_progress = False
        """Some watch of it has asked to be told of progress by time."""
        self.resume_is_due = False
        """Others of `waiting` go on in the next turn of the loop."""
        self.turn = 0
        self.room = 0
        """Bytes that may still be sent in turn `turn` of `Watching`."""
        self._next_id = 0

    # --- quorate.net.grpc.calls.StreamHandler ---

    def message(self, message: bytes) -> None:
        try:
            request = pb.WatchRequest.FromString(message)
        except DecodeError as error:
            self.call.fail(Code.INTERNAL, f"grpc: failed to unmarshal the received message {error}")
            return
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._create(request.create_request)
        elif kind == "cancel_request":
            self._cancel(request.cancel_request.watch_id)
        elif kind == "progress_request":
            self._watching.request_progress(self)
        # etcd passes over what it does not know.

    def half_closed(self) -> None:
        """Nothing: who has no more requests may still want the events."""

    def writable(self) -> None:
        self._watching.resume(self)

    def closed(self) -> None:
        self._watching.close(self)

    # --- requests ---

    def _create(self, request: pb.WatchCreateRequest) -> None:
        key = request.key or b"\0"
        end = request.range_end or SINGLE
        if end not in (SINGLE, NO_END) and key >= end:
            self._watching.refuse(self, RANGE_IS_EMPTY)
            return
        watch_id = request.watch_id
        if watch_id == 0:
            watch_id = self._draw_id()
        elif watch_id in self.watches:
            self._watching.refuse(self, ID_IS_TAKEN)
            return
        subject = Subject(
            key,
            end,
            request.prev_kv,
            pb.WatchCreateRequest.NOPUT not in request.filters,
            pb.WatchCreateRequest.NODELETE not in request.filters,
        )
        self._watching.create(
            self, watch_id, subject, request.start_revision, request.fragment, request.progress_notify
        )

    def _draw_id(self) -> int:
        while self._next_id in self.watches:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def _cancel(self, watch_id: int) -> None:
        watch = self.watches.get(watch_id)
        if watch is not None:
            self._watching.cancel(watch)
