"""What clients of etcd's API record of their doings, for the checks of this package.

Requests and answers are kept as they are on the wire.  Records are written while a run goes on: a call is begun with
what was asked, and completed with the answer.  A call that has neither `response` nor `error` is of unknown outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.etcd_pb2 import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchResponse,
)

Request: TypeAlias = (
    RangeRequest
    | PutRequest
    | DeleteRangeRequest
    | TxnRequest
    | CompactionRequest
    | LeaseGrantRequest
    | LeaseRevokeRequest
    | LeaseTimeToLiveRequest
    | LeaseLeasesRequest
)
Response: TypeAlias = (
    RangeResponse
    | PutResponse
    | DeleteRangeResponse
    | TxnResponse
    | CompactionResponse
    | LeaseGrantResponse
    | LeaseRevokeResponse
    | LeaseTimeToLiveResponse
    | LeaseLeasesResponse
)
EVERYTHING: Final = b"\0"
"""As key and as end of a range: the whole keyspace."""


@dataclass(slots=True, eq=False)
class Call:
    """One request.  No value is ever written by two calls, but for deletions, which have none."""

    client: str
    request: Request
    invoked_at: float
    process: str = ""
    """Whose operation it is in the history of linearizable operations; empty for what is none of them."""
    connection: int = 0
    """Unlike any other connection of the history; 0 where there was no answer."""
    returned_at: float | None = None
    response: Response | None = None
    error: EtcdError | None = None
    """It certainly was not done."""

    def is_unknown(self) -> bool:
        return self.response is None and self.error is None

    @property
    def revision(self) -> int:
        """In the header of the answer; 0 where there is none."""
        return 0 if self.response is None else self.response.header.revision


@dataclass(slots=True, eq=False)
class KeepAlive:
    """A keep-alive that was answered.  `ttl_s` is 0 where the server knows no such lease."""

    client: str
    lease: int
    sent_at: float
    returned_at: float
    ttl_s: int
    revision: int


@dataclass(slots=True, eq=False)
class Delivery:
    """One answer on a watch; the parts of a fragmented one are one.

    `created` begins a new watch at the server, after a connection was lost.
    """

    at: float
    response: WatchResponse


@dataclass(slots=True, eq=False)
class Watch:
    """A watch as its user sees it: it goes on over as many connections as it takes."""

    client: str
    request: WatchCreateRequest
    """As the user asked."""
    asked_at: float
    deliveries: list[Delivery] = field(default_factory=list)
    cancelled: bool = False
    """Its user gave it up."""


@dataclass(slots=True, eq=False)
class Hold:
    """A claim on a lock was seen to be the oldest, in a list of the claims as of `held_revision`."""

    lock: bytes
    """What all claims begin with."""
    claim: bytes
    client: str
    token: int
    """The claim's create revision."""
    held_revision: int
    at: float


@dataclass(slots=True, eq=False)
class Use:
    """A holder came to the resource that the lock guards; it takes a token unless it has seen a higher one."""

    lock: bytes
    client: str
    token: int
    at: float
    accepted: bool


@dataclass(slots=True, eq=False)
class History:
    """All that the clients of one run recorded.  Calls stand in the order in which they were made."""

    calls: list[Call] = field(default_factory=list)
    keep_alives: list[KeepAlive] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise was broken.  `check` is a short stable name; `text` says what was seen; `at` when, in true time.

    `client` is the name of the one that saw it, where it was one.
    """

    check: str
    text: str
    at: float = 0.0
    client: str = ""
