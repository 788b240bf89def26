"""What a peer may not do, section by section of RFC 9113, and what it hears then."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from quorate.net.http2 import frames
from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.connection import Connection, Role
from quorate.net.http2.events import ConnectionFailed, RequestReceived, StreamReset
from quorate.net.http2.headers import encode
from quorate.net.http2.limits import Limits
from tests.net.http2.ends import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    Bench,
    Frame,
    data,
    failure,
    headers,
    of_type,
    parse,
    ping,
    request,
    rst,
    settings,
    window,
)

END = frames.END_STREAM
WHOLE = frames.END_HEADERS | END
COUNTED = REQUEST + encode([("content-length", "4")])
"""A request that promises four bytes."""


@dataclass(frozen=True)
class Rule:
    section: str
    what: str
    sent: tuple[Frame, ...]
    code: ErrorCode
    stream_id: int = 0
    """Where 0, the connection ends."""


def literal(name: bytes, value: bytes) -> bytes:
    """A field as it stands, whatever `encode` thinks of it."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


SERVER_RULES = [
    Rule("4.2", "a frame too long", (data(1, bytes(16_385)),), ErrorCode.FRAME_SIZE_ERROR),
    Rule("4.2", "RST_STREAM too short", (headers(1), Frame(3, 0, 1, bytes(3))), ErrorCode.FRAME_SIZE_ERROR),
    Rule("4.3", "a block that is no HPACK", (headers(1, b"\xff\xff\xff"),), ErrorCode.COMPRESSION_ERROR),
    Rule("4.3", "an index of nothing", (headers(1, b"\xfe"),), ErrorCode.COMPRESSION_ERROR),
    Rule("4.3", "a string that goes on beyond", (headers(1, b"\x00\x7f"),), ErrorCode.COMPRESSION_ERROR),
    Rule(
        "4.3", "a bad block of a stream that is over", (*request(1), headers(1, b"\xfe")), ErrorCode.COMPRESSION_ERROR
    ),
    Rule("4.3", "a table larger than allowed", (headers(1, b"\x3f\xe2\x1f" + REQUEST),), ErrorCode.COMPRESSION_ERROR),
    Rule("4.3", "three changes of the table", (headers(1, b"\x20\x20\x20" + REQUEST),), ErrorCode.COMPRESSION_ERROR),
    Rule("4.3", "a change of the table within", (headers(1, REQUEST + b"\x20"),), ErrorCode.COMPRESSION_ERROR),
    Rule("4.3", "DATA within a block", (headers(1, REQUEST, 0), data(1)), ErrorCode.PROTOCOL_ERROR),
    Rule("4.3", "an unknown frame within a block", (headers(1, REQUEST, 0), Frame(99, 0, 1)), ErrorCode.PROTOCOL_ERROR),
    Rule("5.1", "DATA on an idle stream", (data(1, b"x"),), ErrorCode.PROTOCOL_ERROR),
    Rule("5.1", "RST_STREAM on an idle stream", (rst(1),), ErrorCode.PROTOCOL_ERROR),
    Rule("5.1", "WINDOW_UPDATE on an idle stream", (window(1, 1),), ErrorCode.PROTOCOL_ERROR),
    Rule("5.1", "DATA on a half-closed stream", (*request(1), data(1, b"x")), ErrorCode.STREAM_CLOSED, 1),
    Rule("5.1", "trailers on a half-closed stream", (*request(1), headers(1)), ErrorCode.STREAM_CLOSED, 1),
    Rule("5.1", "DATA on a stream it has reset", (headers(1), rst(1), data(1, b"x")), ErrorCode.STREAM_CLOSED, 1),
    Rule("5.1", "headers on a stream it has reset", (headers(1), rst(1), headers(1)), ErrorCode.STREAM_CLOSED),
    Rule("5.1.1", "a stream of the server's", (headers(2),), ErrorCode.PROTOCOL_ERROR),
    Rule("5.1.1", "a stream left out, behind a later one", (headers(5), headers(3)), ErrorCode.PROTOCOL_ERROR),
    Rule("5.1.1", "one left out between two", (*request(1), headers(9), headers(7)), ErrorCode.PROTOCOL_ERROR),
    Rule(
        "5.1.1",
        "a stream used, behind a later one",
        (headers(3), rst(3), headers(7), headers(3)),
        ErrorCode.STREAM_CLOSED,
    ),
    Rule("5.1.1", "DATA on a stream left out", (headers(5), rst(5), data(3, b"x")), ErrorCode.STREAM_CLOSED, 3),
    Rule("5.1.1", "headers on stream 0", (headers(0),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.1", "DATA on stream 0", (data(0, b"x"),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.1", "padding longer than the frame", (headers(1), data(1, b"\5abc", 8)), ErrorCode.PROTOCOL_ERROR),
    Rule("6.1", "padded without a length", (headers(1), data(1, b"", 8)), ErrorCode.PROTOCOL_ERROR),
    Rule("6.2", "padding longer than the block", (headers(1, b"\x09abc", 12),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.2", "priority fields cut off", (headers(1, bytes(4), 36),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.3", "PRIORITY on stream 0", (Frame(2, 0, 0, bytes(5)),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.3", "PRIORITY of a wrong length", (headers(1), Frame(2, 0, 1, bytes(4))), ErrorCode.FRAME_SIZE_ERROR, 1),
    Rule("6.4", "RST_STREAM on stream 0", (rst(0),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.5", "an acknowledgement with content", (Frame(4, 1, 0, bytes(6)),), ErrorCode.FRAME_SIZE_ERROR),
    Rule("6.5", "SETTINGS on a stream", (Frame(4, 0, 1),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.5", "SETTINGS cut off", (Frame(4, 0, 0, bytes(5)),), ErrorCode.FRAME_SIZE_ERROR),
    Rule("6.5.2", "ENABLE_PUSH of 2", (settings((2, 2)),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.5.2", "a window of 2^31", (settings((4, 1 << 31)),), ErrorCode.FLOW_CONTROL_ERROR),
    Rule("6.5.2", "frames too small", (settings((5, 16_383)),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.5.2", "frames too large", (settings((5, 1 << 24)),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.5.2", "bad, then good", (settings((5, 1), (5, 16_384)),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.6", "PUSH_PROMISE", (headers(1), Frame(5, 4, 1, bytes(4) + REQUEST)), ErrorCode.PROTOCOL_ERROR),
    Rule("6.7", "PING on a stream", (Frame(6, 0, 1, bytes(8)),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.7", "PING of seven bytes", (ping(bytes(7)),), ErrorCode.FRAME_SIZE_ERROR),
    Rule("6.8", "GOAWAY on a stream", (Frame(7, 0, 1, bytes(8)),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.8", "GOAWAY cut off", (Frame(7, 0, 0, bytes(7)),), ErrorCode.FRAME_SIZE_ERROR),
    Rule("6.9", "WINDOW_UPDATE of a wrong length", (Frame(8, 0, 0, bytes(3)),), ErrorCode.FRAME_SIZE_ERROR),
    Rule("6.9", "the connection's window opened by 0", (window(0, 0),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.9", "a stream's window opened by 0", (headers(1), window(1, 0)), ErrorCode.PROTOCOL_ERROR, 1),
    Rule("6.9.1", "the connection's window too wide", (window(0, 2**31 - 1),), ErrorCode.FLOW_CONTROL_ERROR),
    Rule("6.9.1", "a stream's too wide", (headers(1), window(1, 2**31 - 1)), ErrorCode.FLOW_CONTROL_ERROR, 1),
    Rule(
        "6.9.2",
        "a window too wide by SETTINGS",
        (headers(1), window(1, 2**31 - 1 - 65_535), settings((4, 65_536))),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    Rule("6.10", "CONTINUATION of nothing", (headers(1), Frame(9, 4, 1, REQUEST)), ErrorCode.PROTOCOL_ERROR),
    Rule("6.10", "CONTINUATION elsewhere", (headers(1, REQUEST, 0), Frame(9, 4, 3)), ErrorCode.PROTOCOL_ERROR),
    Rule("8.1", "trailers that end nothing", (headers(1), headers(1, TRAILERS)), ErrorCode.PROTOCOL_ERROR, 1),
    Rule("8.1", "pseudo-headers in trailers", (headers(1), headers(1, RESPONSE, WHOLE)), ErrorCode.PROTOCOL_ERROR, 1),
    Rule("8.1.1", "content-length without content", (headers(1, COUNTED, WHOLE),), ErrorCode.PROTOCOL_ERROR, 1),
    Rule("8.1.1", "less than content-length", (headers(1, COUNTED), data(1, b"abc", END)), ErrorCode.PROTOCOL_ERROR, 1),
    Rule("8.1.1", "more than content-length", (headers(1, COUNTED), data(1, b"abcde")), ErrorCode.PROTOCOL_ERROR, 1),
    Rule(
        "8.1.1",
        "trailers before content-length",
        (headers(1, COUNTED), data(1, b"abc"), headers(1, TRAILERS, WHOLE)),
        ErrorCode.PROTOCOL_ERROR,
        1,
    ),
]

CLIENT_RULES = [
    Rule("5.1", "headers on an idle stream", (headers(3, RESPONSE),), ErrorCode.PROTOCOL_ERROR),
    Rule("5.1.1", "a stream of the server's", (headers(2, RESPONSE),), ErrorCode.PROTOCOL_ERROR),
    Rule("6.5.2", "ENABLE_PUSH of a server", (settings((2, 1)),), ErrorCode.PROTOCOL_ERROR),
    Rule("8.1", "data before headers", (data(1, b"x"),), ErrorCode.PROTOCOL_ERROR, 1),
    Rule("8.1", "interim headers as end", (headers(1, encode([(":status", "100")]), 5),), ErrorCode.PROTOCOL_ERROR, 1),
    Rule("8.4", "PUSH_PROMISE though refused", (Frame(5, 4, 1, bytes(4) + REQUEST),), ErrorCode.PROTOCOL_ERROR),
    Rule("8.3.2", "no status", (headers(1, TRAILERS),), ErrorCode.PROTOCOL_ERROR, 1),
    Rule("8.3.2", "a status of letters", (headers(1, encode([(":status", "abc")])),), ErrorCode.PROTOCOL_ERROR, 1),
    Rule("8.3.2", "a request as response", (headers(1),), ErrorCode.PROTOCOL_ERROR, 1),
    Rule("8.6", "switching protocols", (headers(1, encode([(":status", "101")])),), ErrorCode.PROTOCOL_ERROR, 1),
]  # fmt: skip

MALFORMED_REQUESTS = {
    "8.2.1 upper case": REQUEST + literal(b"Name", b"x"),
    "8.2.1 a space in a name": REQUEST + literal(b"na me", b"x"),
    "8.2.1 no name": REQUEST + literal(b"", b"x"),
    "8.2.1 a colon within a name": REQUEST + literal(b"na:me", b"x"),
    "8.2.1 a name beyond ASCII": REQUEST + literal(b"n\xc3\xa4me", b"x"),
    "8.2.1 a line feed in a value": REQUEST + literal(b"name", b"x\ny"),
    "8.2.1 a NUL in a value": REQUEST + literal(b"name", b"x\0y"),
    "8.2.1 a space before a value": REQUEST + literal(b"name", b" x"),
    "8.2.1 a tab behind a value": REQUEST + literal(b"name", b"x\t"),
    "8.2.2 connection": REQUEST + literal(b"connection", b"close"),
    "8.2.2 transfer-encoding": REQUEST + literal(b"transfer-encoding", b"chunked"),
    "8.2.2 upgrade": REQUEST + literal(b"upgrade", b"h2c"),
    "8.2.2 te of something else": REQUEST + literal(b"te", b"gzip"),
    "8.3 an unknown pseudo-header": literal(b":protocol", b"x") + REQUEST,
    "8.3 a pseudo-header behind others": encode([(":method", "GET"), (":scheme", "http"), ("n", "v"), (":path", "/a")]),
    "8.3 a response's pseudo-header": RESPONSE + REQUEST,
    "8.3.1 no method": encode([(":scheme", "http"), (":path", "/a")]),
    "8.3.1 no scheme": encode([(":method", "POST"), (":path", "/a")]),
    "8.3.1 no path": encode([(":method", "POST"), (":scheme", "http")]),
    "8.3.1 an empty path": encode([(":method", "POST"), (":scheme", "http"), (":path", "")]),
    "8.3.1 two paths": encode([(":path", "/b")]) + REQUEST,
    "8.5 CONNECT": encode([(":method", "CONNECT"), (":authority", "x")]),
    "8.1.1 two content-lengths": REQUEST + literal(b"content-length", b"1") + literal(b"content-length", b"2"),
    "8.1.1 a content-length of letters": REQUEST + literal(b"content-length", b"x"),
    "8.1.1 a negative content-length": REQUEST + literal(b"content-length", b"-1"),
    "no headers at all": b"",
}


def check(rule: Rule, bench: Bench) -> None:
    events = bench.send(*rule.sent)
    if rule.stream_id:
        assert failure(events) is None
        assert bench.resets() == [(rule.stream_id, rule.code)]
        assert failure(bench.send(ping())) is None and bench.answers() == [ping(flags=frames.ACK)]
        assert bench.connection.open_streams == 0
    else:
        failed = events[-1]
        assert isinstance(failed, ConnectionFailed) and failed.code == rule.code, failed
        goaway = bench.answers()[-1]
        assert (goaway.kind, goaway.payload[4:8]) == (frames.GOAWAY, rule.code.to_bytes(4, "big"))
        assert goaway.payload[8:].decode() == failed.reason
        assert bench.send(ping()) == []
        assert bench.answers() == []


@pytest.mark.parametrize("rule", SERVER_RULES, ids=lambda rule: f"{rule.section} {rule.what}")
def test_a_client_that_breaks_a_rule(rule: Rule) -> None:
    check(rule, Bench())


@pytest.mark.parametrize("rule", CLIENT_RULES, ids=lambda rule: f"{rule.section} {rule.what}")
def test_a_server_that_breaks_a_rule(rule: Rule) -> None:
    bench = Bench(Role.CLIENT)
    assert bench.connection.open_stream(REQUEST, True) == 1
    bench.answers()
    check(rule, bench)


@pytest.mark.parametrize("block", MALFORMED_REQUESTS.values(), ids=MALFORMED_REQUESTS.keys())
def test_a_malformed_request_costs_its_stream_only(block: bytes) -> None:
    bench = Bench()
    events = bench.send(headers(1, block), data(1, b"x", END), *request(3))
    assert [event.stream_id for event in of_type(RequestReceived, events)] == [3]
    assert len(events) == 1, "the layer above never hears of it"
    assert bench.resets() == [(1, ErrorCode.PROTOCOL_ERROR)]


def test_a_stream_that_fails_is_told_once() -> None:
    bench = Bench()
    bench.send(headers(1))
    assert bench.send(window(1, 0), window(1, 0)) == [StreamReset(1, ErrorCode.PROTOCOL_ERROR, False)]


@pytest.mark.parametrize(
    "harmless",
    [
        pytest.param((settings((99, 1), (2, 0)),), id="6.5.2 unknown settings"),
        pytest.param((Frame(99, 255, 7, b"?"),), id="4.1 unknown frames"),
        pytest.param((Frame(2, 0, 7, bytes(5)),), id="6.3 PRIORITY on an idle stream"),
        pytest.param((*request(1), rst(1), rst(1), window(1, 5)), id="5.1 RST_STREAM and WINDOW_UPDATE afterwards"),
        pytest.param((headers(1, REQUEST + literal(b"te", b"trailers"), WHOLE),), id="8.2.2 te: trailers"),
        pytest.param((headers(1, COUNTED), data(1, b"ab"), data(1, b"cd", END)), id="8.1.1 content-length in parts"),
        pytest.param((headers(1, COUNTED), data(1, b"abcd"), headers(1, TRAILERS, WHOLE)), id="8.1.1 and trailers"),
        pytest.param((headers(1, COUNTED), data(1, b"abcd"), data(1, b"", END)), id="8.1.1 and an empty end"),
        pytest.param((headers(1), data(1, b"\0", 8)), id="6.1 only padding"),
        pytest.param((headers(101), headers(103)), id="5.1.1 ids left out"),
    ],
)
def test_what_is_allowed_breaks_nothing(harmless: tuple[Frame, ...]) -> None:
    bench = Bench()
    events = bench.send(*harmless)
    assert failure(events) is None and bench.resets() == []
    assert bench.send(ping()) == [] and bench.answers() == [ping(flags=frames.ACK)]


@pytest.mark.parametrize(("left_out", "code"), [(803, ErrorCode.PROTOCOL_ERROR), (3, ErrorCode.STREAM_CLOSED)])
def test_of_very_many_gaps_between_ids_the_latest_are_remembered(left_out: int, code: ErrorCode) -> None:
    bench = Bench()
    for stream_id in range(1, 1_000, 4):
        bench.send(headers(stream_id))
    failed = failure(bench.send(headers(left_out)))
    assert failed is not None and failed.code == code


def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    bench = Bench()
    events = bench.send(headers(1 | 1 << 31), data(1 | 1 << 31, b"x", END))
    assert {event.stream_id for event in of_type(RequestReceived, events)} == {1}
    assert bench.resets() == [] and failure(events) is None


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"G", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", b"\x16\x03\x01\x02\x00"],
)
def test_a_client_that_does_not_speak_http_2(garbage: bytes) -> None:
    connection = Connection(Role.SERVER, Limits())
    connection.take_output()
    assert failure(connection.receive(garbage, 0.0)) == ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "not HTTP/2")
    assert [frame.kind for frame in parse(connection.take_output())] == [frames.GOAWAY]


@pytest.mark.parametrize("first", [ping(), settings((5, 1)), Frame(frames.SETTINGS, frames.ACK, 0), headers(1)])
def test_the_first_frame_is_settings(first: Frame) -> None:
    connection = Connection(Role.SERVER, Limits())
    assert failure(connection.receive(frames.PREFACE + bytes(first), 0.0)) is not None
    assert not connection.has_started


def test_a_stream_window_overrun_costs_the_stream_and_a_connection_window_overrun_all() -> None:
    limits = Limits(stream_window_bytes=65_535, connection_window_bytes=131_070)
    bench = Bench(limits=limits)
    bench.send(headers(1), headers(3), headers(5))
    full = [data(1, bytes(16_384))] * 3 + [data(1, bytes(16_383))]
    bench.send(*full)
    assert bench.send(data(1, b"x"))[-1] == StreamReset(1, ErrorCode.FLOW_CONTROL_ERROR, False)
    assert bench.resets() == [(1, ErrorCode.FLOW_CONTROL_ERROR)]
    assert failure(bench.send(*(data(3, frame.payload) for frame in full[:3]))) is None
    failed = failure(bench.send(*(data(5, frame.payload) for frame in full)))
    assert failed is not None and failed.code == ErrorCode.FLOW_CONTROL_ERROR


def test_a_request_whose_body_overruns_the_connections_window_ends_it() -> None:
    """The way of a whole request in one piece minds the window, too."""
    bench = Bench(limits=Limits(stream_window_bytes=65_535, connection_window_bytes=65_535))
    for stream_id in (1, 3, 5, 7):
        events = bench.send(*request(stream_id, bytes(16_384)))
    assert failure(events) is not None
