"""Our reading of HPACK beside `hpack`'s own: same fields, same errors, same dynamic table, block after block."""

from __future__ import annotations

import random
from collections import deque
from typing import NamedTuple

import hpack
import pytest
from hpack import HPACKError, NeverIndexedHeaderTuple, OversizedHeaderListError
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from quorate.net.http2.codes import ErrorCode, Violation
from quorate.net.http2.fields import Field, FieldDecoder
from quorate.net.http2.headers import BlockDecoder, Headers
from quorate.net.http2.limits import Limits

LIMIT_BYTES = 1_500
"""Of a list, in these tests: so that it is exceeded now and then."""


class Outcome(NamedTuple):
    fields: list[Field] | None
    error: type[HPACKError] | None
    """OversizedHeaderListError, or HPACKError for all others."""
    table: deque[Field] | None
    table_bytes: int


class Reference:
    """`hpack`, and the two sizes that it lets pass at a block's head as often as they come."""

    def __init__(self) -> None:
        self.decoder = hpack.Decoder(max_header_list_size=LIMIT_BYTES)

    def decode(self, block: bytes) -> Outcome:
        table = self.decoder.header_table
        try:
            if size_updates(block) > 2:
                raise HPACKError
            fields = [(bytes(name), bytes(value)) for name, value in self.decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            return Outcome(None, OversizedHeaderListError, None, 0)
        except HPACKError:
            return Outcome(None, HPACKError, None, 0)
        return Outcome(fields, None, table.dynamic_entries, table.maxsize)


def size_updates(block: bytes) -> int:
    """How many whole ones a block begins with."""
    count = 0
    while block and block[0] & 0xE0 == 0x20:
        count += 1
        is_long = block[0] == 0x3F
        block = block[1:]
        if is_long:
            block = block.lstrip(bytes(range(0x80, 0x100)))[1:]
    return count


class Ours:
    def __init__(self) -> None:
        self.decoder = FieldDecoder(LIMIT_BYTES)

    def decode(self, block: bytes) -> Outcome:
        try:
            fields, last_literal = self.decoder.decode(block)
        except OversizedHeaderListError:
            return Outcome(None, OversizedHeaderListError, None, 0)
        except HPACKError:
            return Outcome(None, HPACKError, None, 0)
        assert -1 <= last_literal < len(fields)
        if sum(32 + len(name) + len(value) for name, value in fields) > LIMIT_BYTES:
            return Outcome(None, OversizedHeaderListError, None, 0)  # it is the caller who has to see that
        table = self.decoder._table
        return Outcome(fields, None, table.dynamic_entries, table.maxsize)


NAMES = [b":method", b":path", b":status", b"te", b"grpc-timeout", b"content-type", b"x-y", b"Z", b"", b"n" * 130]
VALUES = [b"POST", b"/", b"/a/b", b"trailers", b"4999876u", b"5S", b"", b"\xff\0", b"v" * 126, b"v" * 127, b"v" * 253]
names = st.sampled_from(NAMES) | st.binary(max_size=4)
values = st.sampled_from(VALUES) | st.binary(max_size=9) | st.integers(1, 10**8 - 1).map(lambda n: b"%du" % n)
pairs = st.lists(st.tuples(names, values, st.booleans()), max_size=9)


class Block(NamedTuple):
    """What an encoder is asked for, and what happens to its bytes."""

    fields: list[tuple[bytes, bytes, bool]]
    """Name, value, and whether it is sensitive: then it is never indexed."""
    uses_huffman: bool
    table_bytes: list[int]
    unindexed: list[Field]
    """Literals without indexing, which `hpack`'s encoder never writes, behind the others."""
    repeats: int


clean_blocks = st.builds(
    Block,
    pairs,
    st.booleans(),
    st.lists(st.sampled_from([0, 40, 100, 300, 4096]), max_size=1),
    st.lists(st.tuples(names, values), max_size=2),
    st.integers(1, 3),
)


def string(text: bytes) -> bytes:
    return bytes(hpack.hpack.encode_integer(len(text), 7)) + text


def encode(encoder: hpack.Encoder, block: Block) -> list[bytes]:
    """Several encodings of one list: the later ones find more of it in the table."""
    for size in block.table_bytes:
        encoder.header_table_size = size
    fields = [NeverIndexedHeaderTuple(name, value) if never else (name, value) for name, value, never in block.fields]
    tail = b"".join(b"\0" + string(name) + string(value) for name, value in block.unindexed)
    return [encoder.encode(fields, huffman=block.uses_huffman) + tail for _ in range(block.repeats)]


def compare(blocks: list[bytes]) -> list[Outcome]:
    """Until the first error, which ends a connection."""
    reference, ours = Reference(), Ours()
    outcomes: list[Outcome] = []
    for block in blocks:
        expected = reference.decode(block)
        assert ours.decode(block) == expected, block.hex()
        outcomes.append(expected)
        if expected.error:
            break
    return outcomes


@hypothesis_settings(deadline=None)
@given(st.lists(clean_blocks, max_size=12))
def test_what_an_encoder_sends(requests: list[Block]) -> None:
    encoder = hpack.Encoder()
    blocks = [block for request in requests for block in encode(encoder, request)]
    outcomes = compare(blocks)
    assert all(outcome.error is not HPACKError for outcome in outcomes)


mutations = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(["change", "insert", "delete"])), max_size=3
)


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(clean_blocks, mutations), max_size=8))
def test_what_an_encoder_sends_with_some_bytes_wrong(requests: list[tuple[Block, list[tuple[int, int, str]]]]) -> None:
    encoder = hpack.Encoder()
    blocks = []
    for request, wrong in requests:
        for block in encode(encoder, request):
            mutated = bytearray(block)
            for place, value, way in wrong if mutated else ():
                place %= len(mutated) or 1
                if way == "insert":
                    mutated.insert(place, value)
                elif mutated:
                    mutated[place : place + 1] = bytes([value]) if way == "change" else b""
            blocks.append(bytes(mutated))
    compare(blocks)


