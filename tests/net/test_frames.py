"""Frames: cut anywhere, they come out whole; too large, they never come in."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.net.frames import KEEP_ALIVE, FrameDecoder, FrameEncoder, FrameError


@given(values=st.lists(st.lists(st.integers(0, 1 << 40), max_size=20), max_size=20), cuts=st.lists(st.integers(1, 50)))
def test_frames_cut_anywhere_come_out_whole(values: list[list[int]], cuts: list[int]) -> None:
    encoder = FrameEncoder()
    stream = b"".join(bytes(encoder.encode(value)) + KEEP_ALIVE for value in values)
    decoder = FrameDecoder(1 << 16)
    bodies: list[bytes] = []
    start = 0
    for size in [*cuts, len(stream) + 1]:
        bodies += decoder.feed(stream[start : start + size])
        start += size
    assert [msgspec.msgpack.decode(body) for body in bodies if body] == values
    assert bodies.count(b"") == len(values)


def test_an_oversized_frame_is_refused_before_it_is_gathered() -> None:
    decoder = FrameDecoder(100)
    assert decoder.feed(b"\x00\x00\x00\x64") == []
    with pytest.raises(FrameError, match="101 bytes"):
        FrameDecoder(100).feed(b"\x00\x00\x00\x65")


@given(chunks=st.lists(st.binary(max_size=300), max_size=20))
def test_random_bytes_give_bodies_or_a_frame_error(chunks: list[bytes]) -> None:
    decoder = FrameDecoder(1000)
    try:
        for chunk in chunks:
            for body in decoder.feed(chunk):
                assert len(body) <= 1000
    except FrameError:
        pass
