"""What is derived from headers that differ in their timeout only is what would be derived from each by itself."""

from __future__ import annotations

from types import MappingProxyType

import hpack
import pytest

from quorate.net.grpc.calls import Unary
from quorate.net.grpc.request import RequestHead, head_of
from quorate.net.http2.headers import BlockDecoder, Headers
from quorate.net.http2.limits import Limits

METHODS = MappingProxyType({"/a.B/C": Unary(lambda call, message: None)})
SERVICES = frozenset({"a.B"})
TIMEOUTS = ("5S", "4999876u", "0n", "4999876u", "soon", "123456789u", "1H")

REQUESTS = {
    "in order": (("content-type", "application/grpc"), ("token", "x"), ("grpc-timeout", "?"), ("token", "y")),
    "of an unknown method": ((":path", "/a.B/D"), ("content-type", "application/grpc"), ("grpc-timeout", "?")),
    "not of gRPC": (("content-type", "text/html"), ("grpc-timeout", "?")),
    "with two timeouts": (("content-type", "application/grpc"), ("grpc-timeout", "1S"), ("grpc-timeout", "?")),
}


@pytest.mark.parametrize("fields", REQUESTS.values(), ids=REQUESTS.keys())
def test_heads_of_requests_with_other_timeouts(fields: tuple[tuple[str, str], ...]) -> None:
    encoder, decoder = hpack.Encoder(), BlockDecoder(Limits())
    path = () if fields[0][0] == ":path" else ((":path", "/a.B/C"),)
    for timeout in TIMEOUTS:
        pairs = [
            (name, timeout if value == "?" else value)
            for name, value in ((":method", "POST"), (":scheme", "http"), *path, *fields)
        ]
        headers = decoder.decode(encoder.encode(pairs))
        head = head_of(headers, METHODS, SERVICES)
        assert head_of(headers, METHODS, SERVICES) is head
        whole = RequestHead(Headers([(name.encode(), value.encode()) for name, value in pairs]), METHODS, SERVICES)
        assert all(getattr(head, slot) == getattr(whole, slot) for slot in RequestHead.__slots__), timeout


def test_what_they_have_in_common_is_derived_once() -> None:
    encoder, decoder = hpack.Encoder(), BlockDecoder(Limits())
    common = set()
    for number in range(300):
        pairs = [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), ("grpc-timeout", f"{number}u")]
        headers = decoder.decode(encoder.encode(pairs))
        assert headers.untimed is not None
        head_of(headers, METHODS, SERVICES)
        assert isinstance(headers.untimed.derived, RequestHead)
        common.add(headers.untimed.derived)
    assert len(common) == 1