@hypothesis_settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes(blocks: list[bytes]) -> None:
    compare(blocks)


PIECES = [
    *(
        b"\x83",
        b"\x86",
        b"\xbe",
        b"\xc0",
        b"\xff\x00",
        b"\x40\x01n\x01v",
        b"\x40\x81\x1f\x81\x07",
        b"\x7e\x01w",
        b"\x44\x01/",
    ),
    *(b"\x00\x01n\x01v", b"\x10\x01n\x01v", b"\x0f\x2f\x01v", b"\x1f\x20\x00", b"\x7f\x00\x02ab", b"\x20", b"\x3f\x09"),
    *(b"\x04\x7f\x00" + b"p" * 127, b"\x44\xff\x01" + b"\x1f" * 128, b"\xff", b"\x41", b"\x7f", b"\x02ab"),
]
"""Of blocks, and some that are none by themselves: what random bytes seldom hit upon."""


def test_many_blocks_of_likely_pieces() -> None:
    """More than hypothesis has time for.  The seed is fixed, and both outcomes are met with."""
    chance = random.Random(20)
    good = bad = 0
    for _ in range(3_000):
        blocks = [b"".join(chance.choices(PIECES, k=chance.randrange(1, 9))) for _ in range(6)]
        outcomes = compare([INSERT * 4, *blocks])
        good += sum(outcome.error is None for outcome in outcomes[1:])
        bad += outcomes[-1].error is not None
    assert good > 1_000 and bad > 1_000


INSERT = b"\x40\x01n\x01v"
OF_A_KILOBYTE = b"\x40\x01n\x7f\xd1\x07" + b"v" * 1_104


