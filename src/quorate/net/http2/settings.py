"""SETTINGS: what we ask of the peer, and what the peer may ask of us (RFC 9113, section 6.5)."""

from __future__ import annotations

from quorate.net.http2 import frames
from quorate.net.http2.codes import ErrorCode, Violation
from quorate.net.http2.limits import Limits


def opening(limits: Limits, is_server: bool) -> bytes:
    """All that is sent before anything has come: preface (of a client), SETTINGS, the connection's window."""
    values = [
        (frames.SETTINGS_INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
        (frames.SETTINGS_MAX_FRAME_SIZE, limits.max_frame_bytes),
        (frames.SETTINGS_MAX_HEADER_LIST_SIZE, limits.max_header_list_bytes),
    ]
    if is_server:
        values.append((frames.SETTINGS_MAX_CONCURRENT_STREAMS, limits.max_streams))
    else:
        values.append((frames.SETTINGS_ENABLE_PUSH, 0))
    output = frames.settings(values) if is_server else frames.PREFACE + frames.settings(values)
    increment = limits.connection_window_bytes - frames.DEFAULT_WINDOW_BYTES
    return output + frames.window_update(0, increment) if increment else output


def parse(payload: bytes, is_server: bool) -> dict[int, int]:
    """A peer's SETTINGS: the last value of each, for only that can be seen (and a frame has room for 2,730 changes
    of all windows).  Unknown ones are kept: nobody asks for them.  Raises Violation."""
    if len(payload) % frames.SETTING.size:
        raise Violation(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of no whole number of settings")
    values: dict[int, int] = {}
    for name, value in frames.SETTING.iter_unpack(payload):
        if name == frames.SETTINGS_ENABLE_PUSH and value > (1 if is_server else 0):
            raise Violation(ErrorCode.PROTOCOL_ERROR, "bad SETTINGS_ENABLE_PUSH")
        if name == frames.SETTINGS_INITIAL_WINDOW_SIZE and value > frames.MAX_WINDOW_BYTES:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "bad SETTINGS_INITIAL_WINDOW_SIZE")
        if name == frames.SETTINGS_MAX_FRAME_SIZE and not frames.DEFAULT_FRAME_BYTES <= value <= frames.MAX_FRAME_BYTES:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "bad SETTINGS_MAX_FRAME_SIZE")
        values[name] = value
    return values
