"""Who may talk to whom: the first frame of every peer connection, and its answer.

    dialling node                      accepting node
    Hello(purpose=messages)      ->
                                 <-    Welcome, or Unwelcome with the reason, and the end
    Hello(purpose=probe)         ->
                                 <-    Portrait, whoever asked, and the end

The dialling node says who it is, whom it means and what it speaks; the accepting node
answers with its own identity or with the reason why not, and either side may refuse.  What
can be judged without knowing the members is judged here: wire version, cluster, protocol,
services, and whether the right node was reached.  Whether a peer is a member, under this incarnation,
is the node's to say: its `Gate` is asked each time, because members change while it runs.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

import msgspec

from quorate import __version__
from quorate.storage.identity import is_incarnation

WIRE_VERSION: Final = 3
"""Version of frames and messages between nodes."""
FIRST_SERVICES: Final = ("zookeeper",)
"""What nodes serve that do not say it: of a version that could serve nothing else."""
ANY_NODE: Final = -1
"""`to_node` of one who asks who is there, and `node` of one who is no node."""
_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", re.ASCII)


class Purpose(enum.Enum):
    """What a connection is for; both directions of a conversation use a connection of their own."""

    MESSAGES = "messages"
    SNAPSHOT = "snapshot"
    PROBE = "probe"


class RefusalCode(enum.StrEnum):
    """Why a peer is refused, for programs."""

    INCOMPATIBLE = "incompatible"
    OTHER_CLUSTER = "other-cluster"
    OTHER_FOLDER = "other-folder"
    """The node's id is known under another incarnation."""
    UNKNOWN = "unknown"
    """No member, and never was one."""
    REMOVED = "removed"
    MISDIRECTED = "misdirected"
    """Another node was meant."""
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> Self:
        """A later version may have more of them: what it says stands in the reason."""
        return cls("other")


class _Preamble(msgspec.Struct, frozen=True, tag="hello"):
    """What every version of `Hello` has, so that another version is told from nonsense."""

    wire_version: int
    release: str = "unknown"


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First frame from the dialling node."""

    wire_version: int
    release: str
    cluster: str
    cluster_id: str
    """32 hexadecimal digits; empty while the node is no member yet."""
    protocol: str
    """Which one each group runs on: the same text on every node of a cluster."""
    node: int
    incarnation: str
    to_node: int
    purpose: Purpose
    admin: str
    address: str
    """`host:port` where this node's peers reach it."""
    formation: dict[int, str]
    """Every first member's incarnation, from one who took part in forming the cluster; else empty."""
    joining: bool = False
    """The node waits to be let into a cluster that exists: it does not help to form one."""
    first_members: list[int] = []
    """While it helps to form one: who takes part, by its settings."""
    services: tuple[str, ...] = FIRST_SERVICES
    """What it serves: the same on every node of a cluster."""


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The accepting node agrees to talk.  Fields as in `Hello`."""

    release: str
    cluster_id: str
    node: int
    incarnation: str
    admin: str
    address: str
    formation: dict[int, str]
    joining: bool = False
    first_members: list[int] = []


class Unwelcome(msgspec.Struct, frozen=True, tag="unwelcome"):
    """The accepting node refuses, and why.  The defaults are for wire version 1, which had the reason only."""

    reason: str
    code: RefusalCode = RefusalCode.OTHER
    cluster_id: str = ""


class Portrait(msgspec.Struct, frozen=True, tag="portrait"):
    """Who is there, for anybody who asks.  Fields as in `Hello`."""

    wire_version: int
    release: str
    cluster: str
    cluster_id: str
    protocol: str
    node: int
    incarnation: str
    address: str
    services: tuple[str, ...] = FIRST_SERVICES


_PREAMBLE = msgspec.msgpack.Decoder(_Preamble)
_HELLO = msgspec.msgpack.Decoder(Hello)
_ANSWER = msgspec.msgpack.Decoder(Welcome | Unwelcome)
_PROBE_ANSWER = msgspec.msgpack.Decoder(Portrait | Unwelcome)


class HandshakeRefused(Exception):
    """One side does not want to talk to the other; the message says why."""

    def __init__(self, reason: str, code: RefusalCode = RefusalCode.OTHER) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """What this node says of itself.  Fields as in `Hello`."""

    cluster: str
    protocol: str
    node: int
    incarnation: str
    address: str
    admin: str = ""
    cluster_id: str = ""
    formation: Mapping[int, str] = field(default_factory=dict)
    joining: bool = False
    first_members: Sequence[int] = ()
    services: tuple[str, ...] = FIRST_SERVICES
    release: str = __version__


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What a peer says of itself, its form checked.  Fields as in `Hello`."""

    node: int
    incarnation: str
    cluster_id: str
    formation: Mapping[int, str]
    admin: str
    address: str
    release: str
    joining: bool
    first_members: Sequence[int]
    dialled: bool
    """True where it answered our hello."""


