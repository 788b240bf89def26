"""What the headers of a request say: which method, how long, in which encoding; or why it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from quorate.net.grpc.calls import Method, Unary
from quorate.net.grpc.framing import ENCODINGS, GZIP, IDENTITY
from quorate.net.grpc.headers import CONTENT_TYPE, encode_status_message, is_grpc, parse_timeout, unknown_path
from quorate.net.grpc.status import Code, GrpcError
from quorate.net.http2.headers import Headers, encode
from quorate.net.http2.sending import ResponseForm

_OF_HTTP2: Final = frozenset({"connection", "content-length", "host", "te"})
_ACCEPTED: Final = ("grpc-accept-encoding", f"{IDENTITY},{GZIP}")

RESPONSE_HEADERS: Final = encode([(":status", "200"), ("content-type", CONTENT_TYPE)])
OK_TRAILERS: Final = encode([("grpc-status", "0")])
OK_RESPONSE: Final = ResponseForm(RESPONSE_HEADERS, OK_TRAILERS)
ONLY_OK_TRAILERS: Final = encode([(":status", "200"), ("content-type", CONTENT_TYPE), ("grpc-status", "0")])


class RequestHead:
    """Derived once from headers that a client may send with a million calls."""

    __slots__ = ("encoding", "is_plain_unary", "metadata", "method", "path", "refusal", "timeout_s")

    def __init__(self, headers: Headers, methods: Mapping[str, Method], services: frozenset[str]) -> None:
        self.path = headers.path
        self.metadata = _metadata(headers)
        self.method = methods.get(headers.path)
        self.timeout_s: float | None = None
        self.encoding = IDENTITY
        self.refusal: bytes | None = None
        """The block to answer with instead of calling the method."""
        try:
            self._read(headers, services)
        except GrpcError as error:
            self.refusal = only_trailers(error.code, error.message)
        self.is_plain_unary = type(self.method) is Unary and self.encoding == IDENTITY
        """Nothing stands between its bytes and its method but the prefix of the message."""

    def _read(self, headers: Headers, services: frozenset[str]) -> None:
        metadata = self.metadata
        content_type = metadata.get("content-type", "")
        if headers.method != "POST":
            words = f'unexpected method "{headers.method}": gRPC has only POST'
            self.refusal = only_trailers(Code.INTERNAL, words, http_status="405")
            return
        if not is_grpc(content_type):
            words = f'invalid gRPC request content-type "{content_type}"'
            self.refusal = only_trailers(Code.INTERNAL, words, http_status="415")
            return
        if self.method is None:
            raise unknown_path(self.path, services)
        encoding = metadata.get("grpc-encoding", IDENTITY)
        if encoding not in ENCODINGS:
            words = f'grpc: Decompressor is not installed for grpc-encoding "{encoding}"'
            self.refusal = only_trailers(Code.UNIMPLEMENTED, words, more=(_ACCEPTED,))
            return
        self.encoding = encoding
        timeout = metadata.get("grpc-timeout")
        if timeout is not None:
            self.timeout_s = _seconds(timeout)

    def _timed(self, timeout: str) -> RequestHead:
        """The same with a `grpc-timeout`, where it has none."""
        head = RequestHead.__new__(RequestHead)
        head.path = self.path
        head.metadata = MappingProxyType(self.metadata | {"grpc-timeout": timeout})
        head.method = self.method
        head.timeout_s = None
        head.encoding = self.encoding
        head.is_plain_unary = self.is_plain_unary
        head.refusal = self.refusal
        if head.refusal is None:
            try:
                head.timeout_s = _seconds(timeout)
            except GrpcError as error:
                head.refusal = only_trailers(error.code, error.message)
        return head


def head_of(headers: Headers, methods: Mapping[str, Method], services: frozenset[str]) -> RequestHead:
    """Kept with the headers, and what does not depend on their timeout with all that differ only there."""
    head = headers.derived
    if type(head) is not RequestHead:
        untimed, timeout = headers.untimed, headers.timeout
        if untimed is None or timeout is None:
            head = RequestHead(headers, methods, services)
        else:
            head = head_of(untimed, methods, services)._timed(timeout)
        headers.derived = head
    return head


def _seconds(timeout: str) -> float:
    """Raises GrpcError."""
    try:
        return parse_timeout(timeout)
    except ValueError as error:
        raise GrpcError(Code.INTERNAL, f"malformed {error}") from error


def _metadata(headers: Headers) -> MappingProxyType[str, str]:
    """Binary values are left out: nothing of ours reads any."""
    metadata: dict[str, str] = {}
    for name, value in headers.fields:
        if name in _OF_HTTP2 or name.endswith("-bin"):
            continue
        before = metadata.get(name)
        metadata[name] = value if before is None else f"{before}, {value}"
    return MappingProxyType(metadata)


def only_trailers(
    code: Code, message: str, *, http_status: str = "200", more: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """The block of an answer that is nothing but an error."""
    head = [(":status", http_status), ("content-type", CONTENT_TYPE)]
    return encode([*head, *_status(code, message), *more])


def trailers(code: Code, message: str) -> bytes:
    """The block behind the messages of an answer that ends with an error."""
    return encode(_status(code, message))


def _status(code: Code, message: str) -> list[tuple[str, str]]:
    return [("grpc-status", str(int(code))), ("grpc-message", encode_status_message(message))]
