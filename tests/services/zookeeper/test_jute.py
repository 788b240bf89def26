from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.services.zookeeper import protocol
from quorate.services.zookeeper.jute import NULL, JuteError, Reader, pack_buffer, pack_strings
from quorate.services.zookeeper.protocol import (
    AccessRule,
    AuthPacket,
    ConnectRequest,
    ConnectResponse,
    Op,
    PathAndMode,
    PathAndWatch,
    SetWatches,
    Stat,
    WatcherEvent,
    read_acl,
    read_multi_results,
)


def decode_set_watches(reader: Reader) -> SetWatches:
    return SetWatches.decode(reader, Op.SET_WATCHES)


def decode_set_watches2(reader: Reader) -> SetWatches:
    return SetWatches.decode(reader, Op.SET_WATCHES2)


WATCHES = SetWatches(7, [b"/a", b"/b"], [b"/c"], [])
WATCHES2 = SetWatches(7, [b"/a"], [], [b"/b"], [b"/c"], [b"/d", b"/e"])

RECORDS: list[tuple[Callable[[Reader], object], object, bytes]] = [
    (value.decode, value, value.encode())
    for value in (
        ConnectRequest(5, 6000, 7, b"p" * 16, read_only=True),
        ConnectResponse(6000, 7, b"p" * 16),
        WatcherEvent(3, b"/a"),
        Stat(1, 2, 3, 4, 5, -6, 7, 8, 9, 10, 11),
        AccessRule(31, b"world", b"anyone"),
        PathAndWatch(b"/a", True),
        AuthPacket(b"digest", b"user:password"),
        PathAndMode(b"/a", 1),
    )
]
RECORDS += [
    (decode_set_watches, WATCHES, WATCHES.encode(Op.SET_WATCHES)),
    (decode_set_watches2, WATCHES2, WATCHES2.encode(Op.SET_WATCHES2)),
    (read_acl, protocol.ANYONE, protocol.pack_acl(protocol.ANYONE)),
    (
        read_multi_results,
        [protocol.MultiResult(Op.DELETE), protocol.MultiResult(Op.ERROR, -101)],
        protocol.MULTI_HEADER.pack(2, False, 0)
        + protocol.MULTI_HEADER.pack(-1, False, -101)
        + (-101).to_bytes(4, "big", signed=True)
        + protocol.MULTI_END,
    ),
]


@pytest.mark.parametrize(("decode", "value", "data"), RECORDS)
def test_record_comes_back(decode: Callable[[Reader], object], value: object, data: bytes) -> None:
    reader = Reader(data)
    assert decode(reader) == value
    assert reader.left() == 0


@pytest.mark.parametrize(("decode", "value", "data"), RECORDS)
def test_truncated_record_is_refused(decode: Callable[[Reader], object], value: object, data: bytes) -> None:
    for size in range(len(data)):
        if decode in (ConnectRequest.decode, ConnectResponse.decode) and size == len(data) - 1:
            continue  # the older form, without readOnly
        with pytest.raises(JuteError):
            decode(Reader(data[:size]))


@given(st.binary(max_size=200), st.sampled_from([decode for decode, _, _ in RECORDS]))
def test_random_bytes_raise_nothing_but_jute_errors(data: bytes, decode: Callable[[Reader], object]) -> None:
    with contextlib.suppress(JuteError):
        decode(Reader(data))


def test_connect_request_without_read_only_flag() -> None:
    request = ConnectRequest(5, 6000, 7, b"p" * 16, has_read_only=False)
    assert len(request.encode()) == 44
    assert ConnectRequest.decode(Reader(request.encode())) == request


def test_known_bytes_of_a_connect_request() -> None:
    # As kazoo 2.10 sends it for a new session of 10 s.
    sent = bytes.fromhex("00000000" + "00" * 8 + "00002710" + "00" * 8 + "00000010" + "00" * 16 + "00")
    assert ConnectRequest(0, 10_000, 0, bytes(16)).encode() == sent


def test_null_and_empty_are_different() -> None:
    assert Reader(NULL).buffer("data") is None
    assert Reader(bytes(4)).buffer("data") == b""
    assert pack_buffer(None) == NULL
    assert pack_buffer(b"") == bytes(4)


def test_error_names_what_was_expected_and_found() -> None:
    with pytest.raises(JuteError, match="length of path: expected 4 bytes at offset 0, found 2"):
        Reader(b"ab").string("path")
    with pytest.raises(JuteError, match="path: expected a string, found null"):
        Reader(NULL).string("path")
    with pytest.raises(JuteError, match="length of path: expected -1 or more, found -2"):
        Reader(b"\xff\xff\xff\xfe").string("path")


def test_huge_count_is_refused_before_anything_is_made() -> None:
    with pytest.raises(JuteError, match="count of paths"):
        Reader(b"\x7f\xff\xff\xff" + bytes(100)).strings("paths")


@given(st.lists(st.binary(max_size=5)))
def test_strings_come_back(values: list[bytes]) -> None:
    assert Reader(pack_strings(values)).strings("values") == values
