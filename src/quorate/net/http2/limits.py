"""What one connection tolerates from its peer.  docs/http2.md argues for each number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, rates in frames a second; a burst is how many may come at once before the rate counts."""

    max_streams: int = 1_000
    """Streams of the peer's at a time (SETTINGS_MAX_CONCURRENT_STREAMS); one more is refused with REFUSED_STREAM."""
    max_frame_bytes: int = 16_384
    """Of one frame's payload (SETTINGS_MAX_FRAME_SIZE)."""
    stream_window_bytes: int = 1 << 20
    """What the peer may send on a stream before `Connection.consumed`; at least 65,535."""
    connection_window_bytes: int = 8 << 20
    """What the peer may send on all streams before `Connection.consumed`; at least 65,535."""
    max_header_list_bytes: int = 32 << 10
    """Of decoded headers, as SETTINGS_MAX_HEADER_LIST_SIZE counts: names, values, and 32 a field."""
    max_block_bytes: int = 64 << 10
    """Of one encoded header block, HEADERS and CONTINUATION together."""
    max_block_frames: int = 32
    """HEADERS and CONTINUATION frames of one header block."""
    reset_burst: int = 1_000
    reset_rate: float = 100.0
    """Streams that the peer resets before they are answered, or makes us reset by its errors (rapid reset)."""
    control_burst: int = 10_000
    control_rate: float = 5_000.0
    """Frames that ask for work and bring nothing: SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones,
    and those on streams that are closed.  What we send earns some back, because it is answered with such frames."""


class Budget:
    """A token bucket: `burst` at most, filled at `rate` a second."""

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._tokens = float(burst)
        self._filled_at_s: float | None = None

    def refill(self, now_s: float, earned: int = 0) -> None:
        if self._filled_at_s is not None:
            earned_by_time = max(0.0, now_s - self._filled_at_s) * self._rate
            self._tokens = min(self._tokens + earned_by_time + earned, self._burst)
        self._filled_at_s = now_s

    def spend(self, count: int = 1) -> bool:
        """False where that was too much."""
        self._tokens -= count
        return self._tokens >= 0
