"""Asks who is at an address, without being let in: for one who wants to add a node, or to join."""

from __future__ import annotations

import asyncio

from quorate.net.connection import HANDSHAKE_FRAME_BYTES, read_frame
from quorate.net.frames import FrameEncoder, FrameError
from quorate.net.handshake import ANY_NODE, HandshakeRefused, LocalIdentity, Portrait, Purpose, conclude_probe, greet


async def probe(address: tuple[str, int], local: LocalIdentity, timeout_s: float) -> Portrait:
    """Who listens for peers at `address`.

    Raises OSError where nobody does, TimeoutError, and HandshakeRefused where it is no node
    of Quorate or one of another wire version.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(FrameEncoder().encode(greet(local, ANY_NODE, Purpose.PROBE)))
            return conclude_probe(await read_frame(reader, HANDSHAKE_FRAME_BYTES))
        except EOFError:
            raise HandshakeRefused("it closed the connection during the handshake") from None
        except FrameError as error:
            raise HandshakeRefused(f"the answer is not a Quorate handshake: {error}") from None
        finally:
            writer.transport.abort()
