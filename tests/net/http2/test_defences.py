"""Each known way of making a server work or remember for little: it trips its limit, and honest use does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorate.net.http2 import frames
from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.connection import Role
from quorate.net.http2.events import DataReceived, RequestReceived, ResponseReceived, StreamReset
from quorate.net.http2.headers import encode
from quorate.net.http2.limits import Limits
from tests.net.http2.ends import (
    REQUEST,
    WHOLE,
    Bench,
    Frame,
    Pair,
    data,
    failure,
    headers,
    of_type,
    ping,
    request,
    rst,
    settings,
    window,
)

CALM = ErrorCode.ENHANCE_YOUR_CALM
LIMITS = Limits(reset_burst=50, reset_rate=10.0, control_burst=100, control_rate=20.0)


def flood(bench: Bench, make: Callable[[int], list[Frame]], rounds: int) -> int:
    """In how many rounds the connection ended; `rounds` + 1 where it did not."""
    for number in range(rounds):
        failed = failure(bench.send(*make(number)))
        if failed is not None:
            assert failed.code == CALM
            assert bench.answers()[-1].kind == frames.GOAWAY
            return number + 1
    return rounds + 1


def test_rapid_reset_ends_the_connection() -> None:
    bench = Bench(limits=LIMITS)
    assert flood(bench, lambda number: [headers(2 * number + 1), rst(2 * number + 1)], 1_000) == 51


def test_streams_that_a_client_makes_us_reset_count_alike() -> None:
    """As in "MadeYouReset": a window opened by 0, a malformed request, data on a stream that is over."""
    for make in (
        lambda number: [headers(2 * number + 1), window(2 * number + 1, 0)],
        lambda number: [headers(2 * number + 1, b"\x83")],
        lambda number: [*request(2 * number + 1), data(2 * number + 1, b"x")],
    ):
        assert flood(Bench(limits=LIMITS), make, 1_000) == 51


def test_resets_now_and_then_are_fine() -> None:
    bench = Bench(limits=LIMITS)

    def cancel_ten_in_a_second(number: int) -> list[Frame]:
        bench.now_s += 1.0
        ids = [20 * number + 2 * index + 1 for index in range(10)]
        return [frame for stream_id in ids for frame in (headers(stream_id), rst(stream_id))]

    assert flood(bench, cancel_ten_in_a_second, 100) == 101


def test_a_client_may_cancel_all_of_its_streams_at_once() -> None:
    bench = Bench()
    ids = range(1, 2 * Limits().max_streams, 2)
    assert failure(bench.send(*map(headers, ids))) is None
    events = bench.send(*map(rst, ids))
    assert failure(events) is None and len(of_type(StreamReset, events)) == 1_000


FLOODS = {
    "PING": [ping()],
    "PING acknowledgements": [ping(flags=frames.ACK)],
    "SETTINGS": [settings()],
    "SETTINGS acknowledgements": [Frame(frames.SETTINGS, frames.ACK, 0)],
    "PRIORITY": [Frame(frames.PRIORITY, 0, 1, bytes(5))],
    "the connection's window": [window(0, 1)],
    "a stream's window": [window(1, 1)],
    "the window of a stream that is over": [window(3, 1)],
    "empty DATA": [data(1)],
    "DATA that is all padding": [data(1, b"\5" + bytes(5), frames.PADDED)],
    "RST_STREAM of a stream that is over": [rst(3)],
    "GOAWAY": [Frame(frames.GOAWAY, 0, 0, bytes(8))],
    "unknown frames": [Frame(99, 0, 0)],
    "data on a stream that we have reset": [data(5, b"x")],
    "headers on a stream that we have reset": [headers(5)],
}


@pytest.mark.parametrize("frames_sent", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_of_frames_that_bring_nothing_ends_the_connection(frames_sent: list[Frame]) -> None:
    bench = Bench(limits=LIMITS)
    bench.send(headers(1), *request(3), headers(5))
    bench.connection.send_response(3, WHOLE, b"")
    bench.connection.reset(5, ErrorCode.CANCEL)
    rounds = flood(bench, lambda _: frames_sent, 1_000)
    assert 98 <= rounds <= 104
    assert len(bench.connection.take_output()) == 0


def test_a_flood_in_one_piece_is_answered_in_bounds() -> None:
    bench = Bench(limits=LIMITS)
    assert failure(bench.send(*[ping()] * 5_000)) is not None
    assert len(bench.answers()) <= 101


def test_a_long_silence_buys_no_larger_flood() -> None:
    bench = Bench(limits=LIMITS)
    bench.send(ping())
    bench.now_s += 1_000_000.0
    assert flood(bench, lambda _: [ping()], 1_000) == 101


@pytest.mark.parametrize("frames_sent", [FLOODS["PING"], FLOODS["SETTINGS"], FLOODS["the connection's window"]])
def test_such_frames_at_a_human_pace_are_fine(frames_sent: list[Frame]) -> None:
    bench = Bench(limits=LIMITS)

    def twenty_a_second(number: int) -> list[Frame]:
        bench.now_s += 1.0
        return frames_sent * 20

    assert flood(bench, twenty_a_second, 100) == 101


def test_a_reader_who_opens_windows_for_each_frame_is_fine() -> None:
    """As simple clients do: two WINDOW_UPDATEs for each DATA frame, and a PING to measure the line."""
    bench = Bench(limits=LIMITS)
    for number in range(50):
        stream_id = 2 * number + 1
        bench.send(*request(stream_id))
        bench.connection.send_response(stream_id, WHOLE, b"x" * 200_000)
        while sizes := [len(answer.payload) for answer in bench.answers() if answer.kind == frames.DATA]:
            for size in sizes:
                assert failure(bench.send(window(0, size), window(stream_id, size), ping())) is None
        assert bench.connection.open_streams == 0


def test_a_reader_who_opens_windows_by_single_bytes_is_not() -> None:
    bench = Bench(limits=LIMITS, peer_settings=[(frames.SETTINGS_INITIAL_WINDOW_SIZE, 0)])
    bench.send(*request(1))
    bench.connection.send_response(1, WHOLE, b"x" * 40_000)
    assert flood(bench, lambda _: [window(1, 1)], 1_000) == 100, "the first SETTINGS counted, too"
    assert bench.connection.queued_total() == bench.connection.open_streams == 0


def test_moving_the_windows_of_many_streams_costs_more() -> None:
    bench = Bench(limits=Limits(control_burst=1_000, control_rate=20.0))
    bench.send(*map(headers, range(1, 1_600, 2)))
    assert flood(bench, lambda number: [settings((4, 1_000 + number % 2))], 1_000) < 25


def test_one_frame_of_settings_moves_windows_once() -> None:
    """It has room for 2,730 changes."""
    bench = Bench()
    bench.send(headers(1))
    bench.connection.send_data(1, b"x" * 65_535, False)
    bench.connection.send_data(1, b"y" * 10, False)
    bench.send(window(0, 10))
    bench.answers()
    assert failure(bench.send(settings(*[(4, 0), (4, 65_540)] * 1_365))) is None
    assert [len(frame.payload) for frame in bench.answers() if frame.kind == frames.DATA] == [5]


def test_a_block_of_many_continuations_ends_the_connection() -> None:
    for part, allowed in ((b"", 32), (b"x", 32), (bytes(16_384), 4)):
        bench = Bench()
        bench.send(headers(1, b"", 0))
        rounds = flood(bench, lambda _, part=part: [Frame(frames.CONTINUATION, 0, 1, part)], 1_000)  # type: ignore[misc]
        assert rounds in (allowed, allowed + 1)


def test_a_block_of_some_continuations_is_fine() -> None:
    bench = Bench()
    block = REQUEST + encode([("n", "v")] * 200)
    parts = [block[start : start + 40] for start in range(0, len(block), 40)]
    sent = [headers(1, parts[0], 0), *(Frame(frames.CONTINUATION, 0, 1, part) for part in parts[1:])]
    sent.append(Frame(frames.CONTINUATION, frames.END_HEADERS, 1))
    assert len(sent) <= 32
    (event,) = bench.send(*sent)
    assert isinstance(event, RequestReceived) and len(event.headers.fields) == 202


def test_a_header_bomb_ends_the_connection() -> None:
    """One large entry of the table, named by a byte each time."""
    bomb = b"\x40\x01n\x7f" + b"\xa1\x1e" + b"x" * 4_000 + b"\xbe" * 10_000
    bench = Bench()
    failed = failure(bench.send(headers(1, REQUEST + bomb)))
    assert failed is not None and failed.code == CALM


def test_headers_somewhat_too_long_cost_their_stream_only() -> None:
    limits = Limits(max_header_list_bytes=1_000)
    bench = Bench(limits=limits)
    block = REQUEST + encode([("n", "x" * 900)])
    events = bench.send(headers(1, block), data(1, b"x", frames.END_STREAM), *request(3), headers(5))
    assert [event.stream_id for event in of_type(RequestReceived, events)] == [3, 5]
    assert bench.resets() == [(1, CALM)]
    assert bench.send(headers(5, encode([("n", "x" * 1_100)]), 5)) == [StreamReset(5, CALM, False)]


def test_one_stream_too_many_is_refused_and_the_others_go_on() -> None:
    bench = Bench(limits=Limits(max_streams=3))
    events = bench.send(headers(1), headers(3), headers(5), *request(7))
    assert len(of_type(RequestReceived, events)) == 3 and failure(events) is None
    assert bench.resets() == [(7, ErrorCode.REFUSED_STREAM)]
    bench.send(data(1, b"", frames.END_STREAM))
    bench.connection.send_response(1, WHOLE, b"")
    assert len(of_type(RequestReceived, bench.send(*request(9)))) == 1


def test_a_flood_of_refused_streams_ends_the_connection() -> None:
    bench = Bench(limits=Limits(max_streams=1, control_burst=100))
    bench.send(headers(1))
    assert flood(bench, lambda number: request(2 * number + 3), 1_000) == 50, "headers and data of each"


def test_a_server_that_refuses_many_streams_keeps_its_client() -> None:
    """Resets are counted against clients: a server can only reset what the client has opened."""
    bench = Bench(Role.CLIENT, LIMITS)
    for _ in range(80):
        stream_id = bench.connection.open_stream(REQUEST, True)
        assert bench.send(rst(stream_id)) == [StreamReset(stream_id, ErrorCode.CANCEL, True)]


def test_what_a_stream_may_send_unread_is_bounded() -> None:
    pair = Pair(server=Limits(stream_window_bytes=100_000, connection_window_bytes=150_000))
    pair.consumes = False
    ids = [pair.client.open_stream(REQUEST, False) for _ in range(3)]
    pair.run()
    for stream_id in ids:
        pair.client.send_data(stream_id, bytes(1_000_000), True)
    pair.run()
    received = [len(event.data) for event in of_type(DataReceived, pair.server_events)]
    assert sum(received) == 150_000


def test_an_announced_frame_is_refused_before_it_has_come() -> None:
    bench = Bench()
    events = bench.connection.receive(frames.HEAD.pack(16_385 << 8, 0, 1), 0.0)
    failed = failure(events)
    assert failed is not None and failed.code == ErrorCode.FRAME_SIZE_ERROR


def test_honest_traffic_of_every_kind_trips_nothing() -> None:
    """Ten thousand calls with the default limits and without a second passing."""
    pair = Pair()
    pair.run()
    for _ in range(100):
        ids = [pair.client.open_stream(REQUEST, False) for _ in range(100)]
        for stream_id in ids:
            pair.client.send_data(stream_id, b"question", True)
        pair.run()
        for stream_id in ids:
            pair.server.send_response(stream_id, WHOLE, b"answer")
        pair.run()
    assert not pair.client.has_failed and not pair.server.has_failed
    assert len(of_type(ResponseReceived, pair.client_events)) == 10_000
