"""What clients of ZooKeeper's protocol record of their doings, for the checks of this package.

Records are written while a run goes on: a call is begun with what was asked, and completed with the answer.  A call
that was never answered (`returned_at` is None) is of unknown outcome.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from quorate.services.zookeeper.errors import ErrorCode

OK: Final = int(ErrorCode.OK)
NO_NODE: Final = int(ErrorCode.NO_NODE)
BAD_VERSION: Final = int(ErrorCode.BAD_VERSION)
NODE_EXISTS: Final = int(ErrorCode.NODE_EXISTS)
JUDGED: Final = frozenset({OK, NO_NODE, BAD_VERSION, NODE_EXISTS, int(ErrorCode.NOT_EMPTY)})
"""Codes that the replicated state itself gave, so that the zxid in the header is that of the state which gave them.
Others, such as "disk full", come from the door, with whatever zxid it had when it gave up."""


class Kind(enum.Enum):
    GET = "get"
    EXISTS = "exists"
    CHILDREN = "children"
    SET = "set"
    CREATE = "create"
    DELETE = "delete"
    CHECK = "check"
    """Only as part of a multi."""
    MULTI = "multi"
    SYNC = "sync"
    CLOSE = "close"


WRITES: Final = frozenset({Kind.SET, Kind.CREATE, Kind.DELETE, Kind.MULTI, Kind.CLOSE})


@dataclass(slots=True, eq=False)
class Part:
    """One operation of a multi.  `version` is what a set was answered with."""

    kind: Kind
    path: str
    value: str | None = None
    version: int = -1


@dataclass(slots=True, eq=False)
class Call:
    """One request of one session.  The session's calls stand in the history in the order in which they were sent."""

    session: int
    """Its number in the history."""
    kind: Kind
    path: str
    """Of a sequential create: what was asked for, and from the answer on what was made."""
    invoked_at: float
    value: str | None = None
    """What was to be written, unlike anything else ever written; or what a get found."""
    process: str = ""
    """Whose operation it is in the history of linearizable operations; empty for what is none of them."""
    synced: bool = False
    """A read behind a sync; `invoked_at` is when the sync was."""
    expected_version: int = -1
    expected_value: str | None = None
    """What the writer had read under the expected version, for nodes that are never deleted."""
    ephemeral: bool = False
    sequential: bool = False
    parts: tuple[Part, ...] = ()
    connection: int = 0
    """Of a set of a node that nobody else writes: over which of the session's connections it went; else 0."""
    returned_at: float | None = None
    code: int = OK
    zxid: int = 0
    """In the reply's header: of the write itself, or as of which a read was answered."""
    arrival: int = 0
    """The reply's number among all replies and events of its session."""
    czxid: int = 0
    mzxid: int = 0
    pzxid: int = 0
    version: int = -1
    owner: int = 0
    """Of the znode that was written or read, 0 (and -1) where there was none or the answer did not say."""
    children: tuple[str, ...] = ()

    def is_judged(self) -> bool:
        """It was answered, and `zxid` is that of the state which the answer is about."""
        return self.returned_at is not None and self.code in JUDGED

    def is_done(self) -> bool:
        """It was answered without an error."""
        return self.returned_at is not None and self.code == OK

    def is_unknown(self) -> bool:
        return self.returned_at is None


class End(enum.Enum):
    """How a session ended, as far as its client knows."""

    CLOSED = "closed, and the close was acknowledged"
    EXPIRED = "the client was told that it has expired"
    LEFT = "the client left it to expire, or does not know whether its close was heard"


@dataclass(slots=True, eq=False)
class Session:
    """`number` counts all sessions of a history from 0; `session_id` is the server's, 0 before there is one."""

    number: int
    client: str
    timeout_ms: int
    opened_at: float
    session_id: int = 0
    end: End | None = None
    ended_at: float = 0.0
    """When the client knew."""
    vouched_at: float | None = None
    """When the newest ping was sent that was answered; None where none was."""
    unasked_events: int = 0
    """Events that came although no watch was waiting for them."""
    broken_connections: int = 0
    """Connections on which something came that was not due, such as an answer out of order."""


class WatchKind(enum.Enum):
    DATA = "data"
    EXIST = "exist"
    CHILD = "child"


@dataclass(slots=True, eq=False)
class Watch:
    """One watch, set by a read that was answered at `set_zxid` as arrival `set_arrival`."""

    session: int
    kind: WatchKind
    path: str
    set_zxid: int = 0
    set_arrival: int = 0
    """0: it was not set, since the read was not answered or found no node."""
    fired_arrival: int = 0
    """The event's number among the session's arrivals; 0 while it did not fire."""
    event_type: int = 0
    fired_times: int = 0


@dataclass(slots=True, eq=False)
class Hold:
    """A claim on a lock was seen to be the first in line, in a list of the claims as of `held_zxid`."""

    lock: str
    claim: str
    session: int
    token: int
    """The claim's czxid."""
    held_zxid: int
    at: float
    release: Call | None = None
    """The deletion of the claim, where it was tried."""


@dataclass(slots=True, eq=False)
class Use:
    """A holder came to the resource that the lock guards; it takes a token unless it has seen a higher one."""

    lock: str
    session: int
    token: int
    at: float
    accepted: bool


@dataclass(slots=True, eq=False)
class History:
    """All that the clients of one run recorded.  Calls stand in the order in which they were made."""

    calls: list[Call] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise was broken.  `check` is a short stable name; `text` says what was seen; `at` when, in true time.

    `session` is the number of the one that saw it, where it was one.
    """

    check: str
    text: str
    at: float = 0.0
    session: int | None = None
