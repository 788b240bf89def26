"""Whatever comes: nothing is raised, what is sent is well formed, and what is remembered is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from quorate.net.http2 import frames
from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.connection import Connection, Role
from quorate.net.http2.events import ConnectionFailed, DataReceived, Event, RequestReceived
from quorate.net.http2.headers import encode
from quorate.net.http2.limits import Limits
from tests.net.http2.ends import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    WHOLE,
    Frame,
    data,
    headers,
    parse,
    ping,
    rst,
    settings,
    window,
)

LIMITS = Limits(
    max_streams=8, stream_window_bytes=65_535, connection_window_bytes=65_535, reset_burst=20, control_burst=60
)

stream_ids = st.sampled_from([0, 1, 3, 5, 7, 2, 9, 101, 2**31 - 1])
blocks = st.one_of(
    st.sampled_from([REQUEST, RESPONSE, TRAILERS, b"", b"\xbe", REQUEST + encode([("content-length", "3")])]),
    st.binary(max_size=40),
)
some_settings = st.lists(st.tuples(st.integers(0, 8), st.sampled_from([0, 1, 16_384, 70_000])))
likely = st.one_of(
    st.builds(headers, stream_ids, blocks, st.sampled_from([0, 1, 4, 5, 12, 36, 45])),
    st.builds(data, stream_ids, st.binary(max_size=300) | st.just(bytes(5_000)), st.sampled_from([0, 1, 8, 9])),
    st.builds(window, stream_ids, st.sampled_from([0, 1, 1_000, 2**31 - 1])),
    st.builds(rst, stream_ids, st.integers(0, 2**32 - 1)),
    st.builds(Frame, st.just(frames.CONTINUATION), st.sampled_from([0, 4]), stream_ids, blocks),
    some_settings.map(lambda values: settings(*values)),
    st.builds(Frame, st.integers(0, 11), st.integers(0, 255), stream_ids, st.binary(max_size=20)),
    st.just(ping()),
)


def drive(connection: Connection, events: list[Event]) -> None:
    """A layer above that uses every verb, whatever it is told."""
    for event in events:
        if isinstance(event, RequestReceived | DataReceived):
            connection.consumed(event.stream_id, len(event.data))
        if isinstance(event, RequestReceived):
            kind = event.stream_id % 3
            if kind == 0:
                connection.send_response(event.stream_id, WHOLE, b"x" * 30_000)
            elif kind == 1:
                connection.send_headers(event.stream_id, RESPONSE, False)
                connection.send_data(event.stream_id, b"y" * 20_000, False)
            else:
                connection.reset(event.stream_id, ErrorCode.CANCEL)


def check(connection: Connection, wire: bytes, cuts: list[int]) -> None:
    queued_before_failure = 0
    position = turn = 0
    while position < len(wire):
        size = cuts[turn % len(cuts)]
        turn += 1
        events = connection.receive(wire[position : position + size], turn * 0.001)
        position += size
        for index, event in enumerate(events):
            assert index == len(events) - 1 or not isinstance(event, ConnectionFailed)
        drive(connection, events)
        parse(connection.take_output())
        assert connection.open_streams <= LIMITS.max_streams
        queued_before_failure = max(queued_before_failure, connection.queued_total())
        if connection.has_failed:
            assert connection.open_streams == connection.queued_total() == 0
    assert queued_before_failure <= LIMITS.max_streams * 30_000


@hypothesis_settings(deadline=None)
@given(st.lists(likely, max_size=60), st.lists(st.integers(1, 3_000), min_size=1, max_size=10))
def test_any_frames_for_a_server(sent: list[Frame], cuts: list[int]) -> None:
    connection = Connection(Role.SERVER, LIMITS)
    check(connection, frames.PREFACE + bytes(settings()) + b"".join(map(bytes, sent)), cuts)


@hypothesis_settings(deadline=None)
@given(st.lists(likely, max_size=60), st.lists(st.integers(1, 3_000), min_size=1, max_size=10))
def test_any_frames_for_a_client(sent: list[Frame], cuts: list[int]) -> None:
    connection = Connection(Role.CLIENT, LIMITS)
    for number in range(4):
        stream_id = connection.open_stream(REQUEST, number % 2 == 0)
        connection.send_data(stream_id, b"x" * 30_000, number == 1)
    check(connection, bytes(settings()) + b"".join(map(bytes, sent)), cuts)


@hypothesis_settings(deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(garbage: bytes, with_preface: bool) -> None:
    connection = Connection(Role.SERVER, LIMITS)
    check(connection, frames.PREFACE + bytes(settings()) + garbage if with_preface else garbage, [7])


def valid_traffic() -> bytes:
    """A client's bytes: handshake, calls of all sorts, a cancellation, windows, headers in parts."""
    client = Connection(Role.CLIENT, LIMITS)
    for number in range(6):
        stream_id = client.open_stream(REQUEST, number == 0)
        client.send_data(stream_id, b"body" * 50 * number, number != 3)
        if number == 3:
            client.send_headers(stream_id, TRAILERS, True)
        if number == 4:
            client.reset(stream_id, ErrorCode.CANCEL)
    client.ping(b"12345678")
    parts = [
        headers(101, REQUEST[:9], 0),
        Frame(frames.CONTINUATION, 4, 101, REQUEST[9:]),
        window(0, 9),
        window(101, 5),
    ]
    return client.take_output() + b"".join(map(bytes, parts))


@hypothesis_settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
    st.lists(st.integers(1, 400), min_size=1, max_size=10),
    st.sampled_from(["change", "delete", "insert"]),
)
def test_valid_traffic_with_a_few_bytes_wrong(mutations: list[tuple[int, int]], cuts: list[int], way: str) -> None:
    wire = bytearray(valid_traffic())
    for place, value in mutations:
        place %= len(wire)
        if way == "change":
            wire[place] = value
        elif way == "delete":
            del wire[place]
        else:
            wire.insert(place, value)
    check(Connection(Role.SERVER, LIMITS), bytes(wire), cuts)


def test_the_traffic_that_is_mutated_is_valid() -> None:
    connection = Connection(Role.SERVER, LIMITS)
    events = connection.receive(valid_traffic(), 0.0)
    assert not connection.has_failed and sum(isinstance(event, RequestReceived) for event in events) == 7


@hypothesis_settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_header_block(block: bytes) -> None:
    connection = Connection(Role.SERVER, LIMITS)
    check(connection, frames.PREFACE + bytes(settings()) + bytes(headers(1, block)) + bytes(headers(3)), [10_000])


def test_memory_of_streams_that_are_over_is_bounded() -> None:
    """However many streams come and go, by whatever end, little is kept of them."""
    connection = Connection(Role.SERVER, Limits(reset_burst=10**6))
    connection.receive(frames.PREFACE + bytes(settings()), 0.0)
    for number in range(5_000):
        stream_id = 2 * number + 1
        ends = (rst(stream_id), headers(stream_id, TRAILERS, 5), window(stream_id, 0))
        connection.receive(bytes(headers(stream_id)) + bytes(ends[number % 3]), number * 1.0)
        connection.send_response(stream_id, WHOLE, b"x")
        connection.take_output()
    kept = [value for value in vars(connection).values() if isinstance(value, dict)]
    assert kept and max(map(len, kept)) <= 1_000
