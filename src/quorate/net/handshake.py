"""Who may talk to whom: the first frame of every peer connection, and its answer.

The dialling node says who it is, whom it means and what it speaks; the accepting node
answers with its own identity or with the reason why not, and either side may refuse.  A
node's identity is bound to its data folder by the *incarnation*: a folder that was wiped
comes back with another one and is refused, because what it had voted is forgotten.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from quorate.storage.identity import is_incarnation

WIRE_VERSION = 1
"""Version of frames and messages between nodes."""


class Purpose(enum.Enum):
    """What a connection is for; both directions of a conversation use a connection of their own."""

    MESSAGES = "messages"
    SNAPSHOT = "snapshot"


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First frame from the dialling node."""

    wire_version: int
    cluster: str
    protocol: str
    node: int
    incarnation: str
    to_node: int
    purpose: Purpose
    admin: str


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The accepting node agrees to talk."""

    node: int
    incarnation: str
    admin: str


class Unwelcome(msgspec.Struct, frozen=True, tag="unwelcome"):
    """The accepting node refuses, and why."""

    reason: str


_HELLO = msgspec.msgpack.Decoder(Hello)
_ANSWER = msgspec.msgpack.Decoder(Welcome | Unwelcome)


class HandshakeRefused(Exception):
    """One side does not want to talk to the other; the message says why."""


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """What this node says of itself."""

    cluster: str
    protocol: str
    node: int
    incarnation: str
    admin: str


@dataclass(frozen=True, slots=True)
class Handshake:
    """Both halves of the handshake, without the bytes' way.

    `admit_incarnation(node, incarnation)` returns None where the peer is known, or now
    becomes known, under this incarnation, else the reason to refuse it.  An OSError of it
    refuses the peer as well.
    """

    local: LocalIdentity
    members: frozenset[int]
    admit_incarnation: Callable[[int, str], str | None]

    def hello(self, to_node: int, purpose: Purpose) -> Hello:
        local = self.local
        return Hello(
            WIRE_VERSION,
            local.cluster,
            local.protocol,
            local.node,
            local.incarnation,
            to_node,
            purpose,
            local.admin,
        )

    def accept(self, body: bytes) -> tuple[Hello, Welcome]:
        """Judge a first frame.  Raises HandshakeRefused."""
        try:
            hello = _HELLO.decode(body)
        except msgspec.DecodeError as error:
            raise HandshakeRefused(f"the first frame is not a Quorate handshake: {error}") from None
        reason = self._objection(hello)
        if reason is not None:
            raise HandshakeRefused(reason)
        return hello, Welcome(self.local.node, self.local.incarnation, self.local.admin)

    def conclude(self, to_node: int, body: bytes) -> Welcome:
        """Judge the answer to our hello.  Raises HandshakeRefused."""
        answer: Welcome | Unwelcome
        try:
            answer = _ANSWER.decode(body)
        except msgspec.DecodeError as error:
            raise HandshakeRefused(f"the answer is not a Quorate handshake: {error}") from None
        if isinstance(answer, Unwelcome):
            raise HandshakeRefused(f"it refused us: {answer.reason}")
        if answer.node != to_node:
            raise HandshakeRefused(f"node {answer.node} answered at the address of node {to_node}")
        reason = self._objection_to_folder(answer.node, answer.incarnation)
        if reason is not None:
            raise HandshakeRefused(reason)
        return answer

    def _objection(self, hello: Hello) -> str | None:
        local = self.local
        if hello.wire_version != WIRE_VERSION:
            return f"node {hello.node} speaks wire version {hello.wire_version}, this node {WIRE_VERSION}"
        if hello.cluster != local.cluster:
            return f"node {hello.node} belongs to cluster {hello.cluster!r}, this node to {local.cluster!r}"
        if hello.protocol != local.protocol:
            return f"node {hello.node} runs protocol {hello.protocol!r}, this cluster {local.protocol!r}"
        if hello.to_node != local.node:
            return f"node {hello.node} wants node {hello.to_node}, this is node {local.node}: check [members]"
        if hello.node == local.node or hello.node not in self.members:
            return f"node {hello.node} is not one of this cluster's other members {sorted(self.members)}"
        return self._objection_to_folder(hello.node, hello.incarnation)

    def _objection_to_folder(self, node: int, incarnation: str) -> str | None:
        if not is_incarnation(incarnation):
            return f"node {node} came with incarnation {incarnation[:40]!r}: it must be 32 hexadecimal digits"
        try:
            return self.admit_incarnation(node, incarnation)
        except OSError as error:
            # Unremembered, a wiped folder could come next under the same id.  The peer tries again.
            return f"node {self.local.node} cannot save the incarnation of node {node}: {error}"
