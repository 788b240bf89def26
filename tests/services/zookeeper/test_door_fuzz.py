"""Whatever bytes come: no exception in the door, and another client does not notice."""

from __future__ import annotations

import asyncio
import itertools
import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quorate.services.zookeeper.jute import pack_buffer, pack_strings
from quorate.services.zookeeper.protocol import (
    REQUEST_HEADER,
    AuthPacket,
    ConnectRequest,
    Create,
    Delete,
    Op,
    PathAndMode,
    PathAndWatch,
    SetACL,
    SetData,
    SetWatches,
    pack_multi,
)
from tests.services.zookeeper.harness import Cluster, on_simulated_loop
from tests.services.zookeeper.raw import Raw

PATHS = st.sampled_from([b"/", b"", b"/a", b"/a/b", b"a", b"//", b"/a/", b"/\xff", b"/a\0", b"/zookeeper", b"/c"])
DATA = st.one_of(st.none(), st.binary(max_size=30))
INTS = st.one_of(st.integers(-2, 8), st.integers(-(2**31), 2**31 - 1))
CREATES = st.builds(Create, PATHS, DATA, flags=INTS)
DELETES = st.builds(Delete, PATHS, INTS)
SETS = st.builds(SetData, PATHS, DATA, INTS)
LISTS = st.lists(PATHS, max_size=3)
WATCHES = st.builds(SetWatches, st.integers(0, 50), LISTS, LISTS, LISTS, LISTS, LISTS)

REQUESTS = st.one_of(
    CREATES.map(lambda r: (Op.CREATE, r.encode())),
    CREATES.map(lambda r: (Op.CREATE2, r.encode())),
    DELETES.map(lambda r: (Op.DELETE, r.encode())),
    SETS.map(lambda r: (Op.SET_DATA, r.encode())),
    st.builds(SetACL, PATHS, st.just(()), INTS).map(lambda r: (Op.SET_ACL, r.encode())),
    st.lists(st.one_of(CREATES, DELETES, SETS), max_size=4).map(lambda r: (Op.MULTI, pack_multi(tuple(r)))),
    st.tuples(
        st.sampled_from([Op.EXISTS, Op.GET_DATA, Op.GET_CHILDREN, Op.GET_CHILDREN2]),
        st.builds(PathAndWatch, PATHS, st.booleans()).map(PathAndWatch.encode),
    ),
    st.tuples(st.sampled_from([Op.GET_ACL, Op.SYNC, Op.GET_EPHEMERALS]), PATHS.map(pack_buffer)),
    st.tuples(
        st.sampled_from([Op.CHECK_WATCHES, Op.REMOVE_WATCHES, Op.ADD_WATCH]),
        st.builds(PathAndMode, PATHS, INTS).map(PathAndMode.encode),
    ),
    st.tuples(st.sampled_from([Op.SET_WATCHES, Op.SET_WATCHES2]), WATCHES.map(lambda r: r.encode(Op.SET_WATCHES2))),
    st.builds(AuthPacket, st.sampled_from([b"digest", b"x"]), st.binary(max_size=9)).map(
        lambda r: (Op.AUTH, r.encode())
    ),
    st.tuples(st.sampled_from([Op.PING, Op.WHO_AM_I, Op.CLOSE_SESSION, Op.CREATE_SESSION]), st.just(b"")),
    st.tuples(INTS, st.binary(max_size=40)),
    LISTS.map(lambda r: (Op.MULTI_READ, pack_strings(r))),
)


def frame(xid: int, request: tuple[int, bytes]) -> bytes:
    op, record = request
    return struct.pack(">i", len(record) + 8) + REQUEST_HEADER.pack(xid, op) + record


FRAMES = st.lists(st.builds(frame, INTS, REQUESTS), max_size=8).map(b"".join)
MUTATIONS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3)
CUTS = st.lists(st.integers(0, 400), max_size=4)


async def survives(pieces: list[bytes], with_session: bool) -> None:
    async with Cluster(2, max_frame_bytes=1_000) as cluster:
        other = await Raw.open(cluster.endpoints[0])
        other.send_create(1, b"/kept", b"1")
        assert (await other.reply())[2] == 0
        victim = await (Raw.open if with_session else Raw.dial)(cluster.endpoints[0])
        for piece in pieces:
            victim.send_bytes(piece)
            await asyncio.sleep(0.005)
        for xid in range(2, 6):
            code, _ = await other.call(xid, Op.EXISTS, PathAndWatch(b"/kept", False).encode())
            assert code == 0
        victim.writer.transport.abort()
        await asyncio.sleep(0.01)
        digests = {node.store.digest() for node in cluster.nodes.values()}
        assert len(digests) == 1
        door = cluster.nodes[1].door
        assert len(door._connections) == 1
        assert door.watches.count() == 0


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(min(edge, len(data)) for edge in at)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), CUTS, st.booleans())
def test_random_bytes(data: bytes, cuts: list[int], with_session: bool) -> None:
    on_simulated_loop(lambda: survives(cut(data, cuts), with_session))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FRAMES, MUTATIONS, CUTS)
def test_well_formed_frames_with_some_bytes_changed(
    data: bytes, mutations: list[tuple[int, int]], cuts: list[int]
) -> None:
    changed = bytearray(data)
    for at, byte in mutations:
        if at < len(changed):
            changed[at] = byte
    on_simulated_loop(lambda: survives(cut(bytes(changed), cuts), True))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MUTATIONS, CUTS, st.integers(0, 60))
def test_connect_requests_with_some_bytes_changed(mutations: list[tuple[int, int]], cuts: list[int], size: int) -> None:
    request = ConnectRequest(0, 5_000, 0, bytes(16)).encode()
    changed = bytearray(struct.pack(">i", len(request)) + request + bytes(20))
    for at, byte in mutations:
        changed[at % 50] = byte
    on_simulated_loop(lambda: survives(cut(bytes(changed[:size]), cuts), False))
