"""What must survive a crash: an acceptor's promise and accepted proposal, a proposer's latest round."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from quorate.consensus.records import InvalidState
from quorate.consensus.single_decree.messages import NO_BALLOT, Ballot, Proposal

_VERSION: Final = 1
_T = TypeVar("_T")


class InvalidHardState(InvalidState):
    """The bytes are not what an agent of this kind saved: it must not take part on them."""


def encode_acceptor(promised: Ballot, accepted: Proposal | None) -> bytes:
    return msgspec.msgpack.encode((_VERSION, promised, accepted))


def decode_acceptor(state: bytes | None) -> tuple[Ballot, Proposal | None]:
    """(promised, accepted); one that never saved any has promised nothing.  Raises InvalidHardState."""
    if state is None:
        return NO_BALLOT, None
    version, promised, accepted = _decode(state, tuple[int, Ballot, Proposal | None], "an acceptor's")
    if version != _VERSION:
        raise InvalidHardState(f"an acceptor's state has format {version}, expected {_VERSION}")
    if accepted is not None and accepted.ballot > promised:
        raise InvalidHardState(f"an acceptor's state has accepted {accepted.ballot}, above its promise {promised}")
    return promised, accepted


def encode_proposer(round_: int) -> bytes:
    return msgspec.msgpack.encode((_VERSION, round_))


def decode_proposer(state: bytes | None) -> int:
    """The latest round used; 0 for none.  Raises InvalidHardState."""
    if state is None:
        return 0
    version, round_ = _decode(state, tuple[int, int], "a proposer's")
    if version != _VERSION or round_ < 1:
        raise InvalidHardState(f"a proposer's state has format {version} and round {round_}, expected {_VERSION}, >= 1")
    return round_


def _decode(state: bytes, kind: type[_T], whose: str) -> _T:
    try:
        return msgspec.msgpack.decode(state, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidHardState(f"{whose} state cannot be read: {error}") from error
