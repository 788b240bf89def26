"""Snapshots on a connection of their own, in chunks, so that messages never wait behind them.

    sender                                receiver
    Hello(purpose=snapshot)      ->
                                 <-       Welcome
    Offer(group, position, ...)  ->
    Chunk, Chunk, ...            ->       written as they come
                                 <-       Taken(problem=None) once verified and durable

The sender's socket buffer bounds what is under way; the receiver checks every checksum
again before it believes the file.  A receiver that does not want the snapshot says so at
once, and the sender, which listens while it sends, ends the connection; what it had sent
by then is ignored.  Keep-alives tell the receiver, which cuts silent connections, that the
sender still waits for its answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

from quorate.net.connection import HANDSHAKE_FRAME_BYTES, HANDSHAKE_TIMEOUT_S, read_frame
from quorate.net.frames import KEEP_ALIVE, FrameEncoder, FrameError
from quorate.net.handshake import Handshake, Purpose
from quorate.net.listener import IncomingTransfer
from quorate.storage.disk import File
from quorate.storage.snapshots import CorruptSnapshot, Receiver, SnapshotInfo, Snapshots

_log = logging.getLogger(__name__)

CHUNK_BYTES = 256 << 10
CHUNK_TIMEOUT_S = 30.0
"""The peer must make room for another chunk within this time."""
ANSWER_TIMEOUT_S = 120.0
"""The peer must have verified the snapshot and made it durable within this time."""
KEEP_ALIVE_INTERVAL_S = 1.0
MAX_ANSWER_BYTES = 4096


class Offer(msgspec.Struct, frozen=True, tag="offer"):
    """What follows: a snapshot file of `size_bytes`, by the leader of `generation`."""

    group: int
    generation: int
    position: int
    position_generation: int
    size_bytes: int
    service: str


class Chunk(msgspec.Struct, frozen=True, tag="chunk", gc=False):
    """The next bytes of the file."""

    offset: int
    data: bytes


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """The receiver has it whole, or what went wrong."""

    problem: str | None
    damaged: bool = False
    """All of it came, and is damaged: as it was sent, or on its way."""


_Incoming: TypeAlias = Offer | Chunk


class TransferFailed(Exception):
    """A snapshot did not arrive; the protocol will ask for it again."""


class DoubtfulSnapshot(TransferFailed):
    """And what failed it may be the sender's own file: verify that before it is sent again."""


async def send_snapshot(
    handshake: Handshake,
    address: tuple[str, int],
    peer: int,
    snapshots: Snapshots,
    info: SnapshotInfo,
    group: int,
    generation: int,
) -> None:
    """Send one snapshot file and wait until the peer has it durably.  Raises TransferFailed, HandshakeRefused."""
    try:
        # Once for all chunks: meanwhile a newer snapshot may take this one's name away.
        file = snapshots.open_file(info)
    except OSError as error:
        raise DoubtfulSnapshot(f"the snapshot cannot be opened: {error}") from None
    try:
        await _send_file(handshake, address, peer, file, info, group, generation)
    finally:
        file.close()


async def _send_file(
    handshake: Handshake,
    address: tuple[str, int],
    peer: int,
    file: File,
    info: SnapshotInfo,
    group: int,
    generation: int,
) -> None:
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*address)
    except OSError as error:
        raise TransferFailed(f"node {peer} cannot be reached: {error or 'no answer'}") from None
    offer = Offer(group, generation, info.position, info.generation, info.size_bytes, info.service)
    try:
        writer.write(FrameEncoder().encode(handshake.hello(peer, Purpose.SNAPSHOT)))
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            handshake.conclude(peer, await read_frame(reader, HANDSHAKE_FRAME_BYTES))
        taken = msgspec.msgpack.decode(await _send_chunks(reader, writer, file, offer), type=Taken)
    except TimeoutError:
        raise TransferFailed(f"node {peer} was silent for too long") from None
    except (OSError, EOFError, msgspec.DecodeError, UnicodeDecodeError, FrameError) as error:
        raise TransferFailed(f"node {peer}: {error or type(error).__name__}") from None
    finally:
        # What is still unsent is for nobody any more.
        writer.transport.abort()
    if taken.problem is not None:
        failure = DoubtfulSnapshot if taken.damaged else TransferFailed
        raise failure(f"node {peer}: {taken.problem}")


async def _send_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, file: File, offer: Offer) -> bytes:
    """Send what the peer is to have; returns its answer's frame, which may come early where it does not want it."""
    encoder = FrameEncoder()
    answer = asyncio.get_running_loop().create_task(read_frame(reader, MAX_ANSWER_BYTES), name="snapshot-answer")
    # Looked at, so that nobody warns of it: what ends the reading ends the sending as well, which reports it.
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        writer.write(encoder.encode(offer))
        offset = 0
        while offset < offer.size_bytes and not answer.done():
            try:
                data = file.read_at(offset, CHUNK_BYTES)
            except OSError as error:
                raise DoubtfulSnapshot(f"our own file cannot be read at {offset}: {error}") from None
            if not data:
                raise DoubtfulSnapshot(f"our own file ended at {offset} of {offer.size_bytes} bytes")
            writer.write(encoder.encode(Chunk(offset, data)))
            offset += len(data)
            async with asyncio.timeout(CHUNK_TIMEOUT_S):
                await writer.drain()
            # Between two chunks the rest of the node has its turn.
            await asyncio.sleep(0)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while not answer.done():
                writer.write(KEEP_ALIVE)
                await asyncio.wait([answer], timeout=KEEP_ALIVE_INTERVAL_S)
        return answer.result()
    finally:
        answer.cancel()


