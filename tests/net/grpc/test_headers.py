"""Timeouts, statuses and their messages as headers carry them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.net.grpc.headers import (
    code_of_http_status,
    decode_status_message,
    encode_status_message,
    format_timeout,
    is_grpc,
    parse_status,
    parse_timeout,
    unknown_path,
)
from quorate.net.grpc.status import Code


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9), ("99999999H", 99999999 * 3600)],
)
def test_timeouts_are_read(text: str, seconds: float) -> None:
    assert parse_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "S", "1", "1s", "123456789S", "-1S", "1.5S", "1S ", " 1S", "１S"])
def test_what_is_no_timeout_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="grpc-timeout"):
        parse_timeout(text)


@given(st.floats(1e-9, 9e7))
def test_timeouts_are_written_as_they_are_read(seconds: float) -> None:
    assert parse_timeout(format_timeout(seconds)) == pytest.approx(seconds, rel=1e-4, abs=1e-9)


def test_a_time_that_is_over_is_the_shortest_timeout() -> None:
    assert format_timeout(-1.0) == format_timeout(0.0) == "1n"


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_messages_of_a_status_survive_in_printable_ascii(message: str) -> None:
    encoded = encode_status_message(message)
    assert all(" " <= character <= "~" for character in encoded)
    assert encoded == encoded.strip(" ")
    assert decode_status_message(encoded) == message


def test_only_what_must_be_is_encoded() -> None:
    plain = "etcdserver: mvcc: required revision has been compacted (1 vs. 2) /?&='\""
    assert encode_status_message(plain) == plain
    assert encode_status_message("100 % schön\n") == "100 %25 sch%C3%B6n%0A"


def test_a_message_of_surrogates_and_endless_ones_can_be_sent() -> None:
    assert encode_status_message("\ud800") == "?"
    assert len(encode_status_message("x" * 100_000)) < 8192


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("Application/gRPC;charset=utf-8", True),
        ("application/grpc-web", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_content_types(content_type: str, expected: bool) -> None:
    assert is_grpc(content_type) is expected


def test_statuses() -> None:
    assert parse_status("5") is Code.NOT_FOUND
    assert parse_status("17") is parse_status("x") is Code.UNKNOWN
    assert code_of_http_status("503") is Code.UNAVAILABLE
    assert code_of_http_status("418") is Code.UNKNOWN


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v3lock.Lock/Lock", "UNIMPLEMENTED: unknown service v3lock.Lock"),
        ("/etcdserverpb.KV/Sort", "UNIMPLEMENTED: unknown method Sort for service etcdserverpb.KV"),
        ("/put", 'RESOURCE_EXHAUSTED: malformed method name: "/put"'),
        ("", 'RESOURCE_EXHAUSTED: malformed method name: ""'),
    ],
)
def test_unknown_paths_are_named_in_the_words_of_grpc_go(path: str, error: str) -> None:
    assert str(unknown_path(path, frozenset({"etcdserverpb.KV"}))) == error
