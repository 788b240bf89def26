"""Header blocks: what we send, and what is remembered of what comes."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from quorate.net.http2.codes import Violation
from quorate.net.http2.events import RequestReceived
from quorate.net.http2.headers import BlockDecoder, Headers, encode
from quorate.net.http2.limits import Limits
from tests.net.http2.ends import REQUEST_PAIRS, Bench, headers


def test_golden_blocks() -> None:
    assert encode([(":status", "200")]) == b"\x88"
    assert encode([(":method", "POST"), (":scheme", "http"), (":path", "/a")]) == b"\x83\x86\x04\x02/a"
    assert encode([("content-type", "application/grpc")]) == b"\x0f\x10\x10application/grpc"
    assert encode([("grpc-status", "0")]) == b"\x00\x0bgrpc-status\x010"


names = st.from_regex(r"[a-z][a-z0-9\-]{0,20}", fullmatch=True)
values = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=300)


@hypothesis_settings(deadline=None)
@given(st.lists(st.tuples(names, values), max_size=20))
def test_blocks_say_what_was_put_in_and_change_no_table(pairs: list[tuple[str, str]]) -> None:
    block = encode(pairs)
    decoder = hpack.Decoder()
    for _ in range(2):
        decoded = [(bytes(n).decode("latin-1"), bytes(v).decode("latin-1")) for n, v in decoder.decode(block, raw=True)]
        assert decoded == pairs
    assert not decoder.header_table.dynamic_entries
    assert Headers([(name.encode(), value.encode("latin-1")) for name, value in pairs]).fields == tuple(pairs)


def test_a_header_that_may_not_be_sent_is_our_own_bug() -> None:
    for pair in (("Name", "x"), ("name", "a\nb"), ("na me", "x"), ("name", " x")):
        with pytest.raises(AssertionError):
            encode([pair])


def test_repeated_headers_are_the_same_object() -> None:
    """As real clients send them: added to the table first, then by index alone."""
    bench = Bench()
    encoder = hpack.Encoder()
    blocks = [encoder.encode(REQUEST_PAIRS) for _ in range(4)]
    assert blocks[1] == blocks[2] != blocks[0]
    seen = []
    for number, block in enumerate(blocks):
        (event,) = bench.send(headers(2 * number + 1, block))
        assert isinstance(event, RequestReceived) and event.headers.path == "/etcdserverpb.KV/Range"
        seen.append(event.headers)
    assert seen[1] is seen[2] is seen[3]


def test_literals_that_leave_the_table_alone_are_remembered_too() -> None:
    """nghttp2 never indexes :path and content-length."""
    decoder = BlockDecoder(Limits())
    block = b"\x83\x86\x04\x02/a"
    assert decoder.decode(block) is decoder.decode(block)


def test_the_memory_ends_when_the_table_changes() -> None:
    decoder = BlockDecoder(Limits())
    add = b"\x40\x01n\x01"
    decoder.decode(add + b"1")
    first = decoder.decode(b"\xbe")
    assert first.fields == (("n", "1"),) and decoder.decode(b"\xbe") is first
    decoder.decode(add + b"2")
    assert decoder.decode(b"\xbe").fields == (("n", "2"),), "the same index means another field now"
    decoder.decode(b"\x20\x3f\xe1\x1f")  # the table shrinks to nothing and grows again
    with pytest.raises(Violation):
        decoder.decode(b"\xbe")


@hypothesis_settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=6), max_size=40))
def test_what_is_remembered_is_what_would_be_decoded(requests: list[list[str]]) -> None:
    encoder = hpack.Encoder()
    encoder.header_table_size = 100  # room for two entries: they are evicted all the time
    decoder = BlockDecoder(Limits())
    for request in requests:
        pairs = tuple((name, name) for name in request)
        assert decoder.decode(encoder.encode(pairs)).fields == pairs


def test_what_is_remembered_is_bounded() -> None:
    decoder = BlockDecoder(Limits())
    for number in range(2_000):
        decoder.decode(b"\0\1n\4%4d" % number)
        assert len(decoder.cached) <= 256
    for number in range(200):
        decoder.decode(encode([("n", "x" * 10_000), ("m", str(number))]))
        assert sum(map(len, decoder.cached)) < 300_000
