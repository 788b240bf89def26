"""What a watcher is sent, encoded by hand: the same bytes of an event go to all that see it alike.

A response is `shared + watch_id`: a message's fields may stand in any order, so what all watchers of an event have in
common comes first, and each adds its own id to it with one copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from quorate.services.etcd.encoding import bytes_field, integer_field, varint
from quorate.services.etcd.versions import Version, encode_key_value

_CREATED: Final = integer_field(3, 1)
_CANCELED: Final = integer_field(4, 1)
_MORE_FRAGMENTS: Final = integer_field(7, 1)
_DELETE: Final = integer_field(1, 1)
_EVENTS: Final = b"\x5a"
"""Field 11, with a length."""
NO_WATCH_ID: Final = -1
"""Of responses that are about no watch, or about none that there is."""


def watch_id_field(watch_id: int) -> bytes:
    return integer_field(2, watch_id)


def created(header: bytes, watch_id: int) -> bytes:
    return header + watch_id_field(watch_id) + _CREATED


def refused(header: bytes, reason: str) -> bytes:
    """The answer to a request for a watch that cannot be."""
    return header + watch_id_field(NO_WATCH_ID) + _CREATED + _CANCELED + bytes_field(6, reason.encode())


def canceled(header: bytes, watch_id: int) -> bytes:
    """The answer to a request to cancel."""
    return header + watch_id_field(watch_id) + _CANCELED


def compacted(header: bytes, watch_id: int, compact_revision: int) -> bytes:
    """Some of what the watch should have been told is gone."""
    return header + watch_id_field(watch_id) + _CANCELED + integer_field(5, compact_revision)


def progress(header: bytes, watch_id: int) -> bytes:
    """The watch (with NO_WATCH_ID: each of the stream's) was told of all up to the header's revision."""
    return header + watch_id_field(watch_id)


def encode_event(version: Version, before: Version | None) -> bytes:
    """One of a response's events, with its field's tag; `before` only for those who asked for it."""
    event = b"" if version.version else _DELETE
    event += bytes_field(2, encode_key_value(version))
    if before is not None:
        event += bytes_field(3, encode_key_value(before))
    return _EVENTS + varint(len(event)) + event


def fragments(header_and_id: bytes, events: Sequence[bytes], max_bytes: int) -> Iterator[bytes]:
    """The responses that hold these events: each smaller than `max_bytes` where it holds more than one event."""
    if len(header_and_id) + sum(map(len, events)) < max_bytes:
        yield b"".join((header_and_id, *events))
        return
    head = header_and_id + _MORE_FRAGMENTS
    held: list[bytes] = []
    size_bytes = len(head)
    for event in events:
        if held and size_bytes + len(event) >= max_bytes:
            yield b"".join((head, *held))
            held.clear()
            size_bytes = len(head)
        held.append(event)
        size_bytes += len(event)
    yield b"".join((header_and_id, *held))
