"""gRPC's messages in a stream of bytes, however it is cut."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.net.grpc.framing import GZIP, MessageDecoder, encode_message
from quorate.net.grpc.status import Code, GrpcError

LIMIT_BYTES = 1000


def zipped(message: bytes) -> bytes:
    packed = gzip.compress(message)
    return b"\x01" + len(packed).to_bytes(4, "big") + packed


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def fed(decoder: MessageDecoder, *parts: bytes) -> list[bytes]:
    return [message for part in parts for message in decoder.feed(part)]


@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans())), st.lists(st.integers(0, 10_000)))
def test_messages_come_out_as_they_went_in(messages: list[tuple[bytes, bool]], places: list[int]) -> None:
    data = b"".join(zipped(message) if packed else encode_message(message) for message, packed in messages)
    decoder = MessageDecoder(LIMIT_BYTES, GZIP)
    assert fed(decoder, *cut(data, places)) == [message for message, _ in messages]
    assert decoder.buffered_bytes == 0


@given(st.binary(), st.lists(st.integers(0, 10_000)))
def test_where_bytes_are_cut_makes_no_difference(data: bytes, places: list[int]) -> None:
    def outcome(parts: list[bytes]) -> object:
        decoder = MessageDecoder(LIMIT_BYTES, GZIP)
        messages = []
        try:
            for part in parts:
                messages += decoder.feed(part)
        except GrpcError as error:
            return str(error)
        return messages, decoder.buffered_bytes

    assert outcome([data]) == outcome(cut(data, places))


def test_a_message_of_the_largest_size_passes() -> None:
    assert MessageDecoder(LIMIT_BYTES).feed(encode_message(bytes(LIMIT_BYTES))) == [bytes(LIMIT_BYTES)]
    assert MessageDecoder(LIMIT_BYTES, GZIP).feed(zipped(bytes(LIMIT_BYTES))) == [bytes(LIMIT_BYTES)]


def test_a_message_that_is_too_large_is_refused_at_its_prefix() -> None:
    with pytest.raises(GrpcError) as refusal:
        MessageDecoder(LIMIT_BYTES).feed(b"\x00" + (LIMIT_BYTES + 1).to_bytes(4, "big"))
    assert refusal.value.code is Code.RESOURCE_EXHAUSTED
    assert refusal.value.message == "grpc: received message larger than max (1001 vs. 1000)"


def test_a_small_message_that_unpacks_into_a_huge_one_is_refused() -> None:
    with pytest.raises(GrpcError) as refusal:
        MessageDecoder(1 << 20, GZIP).feed(zipped(bytes(1 << 26)))
    assert refusal.value.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        pytest.param("identity", b"\x02\x00\x00\x00\x00", id="unknown flag"),
        pytest.param("identity", zipped(b"hello"), id="compressed where no encoding was named"),
        pytest.param("gzip", b"\x01\x00\x00\x00\x03abc", id="no gzip"),
        pytest.param("gzip", b"\x01\x00\x00\x00\x14" + gzip.compress(b"hello, hello")[:20], id="half of a gzip"),
    ],
)
def test_what_is_no_message_is_an_internal_error(encoding: str, data: bytes) -> None:
    with pytest.raises(GrpcError) as refusal:
        MessageDecoder(LIMIT_BYTES, encoding).feed(data)
    assert refusal.value.code is Code.INTERNAL
