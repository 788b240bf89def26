"""What a service gives its node, and what the node gives a service.

A *store* is the replicated state machine: pure, deterministic, the same on every replica.
A *door* is this node's listener for clients: it turns bytes into commands, hands them to
its *group*, and turns results into bytes.  The group replicates and applies; it calls the
door back on the loop's thread, never from inside a call that the door makes to it.

Commands and results are opaque here.  A *waiter* is whatever the door wants back with a
command's result; it never leaves the node.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from quorate.consensus.replica import Leadership, NodeId, RandomSource

Waiter: TypeAlias = Any
Result: TypeAlias = Any


class Store(Protocol):
    """A replicated state machine.  `apply` reads nothing but the store, the commands and the time."""

    def apply(self, commands: Sequence[bytes], time_ms: int) -> list[Result]:
        """Apply the commands of one batch in order; one result each.

        `time_ms` is wall-clock time stamped by a leader, never lower than in an earlier
        call.  A command that cannot be done is an error *result*; a command that cannot
        be decoded is an error result too.  An exception stops the node.
        """
        ...

    def snapshot(self) -> SnapshotSlices:
        """The state as of this call, in slices, exact whatever is applied between two of them.

        At most one snapshot is open at a time.  Each step of the iterator takes at most a
        few milliseconds.  It is closed in the end, early where the snapshot is abandoned.
        """
        ...

    def restore(self) -> StoreLoader:
        """Start to replace the whole state by a snapshot's; the store is not used until `finish`."""
        ...

    def summary(self) -> dict[str, int]:
        """Counts for status and metrics (for example nodes, sessions, last zxid)."""
        ...


class SnapshotSlices(Protocol):
    """A snapshot that is being taken.  Until `close`, the store keeps what it needs for it."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class StoreLoader(Protocol):
    """Feeds a snapshot's slices back, in the same order and with the same bounds."""

    def feed(self, slice_: bytes) -> None:
        """Raises ValueError where the bytes are not a slice of such a snapshot."""
        ...

    def finish(self) -> None:
        """The store now holds the snapshot's state.  Raises ValueError where slices are missing."""
        ...


class Refused(enum.Enum):
    """Why the group did nothing with a command.  It was not and will not be applied."""

    NO_LEADER = "no leader is known"
    DISK_FULL = "the disk is full"
    STOPPING = "the node is stopping"


class Group(Protocol):
    """A door's view of the replicated group behind it, on this node."""

    node_id: NodeId
    leadership: Leadership
    random: RandomSource

    def submit(self, commands: Sequence[bytes], waiters: Sequence[Waiter]) -> None:
        """Replicate commands (one waiter each).  Commands of one door are applied in the order of submission.

        Each waiter comes back exactly once, through Door.applied, Door.refused or
        Door.lost.  Works on any node: followers forward to the leader.  While no leader
        is known commands wait, up to `limits.hold_ms`, then are refused.
        """
        ...

    def barrier(self, done: Callable[[bool], None]) -> None:
        """Call `done(True)` when this node has applied all that was committed anywhere before this call.

        `done(False)` where that could not be established (no leader, or it changed).
        """
        ...

    def congested(self) -> bool:
        """True while submitted commands wait in such number that doors should stop reading from clients.

        Door.relieved is called when it becomes false again.
        """
        ...

    def tell(self, node: NodeId, note: bytes) -> None:
        """Send a note to the same group's door on another node (or this one): at most once, maybe never."""
        ...

    def quorum_contact_ms(self) -> int | None:
        """`Replica.quorum_contact_ms`: on a ready leader the loop time (ms) up to which it surely led, else None."""
        ...

    def now_ms(self) -> int:
        """The node's monotonic time: the loop's clock in whole milliseconds."""
        ...

    def wall_ms(self) -> int:
        """Unix time in milliseconds as this node believes it."""
        ...

    def describe(self) -> dict[str, Any]:
        """Positions, members and addresses, for the door's own status commands."""
        ...


class Door(Protocol):
    """One service's listener on one node."""

    async def start(self) -> None:
        """Listen.  Called once the store is restored; clients are served from then on.  Raises OSError."""
        ...

    async def stop(self) -> None:
        """Stop listening, answer what can still be answered, close all connections."""
        ...

    def applied(self, results: Sequence[Result], waiters: Sequence[Waiter] | None) -> None:
        """The store applied a batch: called for every batch, in order, with this door's waiters if it is its own.

        Called in the same call in which the store applied the batch, with no other call of
        the door between the two.  A door may rest on it: whatever it reads from the store
        at any other time, it has been told of every change that it can see.
        """
        ...

    def refused(self, waiters: Sequence[Waiter], why: Refused) -> None:
        """These commands were certainly not and never will be applied."""
        ...

    def lost(self, waiters: Sequence[Waiter]) -> None:
        """The outcome of these commands is unknown: they may have been applied, or may yet be."""
        ...

    def restored(self) -> None:
        """The store was replaced by a snapshot from a peer: forget what was derived from the old state."""
        ...

    def relieved(self) -> None:
        """`Group.congested` became false."""
        ...

    def leadership_changed(self, leadership: Leadership) -> None: ...

    def told(self, sender: NodeId, note: bytes) -> None:
        """A note from the door on `sender`.  Raises ValueError where it cannot be decoded (logged, dropped)."""
        ...

    def tick(self, now_ms: int) -> None:
        """Called about every 50 ms."""
        ...

    def summary(self) -> dict[str, int]:
        """Counts for status and metrics (connections, requests, watches)."""
        ...


@dataclass(frozen=True, slots=True)
class DoorConfig:
    """Where a door listens and what it tolerates.  Sizes in bytes, times in milliseconds."""

    host: str
    port: int
    admin: str = ""
    """host:port of the node's admin listener, for clients that ask."""
    max_frame_bytes: int = 1 << 20
    max_connections: int = 10_000
    max_requests_in_flight: int = 1_000
    """Unanswered requests of one connection before the door stops reading from it."""
    margin_ms: int = 800
    """A leader vouches for what depends on time only if it surely led so short a time ago; a new one grants it on top.

    Longer than heartbeats and round trips, or a leader could never vouch.
    """
    max_unread_bytes: int = 4 << 20
    """What may gather for one connection, once it does not read, before the door closes it.

    Beside what it asked for before that: a reply larger than this reaches a client that reads it.
    """
    cluster_id: str = ""
    """The same on every node of the cluster, and of no other one."""
    peer: str = ""
    """host:port where the other nodes reach this one."""
    reachable_host: str = ""
    """Where clients reach `port`: `host`, or where that stands for every interface, the host of `peer`."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service as the node knows it."""

    name: str
    create_store: Callable[[], Any]
    """() -> an empty Store."""
    create_door: Callable[[Any, Group, DoorConfig], Door]
    """(the store, its group, config) -> a door that is not listening yet."""