class Gate(Protocol):
    """The node as the handshake sees it: who it is now, and whom it lets in now."""

    def local(self) -> LocalIdentity:
        """Asked at every handshake: cluster id and formation may change while the node runs."""
        ...

    def admit(self, peer: PeerIdentity) -> None:
        """Returns where the peer may talk to this node.  Raises HandshakeRefused; an OSError refuses as well."""
        ...

    def refused_by(self, peer: int, code: RefusalCode, cluster_id: str, reason: str) -> None:
        """Who answered at the address of `peer` refused this node; `cluster_id` is the refusing node's."""
        ...


def greet(local: LocalIdentity, to_node: int, purpose: Purpose) -> Hello:
    """The first frame of a connection."""
    return Hello(
        wire_version=WIRE_VERSION,
        release=local.release,
        cluster=local.cluster,
        cluster_id=local.cluster_id,
        protocol=local.protocol,
        node=local.node,
        incarnation=local.incarnation,
        to_node=to_node,
        purpose=purpose,
        admin=local.admin,
        address=local.address,
        formation=dict(local.formation),
        joining=local.joining,
        first_members=list(local.first_members),
        services=local.services,
    )


def conclude_probe(body: bytes) -> Portrait:
    """The answer to a hello that asked who is there.  Raises HandshakeRefused."""
    answer: Portrait | Unwelcome
    try:
        answer = _PROBE_ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HandshakeRefused(f"the answer is not a Quorate handshake: {error}") from None
    if isinstance(answer, Unwelcome):
        raise HandshakeRefused(f"it refused us: {answer.reason}", answer.code)
    if answer.wire_version != WIRE_VERSION:
        raise HandshakeRefused(
            f"it runs Quorate {answer.release} and speaks wire version {answer.wire_version}, "
            f"this node {WIRE_VERSION}: both must run the same version",
            RefusalCode.INCOMPATIBLE,
        )
    return answer


@dataclass(frozen=True, slots=True)
class Handshake:
    """Both halves of the handshake, without the bytes' way."""

    gate: Gate

    def hello(self, to_node: int, purpose: Purpose) -> Hello:
        return greet(self.gate.local(), to_node, purpose)

    def accept(self, body: bytes) -> tuple[Hello, Welcome | Portrait]:
        """Judge a first frame: it, and the answer, a Portrait for a probe.  Raises HandshakeRefused."""
        local = self.gate.local()
        hello = _decode_hello(body, local)
        if hello.purpose is Purpose.PROBE:
            return hello, _portrait(local)
        _judge_hello(hello, local)
        self._admit(hello, local, dialled=False)
        # Admitting may have changed who we are: the last first member was met.
        local = self.gate.local()
        welcome = Welcome(
            release=local.release,
            cluster_id=local.cluster_id,
            node=local.node,
            incarnation=local.incarnation,
            admin=local.admin,
            address=local.address,
            formation=dict(local.formation),
            joining=local.joining,
            first_members=list(local.first_members),
        )
        return hello, welcome

    def unwelcome(self, error: Exception) -> Unwelcome:
        """What to answer where a connection ends before `accept` returned."""
        code = error.code if isinstance(error, HandshakeRefused) else RefusalCode.OTHER
        return Unwelcome(str(error), code, self.gate.local().cluster_id)

    def conclude(self, to_node: int, body: bytes) -> Welcome:
        """Judge the answer to our hello.  Raises HandshakeRefused."""
        answer: Welcome | Unwelcome
        try:
            answer = _ANSWER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HandshakeRefused(f"the answer is not a Quorate handshake: {error}") from None
        if isinstance(answer, Unwelcome):
            self.gate.refused_by(to_node, answer.code, answer.cluster_id, answer.reason)
            raise HandshakeRefused(f"it refused us: {answer.reason}", answer.code)
        if answer.node != to_node:
            raise HandshakeRefused(
                f"node {answer.node} answered at the address of node {to_node}", RefusalCode.MISDIRECTED
            )
        self._admit(answer, self.gate.local(), dialled=True)
        return answer

    def _admit(self, said: Hello | Welcome, local: LocalIdentity, *, dialled: bool) -> None:
        _check_form(said)
        if local.cluster_id and said.cluster_id and said.cluster_id != local.cluster_id:
            raise HandshakeRefused(
                f"node {said.node} belongs to the cluster with id {said.cluster_id[:8]}, node {local.node} to that "
                f"with id {local.cluster_id[:8]}: a cluster that was recovered has a new id, and takes no node of the "
                "old one",
                RefusalCode.OTHER_CLUSTER,
            )
        peer = PeerIdentity(
            node=said.node,
            incarnation=said.incarnation,
            cluster_id=said.cluster_id,
            formation=said.formation,
            admin=said.admin,
            address=said.address,
            release=said.release,
            joining=said.joining,
            first_members=said.first_members,
            dialled=dialled,
        )
        try:
            self.gate.admit(peer)
        except OSError as error:
            # Unremembered, a wiped folder could come next under the same id.  The peer tries again.
            raise HandshakeRefused(
                f"node {local.node} cannot save the incarnation of node {said.node}: {error}"
            ) from None


