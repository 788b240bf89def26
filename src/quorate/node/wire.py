"""What nodes say to each other beside consensus, and what an entry's payload holds.

A payload is the leader's time stamp and the batches that one turn of its loop gathered,
its own and those that other nodes forwarded.  A batch carries the id under which its
origin waits for it: (node, boot, sequence).  Position alone would not do: after a change
of leaders another entry may stand where a node expected its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any, TypeAlias, get_args

import msgspec

from quorate.consensus.replica import ConsensusProtocol, Message
from quorate.net.frames import FrameError


class Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Commands of one door, in order, under the id by which their node knows them again."""

    origin: int
    boot: int
    """Drawn at random when the process started: an earlier life of a node has no waiters."""
    sequence: int
    commands: list[bytes]


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The content of an entry that carries commands."""

    time_ms: int
    """Unix time by the leader's clock; stores see it clamped so that it never goes back."""
    batches: list[Batch]


class Forward(Message, frozen=True, array_like=True, tag=True, gc=False):
    """A follower asks the leader of `generation` to append a batch.  Never sent twice."""

    generation: int
    batch: Batch


class ForwardRefused(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The batch `sequence` of `boot` was not appended.  `disk_full` tells why: else this is no leader any more."""

    boot: int
    sequence: int
    disk_full: bool


class Note(Message, frozen=True, array_like=True, tag=True, gc=False):
    """From one service's door to the same service's door on another node."""

    content: bytes


class Room(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Whether the sender's disk is full: a leader takes no write that no quorum has room for."""

    full: bool


class Hold(Message, frozen=True, array_like=True, tag=True, gc=False):
    """From a leader that hands over: forward nothing more in this generation, and say when all of it is answered."""

    generation: int


class Held(Message, frozen=True, array_like=True, tag=True, gc=False):
    """Answer to `Hold`: nothing that the sender forwarded in this generation is under way any more."""

    generation: int


class HoldEnded(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The leader of this generation leads on: forward again."""

    generation: int


class Positions(Message, frozen=True, array_like=True, tag=True, gc=False):
    """How far the sender has applied each of its groups: others judge by it who has caught up."""

    applied: dict[int, int]


class Met(Message, frozen=True, array_like=True, tag=True, gc=False):
    """While a cluster forms: which first members the sender has met, with their incarnations, written down."""

    met: dict[int, str]


class Stopping(Message, frozen=True, array_like=True, tag=True, gc=False):
    """The sender stops in order: it takes no leadership any more."""


NodeMessage: TypeAlias = Forward | ForwardRefused | Note | Room | Hold | Held | HoldEnded | Positions | Met | Stopping


class PayloadCodec:
    """Encodes and decodes payloads."""

    def __init__(self) -> None:
        self.encode = msgspec.msgpack.Encoder().encode
        self._decoder = msgspec.msgpack.Decoder(Payload)

    def decode(self, data: bytes) -> Payload:
        """Raises msgspec.DecodeError: a committed entry that cannot be read stops the node."""
        return self._decoder.decode(data)


def items_decoder(protocols: Iterable[ConsensusProtocol]) -> msgspec.msgpack.Decoder[list[tuple[int, Message]]]:
    """A decoder for a frame's items, (group, message) each, where a message is a protocol's or the node's.

    It raises msgspec.DecodeError.
    """
    message_type: Any = reduce(or_, (protocol.message_type for protocol in protocols), NodeMessage)
    return msgspec.msgpack.Decoder(list[tuple[int, message_type]])


class FrameReader:
    """Reads frames from a peer, and sees to it that no group gets messages of a protocol that is not its own."""

    def __init__(self, protocols: Mapping[int, ConsensusProtocol]) -> None:
        """`protocols`: group -> what it runs on."""
        self._protocols = protocols
        self._decode = items_decoder(protocols.values()).decode
        self._types = {
            group: frozenset((*get_args(protocol.message_type), *get_args(NodeMessage)))
            for group, protocol in protocols.items()
        }

    def read(self, body: bytes) -> list[tuple[int, Message]]:
        """(group, message) each; of groups that are not here anything may come.

        Raises msgspec.DecodeError, UnicodeDecodeError and FrameError, for which the connection is cut.
        """
        items = self._decode(body)
        types = self._types
        for group, message in items:
            if group in types and type(message) not in types[group]:
                raise FrameError(
                    f"group {group} runs on {self._protocols[group].name}, which knows no message "
                    f"{type(message).__struct_config__.tag!r}"
                )
        return items
