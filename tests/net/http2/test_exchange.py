"""Two real ends against each other, and what they put on the line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from quorate.net.http2 import frames
from quorate.net.http2.codes import ErrorCode
from quorate.net.http2.connection import CannotOpenStream, Connection, Role
from quorate.net.http2.events import (
    DataReceived,
    Drained,
    GoAwayReceived,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    SettingsAcknowledged,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
)
from quorate.net.http2.headers import encode
from quorate.net.http2.limits import Limits
from quorate.net.http2.sending import ResponseForm
from tests.net.http2.ends import (
    REQUEST,
    RESPONSE,
    TRAILERS,
    WHOLE,
    Bench,
    Frame,
    Pair,
    body_of,
    data,
    failure,
    headers,
    of_type,
    parse,
    ping,
    request,
    settings,
    window,
)

SMALL = Limits(stream_window_bytes=65_535, connection_window_bytes=65_535)


def test_both_ends_shake_hands() -> None:
    pair = Pair()
    assert not pair.server.has_started
    pair.run()
    assert pair.server.has_started and pair.client.has_started
    assert pair.server_events == pair.client_events == [SettingsReceived(), SettingsAcknowledged()]


def test_golden_bytes_of_the_openings() -> None:
    limits = Limits(max_streams=10, connection_window_bytes=1 << 20, max_header_list_bytes=4_096)
    window_update = "000004 08 00 00000000 000f0001"
    common = "0004 00100000  0005 00004000  0006 00001000"
    assert Connection(Role.SERVER, limits).take_output() == bytes.fromhex(
        f"000018 04 00 00000000 {common} 0003 0000000a {window_update}"
    )
    assert Connection(Role.CLIENT, limits).take_output() == frames.PREFACE + bytes.fromhex(
        f"000018 04 00 00000000 {common} 0002 00000000 {window_update}"
    )


def test_golden_bytes_of_a_unary_answer() -> None:
    bench = Bench()
    bench.send(*request(1))
    bench.connection.send_response(1, ResponseForm(b"\x88", b"\x00\x01x\x01y"), b"hi")
    assert bench.connection.take_output() == bytes.fromhex(
        "000001 01 04 00000001 88"  # HEADERS, END_HEADERS
        "000002 00 00 00000001 6869"  # DATA
        "000005 01 05 00000001 0001780179"  # HEADERS, END_HEADERS and END_STREAM
    )


def test_an_answer_larger_than_any_frame_may_be_arrives() -> None:
    answer = bytes((1 << 24) + 1)
    pair = Pair()
    stream_id = pair.client.open_stream(REQUEST, True)
    pair.run()
    pair.server.send_response(stream_id, WHOLE, answer)
    pair.run()
    parts = [event.data for event in pair.client_events if isinstance(event, DataReceived)]
    assert b"".join(parts) == answer


def test_a_unary_call() -> None:
    pair = Pair()
    pair.run()
    stream_id = pair.client.open_stream(REQUEST, False)
    pair.client.send_data(stream_id, b"question", True)
    pair.run()
    (asked,) = of_type(RequestReceived, pair.server_events)
    assert (asked.stream_id, asked.data, asked.end_stream) == (1, b"question", True)
    assert (asked.headers.method, asked.headers.path) == ("POST", "/etcdserverpb.KV/Range")
    assert asked.headers.fields == (("content-type", "application/grpc"), ("te", "trailers"))
    pair.server.send_response(stream_id, WHOLE, b"answer")
    pair.run()
    response, body, trailers = pair.client_events[-3:]
    assert isinstance(response, ResponseReceived) and response.headers.status == "200" and not response.end_stream
    assert body == DataReceived(stream_id, b"answer", False)
    assert isinstance(trailers, TrailersReceived) and trailers.headers.fields == (("grpc-status", "0"),)
    assert pair.client.open_streams == pair.server.open_streams == 0


def test_a_response_may_be_headers_alone() -> None:
    pair = Pair()
    stream_id = pair.client.open_stream(REQUEST, True)
    pair.run()
    pair.server.send_headers(stream_id, RESPONSE, True)
    pair.run()
    (response,) = of_type(ResponseReceived, pair.client_events)
    assert response.end_stream and pair.client.open_streams == 0


def test_both_stream_at_once_and_both_send_trailers() -> None:
    pair = Pair()
    stream_id = pair.client.open_stream(REQUEST, False)
    pair.run()
    pair.server.send_headers(stream_id, RESPONSE, False)
    for number in range(5):
        pair.client.send_data(stream_id, b"c%d" % number, False)
        pair.server.send_data(stream_id, b"s%d" % number, False)
        pair.run()
    pair.server.send_headers(stream_id, TRAILERS, True)
    pair.run()
    assert pair.server.open_streams == 1, "the client has not ended it"
    pair.client.send_headers(stream_id, encode([("checksum", "1")]), True)
    pair.run()
    assert body_of(stream_id, pair.server_events) == b"c0c1c2c3c4"
    assert body_of(stream_id, pair.client_events) == b"s0s1s2s3s4"
    assert of_type(TrailersReceived, pair.server_events)[0].headers.fields == (("checksum", "1"),)
    assert pair.client.open_streams == pair.server.open_streams == 0


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 65_535, 65_536, 1_000_000])
def test_answers_of_any_size_arrive_whole(size: int) -> None:
    pair = Pair(client=SMALL)
    stream_id = pair.client.open_stream(REQUEST, True)
    pair.run()
    answer = bytes(number % 251 for number in range(size))
    pair.server.send_response(stream_id, WHOLE, answer)
    assert pair.server.queued_bytes(stream_id) == pair.server.queued_total() == max(0, size - 65_535)
    pair.run()
    assert body_of(stream_id, pair.client_events) == answer
    assert isinstance(pair.client_events[-1], TrailersReceived)
    assert (Drained(stream_id) in pair.server_events) == (size > 65_535)
    assert pair.server.queued_total() == pair.server.open_streams == pair.client.open_streams == 0


def test_a_body_that_ends_in_the_queue_ends_its_stream() -> None:
    pair = Pair(server=SMALL)
    pair.run()
    stream_id = pair.client.open_stream(REQUEST, False)
    pair.client.send_data(stream_id, b"a" * 60_000, False)
    pair.client.send_data(stream_id, b"b" * 60_000, False)
    pair.client.send_data(stream_id, b"", True)
    assert pair.client.queued_bytes(stream_id) == 120_000 - 65_535
    pair.run()
    assert body_of(stream_id, pair.server_events) == b"a" * 60_000 + b"b" * 60_000
    (end,) = [event for event in of_type(DataReceived, pair.server_events) if event.end_stream]
    assert end is pair.server_events[-1]


def test_a_reader_who_does_not_consume_stops_the_sender() -> None:
    pair = Pair(client=SMALL)
    pair.consumes = False
    first, second = (pair.client.open_stream(REQUEST, True) for _ in range(2))
    pair.run()
    for stream_id in (first, second):
        pair.server.send_response(stream_id, WHOLE, b"x" * 100_000)
    pair.run()
    assert len(body_of(first, pair.client_events)) == 65_535, "the connection's window bounds both"
    assert body_of(second, pair.client_events) == b""
    pair.client.consumed(first, 65_535)
    pair.consumes = True
    pair.run()
    assert len(body_of(first, pair.client_events)) == len(body_of(second, pair.client_events)) == 100_000


def test_many_small_answers_use_up_the_connections_window_too() -> None:
    bench = Bench()
    for stream_id in range(1, 141, 2):
        bench.send(*request(stream_id))
        bench.connection.send_response(stream_id, WHOLE, b"x" * 1_000)
    assert sum(len(frame.payload) for frame in bench.answers() if frame.kind == frames.DATA) == 65_535
    assert bench.connection.queued_total() == 70_000 - 65_535
    events = bench.send(window(0, 70_000))
    assert events == [Drained(stream_id) for stream_id in range(131, 141, 2)]
    assert bench.connection.open_streams == 0


def test_streams_share_the_connections_window_in_turn() -> None:
    bench = Bench(peer_settings=[(frames.SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20)])
    bench.send(headers(1), headers(3))
    bench.connection.send_response(1, WHOLE, b"1" * 100_000)
    bench.connection.send_response(3, WHOLE, b"3" * 100_000)
    bench.answers()
    bench.send(window(0, 50_000))
    sent = [(frame.stream_id, len(frame.payload)) for frame in bench.answers()]
    assert sent == [(1, 16_384), (3, 16_384), (1, 16_384), (3, 848)]


def test_a_smaller_initial_window_makes_windows_negative() -> None:
    """Section 6.9.2: what was sent stays sent, and counts."""
    bench = Bench()
    bench.send(headers(1))
    bench.connection.send_data(1, b"x" * 60_000, False)
    bench.send(settings((frames.SETTINGS_INITIAL_WINDOW_SIZE, 16_384)))
    bench.answers()
    bench.connection.send_data(1, b"y" * 10, False)
    assert bench.send(window(1, 60_000 - 16_384)) == [] and bench.answers() == []
    assert bench.send(window(1, 4)) == [] and bench.answers() == [data(1, b"yyyy")]
    assert bench.send(settings((frames.SETTINGS_INITIAL_WINDOW_SIZE, 16_390))) == [SettingsReceived(), Drained(1)]
    assert bench.answers()[-1] == data(1, b"y" * 6)


def test_a_stream_that_waits_for_the_connection_may_have_its_own_window_shut() -> None:
    bench = Bench(peer_settings=[(frames.SETTINGS_INITIAL_WINDOW_SIZE, 100_000)])
    bench.send(headers(1))
    bench.connection.send_data(1, b"x" * 65_545, False)
    bench.send(settings((frames.SETTINGS_INITIAL_WINDOW_SIZE, 10)))
    bench.answers()
    assert bench.send(window(0, 1_000)) == [] and bench.answers() == []
    assert bench.send(window(1, 65_535)) == [Drained(1)] and bench.answers() == [data(1, b"x" * 10)]


def test_an_initial_window_that_grows_lets_the_queue_go() -> None:
    bench = Bench(peer_settings=[(frames.SETTINGS_INITIAL_WINDOW_SIZE, 0)])
    bench.send(*request(1))
    bench.connection.send_response(1, WHOLE, b"answer")
    assert bench.answers() == [headers(1, RESPONSE)]
    assert bench.send(settings((frames.SETTINGS_INITIAL_WINDOW_SIZE, 3)))[1:] == []
    assert bench.answers()[1:] == [data(1, b"ans")]
    assert bench.send(settings((frames.SETTINGS_INITIAL_WINDOW_SIZE, 6)))[1:] == [Drained(1)]
    assert bench.answers()[1:] == [data(1, b"wer"), headers(1, TRAILERS, frames.END_HEADERS | frames.END_STREAM)]
    assert bench.connection.open_streams == 0


def test_frames_are_as_large_as_the_peer_allows_but_not_endless() -> None:
    bench = Bench(
        peer_settings=[(frames.SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20), (frames.SETTINGS_MAX_FRAME_SIZE, 1 << 20)]
    )
    bench.send(window(0, 1 << 20), *request(1))
    bench.connection.send_response(1, WHOLE, b"x" * 100_000)
    assert [len(frame.payload) for frame in bench.answers() if frame.kind == frames.DATA] == [65_536, 34_464]


def test_windows_are_opened_in_large_steps() -> None:
    bench = Bench(limits=SMALL)
    bench.send(headers(1))
    for _ in range(40):
        bench.send(data(1, b"x" * 1_000))
        bench.connection.consumed(1, 1_000)
    assert bench.answers() == [window(0, 33_000), window(1, 33_000)]


def test_padding_is_consumed_by_itself() -> None:
    bench = Bench(limits=SMALL)
    bench.send(headers(1))
    padded = data(1, b"\xff" + b"x" * 10 + bytes(255), frames.PADDED)
    for _ in range(400):
        (event,) = bench.send(padded)
        assert event == DataReceived(1, b"x" * 10, False)
        bench.connection.consumed(1, 10)
    assert failure(bench.send(ping())) is None


def test_padding_and_priority_of_headers_are_left_out() -> None:
    bench = Bench()
    block = b"\x03" + b"\x80\x00\x00\x07\x10" + REQUEST + bytes(3)
    (event,) = bench.send(headers(1, block, frames.END_HEADERS | frames.PADDED | frames.HAS_PRIORITY))
    assert isinstance(event, RequestReceived) and event.headers.path == "/etcdserverpb.KV/Range"


def test_long_headers_travel_in_continuations() -> None:
    pair = Pair(server=Limits(max_header_list_bytes=60_000))
    value = "v" * 40_000
    stream_id = pair.client.open_stream(REQUEST + encode([("long", value)]), False)
    sent = parse(pair.client.take_output())
    assert [frame.kind for frame in sent[-3:]] == [frames.HEADERS, frames.CONTINUATION, frames.CONTINUATION]
    events = pair.server.receive(frames.PREFACE + b"".join(map(bytes, sent)), 0.0)
    (event,) = of_type(RequestReceived, events)
    assert event.stream_id == stream_id and event.headers.fields[-1] == ("long", value)


def test_a_body_that_comes_behind_continuations_is_taken_along() -> None:
    bench = Bench()
    (event,) = bench.send(
        headers(1, REQUEST[:5], 0),
        Frame(frames.CONTINUATION, frames.END_HEADERS, 1, REQUEST[5:]),
        data(1, b"body", frames.END_STREAM),
    )
    assert isinstance(event, RequestReceived) and (event.data, event.end_stream) == (b"body", True)


def test_a_peer_without_a_dynamic_table_is_told_that_we_use_none() -> None:
    """RFC 7541, section 4.2: nghttp2 and hpack both insist on it."""
    bench = Bench(peer_settings=[(frames.SETTINGS_HEADER_TABLE_SIZE, 0)])
    for stream_id in (1, 3):
        bench.send(*request(stream_id))
        bench.connection.send_response(stream_id, WHOLE, b"x")
    blocks = [frame.payload for frame in bench.answers() if frame.kind == frames.HEADERS]
    assert blocks == [b"\x20" + RESPONSE, TRAILERS, RESPONSE, TRAILERS]


def test_interim_responses_are_left_out() -> None:
    bench = Bench(Role.CLIENT)
    stream_id = bench.connection.open_stream(REQUEST, True)
    events = bench.send(headers(stream_id, encode([(":status", "103")])), headers(stream_id, RESPONSE))
    assert [event.headers.status for event in of_type(ResponseReceived, events)] == ["200"]


def test_a_ping_is_answered() -> None:
    pair = Pair()
    pair.client.ping(b"abcdefgh")
    pair.run()
    assert PingAcknowledged(b"abcdefgh") in pair.client_events


def test_a_reset_ends_the_stream_on_both_ends_and_drops_what_is_queued() -> None:
    pair = Pair(client=SMALL)
    pair.consumes = False
    stream_id = pair.client.open_stream(REQUEST, False)
    pair.run()
    pair.server.send_response(stream_id, WHOLE, b"x" * 100_000)
    pair.run()
    pair.client.reset(stream_id, ErrorCode.CANCEL)
    pair.run()
    assert pair.server_events[-1] == StreamReset(stream_id, ErrorCode.CANCEL, True)
    assert pair.server.queued_total() == pair.server.open_streams == pair.client.open_streams == 0


def test_what_is_said_on_a_stream_that_is_over_is_dropped() -> None:
    """The layer above handles a request whose reset stood in the same bytes."""
    bench = Bench()
    bench.send(*request(1), Frame(frames.RST_STREAM, 0, 1, bytes(4)))
    for stream_id in (1, 99):
        bench.connection.send_response(stream_id, WHOLE, b"x")
        bench.connection.send_headers(stream_id, RESPONSE, False)
        bench.connection.send_data(stream_id, b"x", True)
        bench.connection.reset(stream_id, ErrorCode.CANCEL)
        bench.connection.consumed(stream_id, 2)
        assert bench.connection.queued_bytes(stream_id) == 0
    assert bench.answers() == []


def test_nothing_follows_the_end_of_a_stream() -> None:
    bench = Bench()
    bench.send(headers(1))
    bench.connection.send_headers(1, RESPONSE, True)
    bench.answers()
    bench.connection.send_data(1, b"more", False)
    bench.connection.send_response(1, WHOLE, b"more")
    assert bench.answers() == []


def test_what_was_under_way_on_a_stream_that_we_reset_is_ignored() -> None:
    bench = Bench(limits=SMALL)
    bench.send(headers(1))
    bench.connection.reset(1, ErrorCode.CANCEL)
    bench.answers()
    events = bench.send(data(1, b"x" * 16_384), data(1, b"x" * 16_384), window(1, 5), headers(1, TRAILERS))
    assert events == []
    assert bench.answers() == [window(0, 32_768)], "the connection's window opens again"


def test_going_away_lets_streams_end_and_refuses_later_ones() -> None:
    pair = Pair()
    first = pair.client.open_stream(REQUEST, True)
    pair.run()
    pair.server.go_away()
    pair.server.go_away()
    late = pair.client.open_stream(REQUEST, True)  # it has not heard yet
    pair.run()
    assert [event.last_stream_id for event in of_type(GoAwayReceived, pair.client_events)] == [2**31 - 1, late]
    assert pair.server.open_streams == 2, "what came before the second GOAWAY is served"
    with pytest.raises(CannotOpenStream):
        pair.client.open_stream(REQUEST, True)
    assert not pair.server.is_drained
    for stream_id in (first, late):
        pair.server.send_response(stream_id, WHOLE, b"")
    assert pair.server.is_drained


def test_a_stream_behind_the_last_goaway_is_refused() -> None:
    bench = Bench()
    bench.send(*request(1))
    bench.connection.go_away()
    first, asked = bench.answers()
    assert first.kind == frames.GOAWAY and first.payload[:4] == b"\x7f\xff\xff\xff"
    bench.send(ping(asked.payload, frames.ACK))
    (last,) = bench.answers()
    assert last.payload == (1).to_bytes(4, "big") + bytes(4)
    assert bench.send(*request(3)) == []
    assert bench.resets() == [(3, ErrorCode.REFUSED_STREAM)]


def test_streams_that_the_server_never_looked_at_are_told_as_refused() -> None:
    bench = Bench(Role.CLIENT)
    first, second = (bench.connection.open_stream(REQUEST, False) for _ in range(2))
    goaway = Frame(frames.GOAWAY, 0, 0, first.to_bytes(4, "big") + bytes(4) + b"bye")
    assert bench.send(goaway) == [GoAwayReceived(first, 0, b"bye"), StreamReset(second, ErrorCode.REFUSED_STREAM, True)]
    assert bench.connection.open_streams == 1 and bench.connection.streams_available == 0


def test_a_client_goes_away_at_once() -> None:
    pair = Pair()
    stream_id = pair.client.open_stream(REQUEST, True)
    pair.client.go_away()
    assert not pair.client.is_drained
    pair.run()
    pair.server.send_response(stream_id, WHOLE, b"")
    pair.run()
    assert of_type(GoAwayReceived, pair.server_events) == [GoAwayReceived(0, 0, b"")]
    assert pair.client.is_drained


def test_a_client_keeps_to_the_servers_number_of_streams() -> None:
    pair = Pair(server=Limits(max_streams=2))
    pair.run()
    first, _ = (pair.client.open_stream(REQUEST, True) for _ in range(2))
    assert pair.client.streams_available == 0
    with pytest.raises(CannotOpenStream):
        pair.client.open_stream(REQUEST, True)
    pair.run()
    pair.server.send_response(first, WHOLE, b"")
    pair.run()
    assert pair.client.streams_available == 1


def test_after_its_end_a_connection_is_silent() -> None:
    bench = Bench()
    bench.send(headers(1))
    bench.connection.terminate(ErrorCode.NO_ERROR, "stopping")
    (goaway,) = bench.answers()
    assert goaway.payload == (1).to_bytes(4, "big") + bytes(4) + b"stopping"
    bench.connection.ping(b"12345678")
    bench.connection.go_away()
    bench.connection.terminate(ErrorCode.NO_ERROR, "again")
    assert bench.send(*request(3), ping()) == [] and bench.connection.has_failed
    bench.connection.send_response(1, WHOLE, b"")
    bench.connection.consumed(1, 1 << 30)
    assert bench.answers() == []


@hypothesis_settings(deadline=None)
@given(
    st.lists(st.binary(max_size=40_000), min_size=1, max_size=8),
    st.lists(st.integers(1, 5_000), min_size=1, max_size=20),
    st.integers(0, 2**32),
)
def test_any_split_of_the_bytes_says_the_same(bodies: list[bytes], cuts: list[int], seed: int) -> None:
    """Every body is echoed, with the line cut at arbitrary places in both directions."""
    pair = Pair(client=SMALL, server=SMALL)
    pair.run()
    stream_ids = []
    for number, body in enumerate(bodies):
        stream_ids.append(pair.client.open_stream(REQUEST, False))
        pair.client.send_data(stream_ids[-1], body, number % 2 == 0)
        if number % 2:
            pair.client.send_headers(stream_ids[-1], encode([("odd", "yes")]), True)
    turn = seed
    answered: set[int] = set()
    while True:
        pair.piece_bytes = cuts[turn % len(cuts)]
        turn += 1
        before = len(pair.server_events) + len(pair.client_events)
        pair.run()
        for event in list(pair.server_events):
            is_end = isinstance(event, TrailersReceived) or getattr(event, "end_stream", False)
            stream_id = getattr(event, "stream_id", 0)
            if is_end and stream_id not in answered:
                answered.add(stream_id)
                pair.server.send_response(stream_id, WHOLE, body_of(stream_id, pair.server_events))
        if before == len(pair.server_events) + len(pair.client_events) and len(answered) == len(bodies):
            break
    assert [body_of(stream_id, pair.client_events) for stream_id in stream_ids] == bodies
    assert len(of_type(TrailersReceived, pair.client_events)) == len(bodies)
    assert pair.client.open_streams == pair.server.open_streams == 0
