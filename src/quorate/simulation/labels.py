"""What bytes on the simulated network mean, in a few words, for traces and diagrams.

Only where a run is recorded.  Bytes that make no sense, or that are the middle of something larger, are told by
their number: a label explains a run and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from quorate.consensus.protocols import PROTOCOLS
from quorate.net.frames import HEADER_BYTES
from quorate.net.http2 import frames
from quorate.node.wire import items_decoder
from quorate.services.zookeeper.protocol import NOTIFICATION_XID, PING_XID, REPLY_HEADER, REQUEST_HEADER, Op
from quorate.simulation.message_labels import message_label

Address: TypeAlias = tuple[str, int]
_LENGTH = Struct(">I")
_HTTP2_FRAMES = MappingProxyType(
    {
        frames.DATA: "DATA",
        frames.HEADERS: "HEADERS",
        frames.CONTINUATION: "CONTINUATION",
        frames.RST_STREAM: "RST_STREAM",
        frames.SETTINGS: "SETTINGS",
        frames.PING: "PING",
        frames.GOAWAY: "GOAWAY",
        frames.WINDOW_UPDATE: "WINDOW_UPDATE",
    }
)
_OPS = MappingProxyType({int(op): op.name.lower().replace("_", " ") for op in Op})


class Labels:
    """Describes what goes over the ports of a cluster: `network.describe`."""

    def __init__(
        self,
        peer_port: int,
        client_port: int,
        describe_client: Callable[[bytes, bool], str],
    ) -> None:
        self._decode = items_decoder(PROTOCOLS.values()).decode
        self._peer_port = peer_port
        self._client_port = client_port
        self._describe_client = describe_client
        """(bytes, whether they come from the client) to text."""

    def __call__(self, source: Address, target: Address, data: bytes) -> str:
        if self._peer_port in (source[1], target[1]):
            return ", ".join(self._peer_labels(data))
        if self._client_port in (source[1], target[1]):
            return self._describe_client(data, target[1] == self._client_port)
        return f"{len(data)} bytes"

    def _peer_labels(self, data: bytes) -> Iterator[str]:
        for body in _frames(data):
            if not body:
                yield "heartbeat of the link"
                continue
            try:
                yield from (message_label(message) for _, message in self._decode(body))
            except msgspec.MsgspecError:
                yield _tagged_label(body)


def _frames(data: bytes) -> Iterator[bytes]:
    start = 0
    while start + HEADER_BYTES <= len(data):
        (length,) = _LENGTH.unpack_from(data, start)
        yield data[start + HEADER_BYTES : start + HEADER_BYTES + length]
        start += HEADER_BYTES + length


def _tagged_label(body: bytes) -> str:
    """Handshakes and snapshot transfers are maps with a tag."""
    try:
        value = msgspec.msgpack.decode(body)
    except msgspec.MsgspecError:
        return f"{len(body)} bytes"
    return str(value["type"]) if isinstance(value, dict) and "type" in value else f"{len(body)} bytes"


def describe_zookeeper(data: bytes, from_client: bool) -> str:
    """Requests by their operation and path, replies by zxid and error."""
    labels = []
    for body in _frames(data):
        if len(body) < REQUEST_HEADER.size:
            labels.append(f"{len(body)} bytes")
        elif from_client:
            labels.append(_request_label(body))
        else:
            labels.append(_reply_label(body))
    return ", ".join(labels)


def _request_label(body: bytes) -> str:
    xid, op = REQUEST_HEADER.unpack_from(body)
    if xid == PING_XID:
        return "ping"
    if xid == 0:
        return "connect"
    text = _OPS.get(op, f"operation {op}")
    start = REQUEST_HEADER.size
    if len(body) >= start + _LENGTH.size:
        (length,) = _LENGTH.unpack_from(body, start)
        path = body[start + _LENGTH.size : start + _LENGTH.size + length]
        if 0 < length < 200 and path.startswith(b"/"):
            text += f" {path.decode(errors='replace')}"
    return f"{text} #{xid}"


def _reply_label(body: bytes) -> str:
    if len(body) < REPLY_HEADER.size:
        return f"{len(body)} bytes"
    xid, zxid, error = REPLY_HEADER.unpack_from(body)
    if xid == PING_XID:
        return "ping answered"
    if xid == NOTIFICATION_XID:
        return "watch event"
    if xid == 0:
        return "session"
    return f"reply #{xid} zxid {zxid}" + (f" error {error}" if error else "")


def describe_http2(data: bytes) -> str:
    """Frames by kind and stream; DATA by its length.  Headers are compressed with what went before them."""
    data = data.removeprefix(frames.PREFACE)
    labels = []
    start = 0
    while start + frames.HEAD_BYTES <= len(data):
        length_and_kind, _, stream_id = frames.HEAD.unpack_from(data, start)
        length, kind = length_and_kind >> 8, length_and_kind & 0xFF
        name = _HTTP2_FRAMES.get(kind, f"frame {kind}")
        stream = f" #{stream_id}" if stream_id else ""
        labels.append(f"{name}{stream} {length} bytes" if kind == frames.DATA else f"{name}{stream}")
        start += frames.HEAD_BYTES + length
    return ", ".join(labels) or f"{len(data)} bytes"
