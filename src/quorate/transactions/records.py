"""What coordinator and participants make durable.

A record is written to a disk's log by a process, or is a command of a group's log; which of
the two it is nobody here knows.  Each names the *generation*, the life, that wrote it: what
comes of one that is over is void (`states`).
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from quorate.transactions.messages import Address, TransactionId


class Record(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all records."""

    generation: int


class Opened(Record, frozen=True, array_like=True, tag=True):
    """A life begins, in the knowledge of exactly `follows` records: void where there are more by now."""

    follows: int


class Committed(Record, frozen=True, array_like=True, tag=True):
    """Of a coordinator: the decision.  There is no record of the other one (presumed abort)."""

    number: int
    participants: tuple[Address, ...]


class Forgotten(Record, frozen=True, array_like=True, tag=True):
    """Of a coordinator: all participants have acknowledged the commit, nobody will ask again."""

    number: int


class Prepared(Record, frozen=True, array_like=True, tag=True):
    """Of a participant: all that its yes promises, and all that it needs to end the transaction after a crash."""

    transaction: TransactionId
    participants: tuple[Address, ...]
    finished_below: int
    reads: tuple[str, ...]
    writes: dict[str, bytes | None]
    """New value by key; None deletes."""
    result: bytes


class Resolved(Record, frozen=True, array_like=True, tag=True):
    """Of a participant: how a transaction ended; with `committed` its writes take effect here.

    An abort may come without a `Prepared` before it: the participant will never vote yes on it.
    """

    transaction: TransactionId
    committed: bool


AnyRecord: TypeAlias = Opened | Committed | Forgotten | Prepared | Resolved


_DECODER: Final = msgspec.msgpack.Decoder[AnyRecord](AnyRecord)


class InvalidRecord(ValueError):
    """Recovered bytes are no record of ours: nothing may be promised on their ground."""


def encode_record(record: AnyRecord) -> bytes:
    return msgspec.msgpack.encode(record)


def decode_record(data: bytes) -> AnyRecord:
    """Raises InvalidRecord."""
    try:
        record: AnyRecord = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidRecord(f"not a record of a transaction: {error}") from error
    return record