@pytest.mark.parametrize(
    ("blocks", "error"),
    [
        ([b"\x80"], HPACKError),
        ([b"\xbe"], HPACKError),
        ([INSERT + b"\xbe\xbf"], HPACKError),
        ([INSERT, b"\xbe"], None),
        ([INSERT * 35, INSERT * 35, b"\xff\x04" + b"\x7f\x04\x01w" + b"\xff\x05"], None),
        ([INSERT, b"\xff\x80"], HPACKError),
        ([INSERT, b"\x0f\x2f\x01w"], None),
        ([b"\x00\x01n\x85\xff\xff\xff\xff\xff"], HPACKError),
        ([b"\x00\x81\xff\x01v"], HPACKError),
        ([b"\x00\x02n"], HPACKError),
        ([b"\x82\x20"], HPACKError),
        ([b"\x20\x20\x82"], None),
        ([b"\x20\x20\x20\x82"], HPACKError),
        ([b"\x3f\xe2\x1f"], HPACKError),
        ([INSERT, b"\x20\x3f\xe1\x1f\xbe"], HPACKError),
        ([OF_A_KILOBYTE, b"\xbe"], None),
        ([OF_A_KILOBYTE, b"\xbe\xbe"], OversizedHeaderListError),
        ([OF_A_KILOBYTE, b"\xbe\xbe\xff"], OversizedHeaderListError),
        ([OF_A_KILOBYTE, b"\xbe\xff"], HPACKError),
        (
            [OF_A_KILOBYTE, b"\xbe\x00\x7f\x80\x00" + b"n" * 127 + b"\x7f\x80\x01" + b"v" * 255],
            OversizedHeaderListError,
        ),
        ([OF_A_KILOBYTE, b"\xbe\x00\x01n\x7f\x80\x03" + b"v" * 511 + b"\xff"], OversizedHeaderListError),
        ([b"\x00\x01n\x7f\x80\x01" + b"v" * 255], None),
        ([b"\x82" * 2_000], OversizedHeaderListError),
        ([b"\x82" * 1_000 + b"\xff"], OversizedHeaderListError),
    ],
    ids=lambda value: b" ".join(value)[:20].hex() if isinstance(value, list) else None,
)
def test_what_ends_a_block(blocks: list[bytes], error: type[HPACKError] | None) -> None:
    assert compare(blocks)[-1].error is error


COMPARED = [slot for slot in Headers.__slots__ if slot not in ("derived", "untimed")]


def same(ours: Headers, fields: list[Field]) -> bool:
    whole = Headers(fields)
    return all(getattr(ours, slot) == getattr(whole, slot) for slot in COMPARED)


fields_of_requests = st.tuples(
    st.sampled_from([b":path", b"te", b"grpc-timeout", b"grpc-timeout"]),
    st.sampled_from([b"/", b"trailers", b"5S", b"5u", b" x", b"", b"v" * 250]),
    st.booleans(),
)
requests_with_timeouts = st.lists(
    st.builds(
        Block, st.lists(fields_of_requests, max_size=6), st.booleans(), st.just([]), st.just([]), st.integers(1, 2)
    ),
    min_size=1,
    max_size=12,
)


@hypothesis_settings(deadline=None, max_examples=300)
@given(st.lists(clean_blocks, max_size=12) | requests_with_timeouts)
def test_headers_are_the_same_whatever_is_remembered(requests: list[Block]) -> None:
    """Also where `grpc-timeout` stands in odd places, twice or with odd values."""
    encoder = hpack.Encoder()
    reference, ours = Reference(), BlockDecoder(Limits(max_header_list_bytes=LIMIT_BYTES // 2))
    for block in [block for request in requests for block in encode(encoder, request)]:
        expected = reference.decode(block)
        if expected.error is not None:
            assert expected.error is OversizedHeaderListError
            with pytest.raises(Violation) as caught:
                ours.decode(block)
            assert caught.value.code == ErrorCode.ENHANCE_YOUR_CALM
            return
        assert expected.fields is not None
        headers = ours.decode(block)
        assert same(headers, expected.fields)
        if headers.untimed is not None:
            rest = [field for field in expected.fields if field[0] != b"grpc-timeout"]
            assert len(rest) == len(expected.fields) - 1 and same(headers.untimed, rest)
