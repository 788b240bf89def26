"""Talk to a node's admin listener: its status, the members, changes, backups.

The admin listener speaks HTTP/1.1.  Someone who knows only a port for clients may give that
one instead: ZooKeeper's four-letter word `conf` tells where the admin listener is, and so
does a method of our own beside etcd's (not where that port wants TLS).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import h11
import msgspec

from quorate.node.config import WILDCARD_HOSTS, Address, parse_address
from quorate.services.etcd.options import ADMIN_METHOD

MAX_ANSWER_BYTES = 8 << 20
MAX_PROBLEM_BYTES = 1000
"""Of an answer that is no backup, to be shown."""


class MemberStatus(msgspec.Struct, frozen=True):
    """One member as the answering node knows it.  `admin` is empty while the two have not met."""

    node: int
    peer: str
    admin: str | None = None
    connected: bool = False
    voter: bool = True
    refilling: bool = False
    """It lost its data folder and votes again as soon as it has caught up."""
    leaving: bool = False
    """Removed, but some group has not followed yet."""
    incarnation: str | None = None
    """Of its data folder; empty while it has never come."""
    replaces: int | None = None
    """The member in whose place it is to vote; that leaves in the same step."""


class Membership(msgspec.Struct, frozen=True):
    """How far the decisions about the members are."""

    version: int = 0
    under_way: Mapping[str, int] = {}
    """Groups that have not followed to `version`, and which version they have."""
    cluster_id: str | None = None


class Members(msgspec.Struct, frozen=True):
    """`GET /members`."""

    cluster: str
    version: int
    under_way: Mapping[str, int]
    members: tuple[MemberStatus, ...]
    cluster_id: str | None = None

    def member(self, node: int) -> MemberStatus | None:
        return next((member for member in self.members if member.node == node), None)


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
    protocol: str = "raft"
    leadership: str = ""
    """The generation in the protocol's own words; empty from a node that knows one protocol only."""
    snapshot_bytes: int = 0
    voters: tuple[int, ...] = ()
    old_voters: tuple[int, ...] = ()
    """Not empty while one set of voters takes over from the other: both must decide."""

    def in_own_words(self) -> tuple[str, str]:
        """The leadership that the node follows: what the protocol calls it, and which it is."""
        word, _, number = (self.leadership or f"term {self.generation}").partition(" ")
        return word, number


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
    """Those of services first, the cluster's own last; none while the node is forming or joining."""
    cluster_id: str | None = None
    state: str = "member"
    """forming, joining or member."""
    waiting_for: str | None = None
    membership: Membership = Membership()
    log_bytes: int = 0
    log_full: bool = False
    endpoints: Mapping[str, str] = {}


class NodeAnswer(msgspec.Struct, frozen=True):
    """A node's status, typed and as it came."""

    status: NodeStatus
    raw: dict[str, Any]


class Verdict(msgspec.Struct, frozen=True):
    """What a node did about a change, or would do."""

    done: bool = False
    version: int = 0
    lines: tuple[str, ...] = ()
    problem: str | None = None
    """Why it cannot be done."""
    danger: str | None = None
    """What would be lost; it is done only by force."""
    leader: int | None = None
    """Who leads the group, where another node has to be asked."""
    leader_admin: str | None = None


class NoAnswer(Exception):
    """Nothing that can be used came from an address; the message says why, without the address."""


class Undecided(Exception):
    """A change was asked for, and whether it was made is unknown."""


async def fetch_status(address: Address, timeout_s: float) -> NodeAnswer:
    """`GET /status` from an admin listener.  Raises NoAnswer."""
    body = await _get(address, "/status", timeout_s)
    return NodeAnswer(_decode(body, NodeStatus), _decode(body, dict[str, Any]))


async def fetch_members(address: Address, timeout_s: float) -> Members:
    """`GET /members` from an admin listener.  Raises NoAnswer."""
    return _decode(await _get(address, "/members", timeout_s), Members)


async def ask_for_change(address: Address, path: str, body: Mapping[str, object], timeout_s: float) -> Verdict:
    """`POST` to an admin listener.  Raises NoAnswer where the request did not reach it, else Undecided.

    A dry run changes nothing, so that there nothing is ever undecided.
    """
    connected = False

    def sent() -> None:
        nonlocal connected
        connected = True

    async def post() -> tuple[int, bytes]:
        answer = bytearray()
        data = msgspec.json.encode(body)
        status = await _exchange(address, "POST", path, data, lambda _, piece: answer.extend(piece), sent)
        return status, bytes(answer)

    try:
        status, answer = await _bounded(post(), timeout_s)
    except NoAnswer as error:
        if not connected:
            raise
        raise _unless(body, Undecided(str(error))) from error
    if status in (404, 405):
        raise NoAnswer(f"it answers HTTP status {status}: it does not know {path}")
    if status not in (200, 400, 409, 503):
        raise _unless(body, Undecided(f"it answers HTTP status {status}"))
    try:
        verdict = _decode(answer, Verdict)
    except NoAnswer as error:
        raise _unless(body, Undecided(str(error))) from error
    if status == 503:
        raise _unless(body, Undecided(verdict.problem or "no leader decided in time"))
    return verdict


