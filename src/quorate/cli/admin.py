"""Ask a node's admin listener for its status.

The admin listener speaks HTTP/1.1.  Someone who knows only the port for ZooKeeper clients
may give that one instead: the four-letter word `conf` tells where the admin listener is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import h11
import msgspec

from quorate.node.config import WILDCARD_HOSTS, Address, parse_address

MAX_ANSWER_BYTES = 8 << 20


class MemberStatus(msgspec.Struct, frozen=True):
    """One member as the answering node knows it.  `admin` is empty while the two have not met."""

    node: int
    peer: str
    admin: str | None = None
    connected: bool = False


class GroupStatus(msgspec.Struct, frozen=True):
    """One replicated group on the answering node.  Positions in entries, sizes in bytes."""

    group: int
    service: str
    role: str
    leader: int | None
    generation: int
    ready: bool
    commit_position: int
    applied_position: int
    snapshot_bytes: int = 0


class NodeStatus(msgspec.Struct, frozen=True):
    """What commands use of `GET /status`.  Role, leader and generation are those of the first group."""

    cluster: str
    node: int
    protocol: str
    role: str
    leader: int | None
    generation: int
    ready: bool
    members: tuple[MemberStatus, ...]
    groups: tuple[GroupStatus, ...]
    log_bytes: int = 0
    log_full: bool = False
    endpoints: Mapping[str, str] = {}


class NodeAnswer(msgspec.Struct, frozen=True):
    """A node's status, typed and as it came."""

    status: NodeStatus
    raw: dict[str, Any]


class NoAnswer(Exception):
    """Nothing that can be used came from an address; the message says why, without the address."""


async def fetch_status(address: Address, timeout_s: float) -> NodeAnswer:
    """`GET /status` from an admin listener.  Raises NoAnswer."""
    body = await _bounded(_http_get(address, "/status"), timeout_s)
    try:
        return NodeAnswer(msgspec.json.decode(body, type=NodeStatus), msgspec.json.decode(body, type=dict[str, Any]))
    except msgspec.DecodeError as error:
        raise NoAnswer(f"it answers, but not like a Quorate node's admin listener ({error})") from error


async def find_admin(client_address: Address, timeout_s: float) -> Address:
    """Ask a port for ZooKeeper clients where its node's admin listener is.  Raises NoAnswer."""
    text = (await _bounded(_four_letter_word(client_address, b"conf"), timeout_s)).decode("utf-8", "replace")
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "adminEndpoint":
            try:
                return reachable(parse_address(value.strip()), client_address)
            except ValueError as error:
                raise NoAnswer(f"it says that its admin listener is at {error}") from error
    raise NoAnswer("it is neither a Quorate node's admin listener nor its port for ZooKeeper clients")


def reachable(address: Address, known: Address) -> Address:
    """Where to connect to a listener on every interface: the host at which its node is known."""
    return Address(known.host, address.port) if address.host in WILDCARD_HOSTS else address


async def _bounded(question: Any, timeout_s: float) -> bytes:
    try:
        async with asyncio.timeout(timeout_s):
            answer: bytes = await question
            return answer
    except TimeoutError as error:
        raise NoAnswer(f"no answer within {timeout_s:g} s") from error
    except ConnectionRefusedError as error:
        raise NoAnswer("connection refused") from error
    except OSError as error:
        raise NoAnswer(error.strerror or str(error)) from error
    except h11.RemoteProtocolError as error:
        raise NoAnswer(f"it does not speak HTTP ({error})") from error


async def _http_get(address: Address, path: str) -> bytes:
    http = h11.Connection(our_role=h11.CLIENT)
    headers = [("Host", str(address)), ("Accept", "application/json"), ("Connection", "close")]
    request = http.send(h11.Request(method="GET", target=path, headers=headers))
    request += http.send(h11.EndOfMessage()) or b""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        body = bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response) and event.status_code != 200:
                raise NoAnswer(f"it answers HTTP status {event.status_code}")
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_ANSWER_BYTES:
                    raise NoAnswer(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return bytes(body)
    finally:
        writer.close()


async def _four_letter_word(address: Address, word: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(word)
        answer = bytearray()
        while len(answer) <= MAX_ANSWER_BYTES and (data := await reader.read(65536)):
            answer += data
        return bytes(answer)
    finally:
        writer.close()