class _Reception:
    """One snapshot that is coming in."""

    def __init__(self, peer: int, offer: Offer, receiver: Receiver) -> None:
        self.peer = peer
        self.offer = offer
        self.receiver = receiver
        self.received_bytes = 0
        self.finishing: asyncio.Task[None] | None = None


class TransferReceiver:
    """Takes snapshot connections' frames; `arrived(peer, offer)` is awaited when one is whole and durable."""

    def __init__(
        self, snapshots: Snapshots, services: dict[int, str], arrived: Callable[[int, Offer], Awaitable[None]]
    ) -> None:
        self._snapshots = snapshots
        self._services = services
        self._arrived = arrived
        self._decoder = msgspec.msgpack.Decoder(_Incoming)
        self._receptions: dict[IncomingTransfer, _Reception] = {}
        self._refused: set[IncomingTransfer] = set()
        """The senders were told, and will hang up; chunks that were on their way are ignored."""

    def frame(self, connection: IncomingTransfer, peer: int, body: bytes) -> None:
        """Raises FrameError or msgspec.DecodeError for nonsense; the connection is cut then."""
        message: Offer | Chunk = self._decoder.decode(body)
        if connection in self._refused:
            return
        reception = self._receptions.get(connection)
        if isinstance(message, Offer):
            if reception is not None:
                raise FrameError("a second snapshot was offered on one connection")
            self._begin(connection, peer, message)
        elif reception is None:
            raise FrameError("a chunk came before the offer of its snapshot")
        else:
            self._take_chunk(connection, peer, reception, message)

    def ended(self, connection: IncomingTransfer) -> None:
        self._refused.discard(connection)
        reception = self._receptions.pop(connection, None)
        if reception is not None and reception.finishing is None:
            _log.warning("a snapshot of group %d was cut off on its way", reception.offer.group)
            reception.receiver.abandon()

    def _begin(self, connection: IncomingTransfer, peer: int, offer: Offer) -> None:
        expected = self._services.get(offer.group)
        if expected != offer.service:
            self._refuse(connection, f"group {offer.group} is {expected!r} here, not {offer.service!r}")
            return
        if not self._supersede(connection, offer):
            return
        _log.info(
            "node %d sends a snapshot of group %d at position %d, %d bytes",
            peer,
            offer.group,
            offer.position,
            offer.size_bytes,
        )
        try:
            receiver = self._snapshots.receive(
                offer.group, offer.position, offer.position_generation, offer.size_bytes, offer.service
            )
        except (OSError, ValueError) as error:
            self._refuse(connection, f"cannot store it: {error}")
            return
        self._receptions[connection] = _Reception(peer, offer, receiver)

    def _supersede(self, connection: IncomingTransfer, offer: Offer) -> bool:
        """End what comes in already for the group; False, and `connection` refused, where that is by a later leader."""
        coming = [
            (other, reception)
            for other, reception in self._receptions.items()
            if reception.offer.group == offer.group and reception.finishing is None
        ]
        for _, reception in coming:
            generation = reception.offer.generation
            if generation > offer.generation:
                problem = f"node {reception.peer} already sends it a snapshot by the leader of generation {generation}"
                self._refuse(connection, problem)
                return False
        for other, reception in coming:
            _log.info("a snapshot of group %d from node %d gives way to a newer one", offer.group, reception.peer)
            del self._receptions[other]
            reception.receiver.abandon()
            other.abort()
        return True

    def _take_chunk(self, connection: IncomingTransfer, peer: int, reception: _Reception, chunk: Chunk) -> None:
        if reception.finishing is not None or chunk.offset != reception.received_bytes:
            raise FrameError(f"a chunk at {chunk.offset} where {reception.received_bytes} was next")
        try:
            reception.receiver.write(chunk.offset, chunk.data)
        except OSError as error:
            self._receptions.pop(connection).receiver.abandon()
            self._refuse(connection, f"cannot store it: {error}")
            return
        reception.received_bytes += len(chunk.data)
        if reception.received_bytes >= reception.offer.size_bytes:
            loop = asyncio.get_running_loop()
            reception.finishing = loop.create_task(self._finish(connection, peer, reception), name="snapshot-arrives")

    async def _finish(self, connection: IncomingTransfer, peer: int, reception: _Reception) -> None:
        try:
            await reception.receiver.finish()
        except (OSError, CorruptSnapshot) as error:
            _log.error("a snapshot from node %d was not accepted: %s", peer, error)
            self._answer(connection, f"not accepted: {error}", damaged=isinstance(error, CorruptSnapshot))
            return
        await self._arrived(peer, reception.offer)
        self._answer(connection, None)

    def _refuse(self, connection: IncomingTransfer, problem: str) -> None:
        self._refused.add(connection)
        self._answer(connection, problem)

    def _answer(self, connection: IncomingTransfer, problem: str | None, *, damaged: bool = False) -> None:
        transport = connection.transport
        if transport is not None:
            transport.write(FrameEncoder().encode(Taken(problem, damaged)))