def _unless(body: Mapping[str, object], error: Undecided) -> Exception:
    return NoAnswer(str(error)) if body.get("dry_run") else error


async def fetch_backup(address: Address, silence_s: float, take: Callable[[bytes], object]) -> None:
    """`GET /backup`: hands over the bytes as they come.  Raises NoAnswer, where it stops for `silence_s` too.

    That the end is there is for the file itself to tell.
    """
    loop = asyncio.get_running_loop()
    problem = bytearray()
    try:
        async with asyncio.timeout(silence_s) as deadline:

            def take_and_go_on(status: int, data: bytes) -> None:
                deadline.reschedule(loop.time() + silence_s)
                if status == 200:
                    take(data)
                else:
                    problem.extend(data[:MAX_PROBLEM_BYTES])

            status = await _named(_exchange(address, "GET", "/backup", None, take_and_go_on, most_bytes=None))
    except TimeoutError as error:
        raise NoAnswer(f"nothing came for {silence_s:g} s") from error
    if status != 200:
        why = problem.decode("utf-8", "replace").strip()
        raise NoAnswer(f"it answers HTTP status {status}{f' ({why})' if why else ''}")


async def find_admin(client_address: Address, timeout_s: float) -> Address:
    """Ask a port for clients where its node's admin listener is.  Raises NoAnswer."""
    for ask in (_ask_zookeeper_port, _ask_etcd_port):
        with contextlib.suppress(NoAnswer):
            if answer := await _bounded(ask(client_address), timeout_s):
                break
    else:
        raise NoAnswer("it is neither a Quorate node's admin listener nor one of its ports for clients")
    try:
        return reachable(parse_address(answer), client_address)
    except ValueError as error:
        raise NoAnswer(f"it says that its admin listener is at {error}") from error


async def _ask_zookeeper_port(address: Address) -> str:
    """Empty where the answer is no answer."""
    text = (await _four_letter_word(address, b"conf")).decode("utf-8", "replace")
    found = (line.partition("=") for line in text.splitlines())
    return next((value.strip() for name, _, value in found if name.strip() == "adminEndpoint"), "")


async def _ask_etcd_port(address: Address) -> str:
    """Raises NoAnswer."""
    # Imported by whoever needs it: few do, and HTTP/2 takes its time.
    from quorate.net.grpc.client import Channel
    from quorate.net.grpc.status import GrpcError

    channel = Channel(*address)
    try:
        await channel.connect()
        return (await channel.unary(ADMIN_METHOD, b"")).decode("utf-8", "replace")
    except GrpcError as error:
        raise NoAnswer(str(error)) from error
    finally:
        await channel.close()


def reachable(address: Address, known: Address) -> Address:
    """Where to connect to a listener on every interface: the host at which its node is known."""
    return Address(known.host, address.port) if address.host in WILDCARD_HOSTS else address


_Answer = TypeVar("_Answer")


def _decode(body: bytes, shape: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NoAnswer(f"it answers, but not like a Quorate node's admin listener ({error})") from error


async def _get(address: Address, path: str, timeout_s: float) -> bytes:
    answer = bytearray()
    exchange = _exchange(address, "GET", path, None, lambda _, piece: answer.extend(piece))
    status = await _bounded(exchange, timeout_s)
    if status != 200:
        raise NoAnswer(f"it answers HTTP status {status}")
    return bytes(answer)


async def _bounded(question: Awaitable[_Answer], timeout_s: float) -> _Answer:
    try:
        async with asyncio.timeout(timeout_s):
            return await _named(question)
    except TimeoutError as error:
        raise NoAnswer(f"no answer within {timeout_s:g} s") from error


async def _named(question: Awaitable[_Answer]) -> _Answer:
    """Tell what kept the network from answering as NoAnswer.  TimeoutError is left to whoever set the time."""
    try:
        return await question
    except TimeoutError:
        raise
    except ConnectionRefusedError as error:
        raise NoAnswer("connection refused") from error
    except OSError as error:
        raise NoAnswer(error.strerror or str(error)) from error
    except h11.RemoteProtocolError as error:
        raise NoAnswer(f"it does not speak HTTP ({error})") from error


async def _exchange(
    address: Address,
    method: str,
    path: str,
    body: bytes | None,
    take: Callable[[int, bytes], object],
    connected: Callable[[], object] = lambda: None,
    *,
    most_bytes: int | None = MAX_ANSWER_BYTES,
) -> int:
    """One request; the answer's status and body go to `take`, a piece at a time.  Returns the status."""
    http = h11.Connection(our_role=h11.CLIENT)
    headers = [("Host", str(address)), ("Accept", "*/*"), ("Connection", "close")]
    if body is not None:
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    request = http.send(h11.Request(method=method, target=path, headers=headers)) or b""
    if body is not None:
        request += http.send(h11.Data(data=body)) or b""
    request += http.send(h11.EndOfMessage()) or b""
    reader, writer = await asyncio.open_connection(*address)
    try:
        connected()
        writer.write(request)
        status = size = 0
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if most_bytes is not None and size > most_bytes:
                    raise NoAnswer(f"its answer is larger than {most_bytes} bytes")
                take(status, bytes(event.data))
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return status
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