def _decode_hello(body: bytes, local: LocalIdentity) -> Hello:
    try:
        # Of another version no more is read than that: the rest may mean anything.
        preamble = _PREAMBLE.decode(body)
        if preamble.wire_version != WIRE_VERSION:
            raise HandshakeRefused(
                f"the dialling node speaks wire version {preamble.wire_version}, this node {WIRE_VERSION} "
                f"(Quorate {preamble.release[:40]} and {local.release})",
                RefusalCode.INCOMPATIBLE,
            )
        return _HELLO.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HandshakeRefused(f"the first frame is not a Quorate handshake: {error}") from None


def _judge_hello(hello: Hello, local: LocalIdentity) -> None:
    """What the dialling side cannot judge: it is told no more than who we are.  Raises HandshakeRefused."""
    if hello.cluster != local.cluster:
        raise HandshakeRefused(
            f"node {hello.node} belongs to cluster {hello.cluster!r}, this node to {local.cluster!r}",
            RefusalCode.OTHER_CLUSTER,
        )
    if hello.services != local.services:
        raise HandshakeRefused(
            f"node {hello.node} serves {' and '.join(hello.services)}, node {local.node} "
            f"{' and '.join(local.services)}: give every node the same `services`, those with which the cluster "
            "was formed",
            RefusalCode.INCOMPATIBLE,
        )
    if hello.protocol != local.protocol:
        raise HandshakeRefused(
            f"node {hello.node} runs the protocol {hello.protocol[:80]}, node {local.node} {local.protocol}: a cluster "
            "keeps the protocol with which it was made, so give a node that has no data yet the same `protocol`",
            RefusalCode.INCOMPATIBLE,
        )
    if hello.to_node != local.node:
        raise HandshakeRefused(
            f"node {hello.node} wants node {hello.to_node}, this is node {local.node}: check the members' addresses",
            RefusalCode.MISDIRECTED,
        )
    if hello.node == local.node:
        raise HandshakeRefused(f"the dialling node says that it is node {hello.node}, which is this node")


def _check_form(said: Hello | Welcome) -> None:
    """Raises HandshakeRefused where an id or address cannot be one."""
    if not is_incarnation(said.incarnation):
        raise HandshakeRefused(
            f"node {said.node} came with incarnation {said.incarnation[:40]!r}: it must be 32 hexadecimal digits"
        )
    if said.cluster_id and not is_incarnation(said.cluster_id):
        raise HandshakeRefused(
            f"node {said.node} came with cluster id {said.cluster_id[:40]!r}: it must be 32 hexadecimal digits"
        )
    if not all(map(is_incarnation, said.formation.values())):
        raise HandshakeRefused(f"node {said.node} came with first members whose incarnations are none")
    match = _ADDRESS.fullmatch(said.address)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise HandshakeRefused(f'node {said.node} came with address {said.address[:80]!r}: it must be "host:port"')


def _portrait(local: LocalIdentity) -> Portrait:
    return Portrait(
        wire_version=WIRE_VERSION,
        release=local.release,
        cluster=local.cluster,
        cluster_id=local.cluster_id,
        protocol=local.protocol,
        node=local.node,
        incarnation=local.incarnation,
        address=local.address,
        services=local.services,
    )
