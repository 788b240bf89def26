"""What gRPC says in HTTP/2's headers: timeouts, statuses and their messages.

Source: "gRPC over HTTP2" of grpc/grpc, under "Requests" and "Responses".
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

from quorate.net.grpc.status import Code, GrpcError

CONTENT_TYPE: Final = "application/grpc"
MAX_STATUS_MESSAGE_CHARACTERS: Final = 4096
"""A longer one is cut: some clients take no more than 8 KiB of headers."""

_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS: Final = MappingProxyType({"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9})
_PLAIN_STATUS_MESSAGE: Final = re.compile(r"[ -$&-~]*")


def parse_timeout(text: str) -> float:
    """grpc-timeout in seconds.  Raises ValueError."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise ValueError(f"grpc-timeout {text[:40]!r} is not at most eight digits and a unit")
    return int(match[1]) * _SECONDS[match[2]]


def format_timeout(timeout_s: float) -> str:
    """In the finest unit whose eight digits hold it; a time that is over is one nanosecond."""
    for unit in "num":
        count = round(timeout_s / _SECONDS[unit])
        if count < 10**8:
            return f"{max(count, 1)}{unit}"
    return f"{min(round(timeout_s), 10**8 - 1)}S"


def is_grpc(content_type: str) -> bool:
    """Also of application/grpc+proto and application/grpc;charset=..., not of application/grpc-web."""
    rest = content_type.lower().removeprefix(CONTENT_TYPE)
    return content_type.lower().startswith(CONTENT_TYPE) and rest[:1] in ("", "+", ";")


def encode_status_message(message: str) -> str:
    """Percent-encoded UTF-8, for grpc-message."""
    message = message[:MAX_STATUS_MESSAGE_CHARACTERS]
    # Not urllib's quote: that one also encodes what need not be, and some clients show it as it is.
    if not _PLAIN_STATUS_MESSAGE.fullmatch(message):
        data = message.encode("utf-8", "replace")
        message = "".join(chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in data)
    # Spaces at the ends of a header's value are forbidden or lost.
    if message[:1] == " ":
        message = f"%20{message[1:]}"
    if message[-1:] == " ":
        message = f"{message[:-1]}%20"
    return message


def decode_status_message(text: str) -> str:
    """What cannot be decoded stays or becomes replacement characters: it is for people to read."""
    return unquote(text)


def parse_status(text: str) -> Code:
    """grpc-status; what is no status of gRPC's is UNKNOWN."""
    try:
        return Code(int(text))
    except ValueError:
        return Code.UNKNOWN


def code_of_http_status(status: str) -> Code:
    """Of an answer without grpc-status, as a proxy gives it ("HTTP to gRPC Status Code Mapping" of grpc/grpc)."""
    return _CODES_OF_HTTP.get(status, Code.UNKNOWN)


_CODES_OF_HTTP: Final = MappingProxyType(
    {
        "400": Code.INTERNAL,
        "401": Code.UNAUTHENTICATED,
        "403": Code.PERMISSION_DENIED,
        "404": Code.UNIMPLEMENTED,
        "429": Code.UNAVAILABLE,
        "502": Code.UNAVAILABLE,
        "503": Code.UNAVAILABLE,
        "504": Code.UNAVAILABLE,
    }
)


def unknown_path(path: str, services: frozenset[str]) -> GrpcError:
    """In the words, and with the codes, of the grpc-go that is in etcd 3.4.  `services`: those that have any method."""
    service, slash, method = path.removeprefix("/").rpartition("/")
    if not slash:
        return GrpcError(Code.RESOURCE_EXHAUSTED, f'malformed method name: "{path}"')
    if service in services:
        return GrpcError(Code.UNIMPLEMENTED, f"unknown method {method} for service {service}")
    return GrpcError(Code.UNIMPLEMENTED, f"unknown service {service}")
