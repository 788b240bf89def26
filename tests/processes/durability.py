"""Does a node ever say what its disk does not hold yet?  Judged from the trace of its system calls.

Read off the calls: the blocks written to the log, the return of the syncs that made them
durable, and the frames that left towards peers and clients.  A frame counts as sent when
the call that holds its first byte was entered.  At that moment the disk must durably hold

- what a message to a peer says of it (`revealed`);
- on this very node, the entry of every write that a reply to a client shows: its own
  result, or a later state of the tree, which the zxid in the reply's header tells.
"""

from __future__ import annotations

import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.records import CompactedThrough, SaveEntry, SaveState, TruncateFrom
from quorate.node.wire import items_decoder
from quorate.storage.log_blocks import SEGMENT_HEADER_BYTES, Block, LogRecord, decode_block, decode_records
from tests.processes.revealed import Disk, claims
from tests.processes.syscalls import Call, parse

SEGMENT = re.compile(r".*/log/(\d{16})\.segment")
SOCKET = re.compile(r"TCP:\[127\.0\.0\.1:(\d+)->127\.0\.0\.1:(\d+)\]")
SENDING = {"write", "writev", "sendto", "sendmsg"}
SNAPSHOT_HELLO = b"\xa7purpose\xa8snapshot"


@dataclass(slots=True)
class Durable(Disk):
    """And where the writes are that are followed."""

    positions: dict[bytes, int] = field(default_factory=dict)
    """Marker of a write -> position of its entry."""

    def take(self, record: LogRecord, marker: re.Pattern[bytes]) -> None:
        if isinstance(record, SaveState):
            self.state = record.data
        elif isinstance(record, SaveEntry):
            entry = record.entry
            self.entries[entry.position] = entry.generation
            for found in marker.findall(entry.payload):
                self.positions[found] = entry.position
        elif isinstance(record, TruncateFrom):
            self.entries = {at: generation for at, generation in self.entries.items() if at < record.position}
        elif isinstance(record, CompactedThrough):
            self.compacted = max(self.compacted, record.position)


@dataclass(frozen=True, slots=True)
class Writes:
    """The writes whose way is followed: a pattern for the markers in their data, and the zxid of each marker."""

    marker: re.Pattern[bytes]
    zxids: Mapping[bytes, int]


@dataclass(slots=True)
class Verdict:
    """What was wrong, and how much was looked at."""

    violations: list[str] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Frame:
    line: int
    body: bytes
    to_node: int | None
    """None where it went to a client."""


def judge(
    lines: Iterable[str], node: int, zookeeper_port: int, peer_ports: Mapping[int, int], writes: Writes
) -> Verdict:
    """`lines` trace one node, all of its life on a new data folder.  `peer_ports` maps the others' ports to their ids.

    Raises ValueError where the trace cannot be read.
    """
    calls = list(parse(lines))
    verdict = Verdict()
    judge_ = _Judge(node, writes, verdict)
    events: list[tuple[int, int, Call | _Frame]] = []
    for call in calls:
        if SEGMENT.fullmatch(call.target):
            # The first number orders, the second tells entering (0) from returning (1).
            events += [(call.entered, 0, call), (call.returned, 1, call)]
    events += [(frame.line, 0, frame) for frame in _frames(calls, zookeeper_port, peer_ports)]
    for _, moment, event in sorted(events, key=lambda item: item[:2]):
        if isinstance(event, _Frame):
            judge_.sent(event)
        elif moment == 0:
            judge_.entered(event)
        else:
            judge_.returned(event)
    return verdict


class _Judge:
    """Follows the disk of one node and looks at each frame in its moment."""

    def __init__(self, node: int, writes: Writes, verdict: Verdict) -> None:
        self._node = node
        self._writes = writes
        self._verdict = verdict
        self._durable: defaultdict[int, Durable] = defaultdict(Durable)
        """By group: they share the log, and nothing else."""
        self._images: dict[str, bytearray] = {}
        self._ends: dict[str, int] = {}
        self._unsynced: dict[str, list[tuple[int, LogRecord]]] = {}
        self._covered: dict[int, tuple[str, int]] = {}
        """A sync under way, by the line where it was entered -> its file and how many records it covers."""

    def entered(self, call: Call) -> None:
        if call.name in ("fdatasync", "fsync"):
            self._covered[call.entered] = call.target, len(self._unsynced.get(call.target, ()))

    def returned(self, call: Call) -> None:
        if call.name in ("fdatasync", "fsync"):
            _, count = self._covered.pop(call.entered)
            if call.result == 0:
                self._made_durable(call, count)
        elif call.result is not None and call.result > 0:
            assert call.name == "pwrite64" and call.offset is not None, f"the log is written by {call.name}"
            self._written(call.target, call.offset, call.data[: call.result])

    def _made_durable(self, call: Call, count: int) -> None:
        unsynced = self._unsynced.get(call.target, [])
        for group, record in unsynced[:count]:
            self._durable[group].take(record, self._writes.marker)
        del unsynced[:count]
        for line, (file, covered) in self._covered.items():
            if file == call.target:
                # Two syncs of one file at a time: what this one did is none of the other's work any more.
                self._covered[line] = file, max(0, covered - count)

    def _written(self, path: str, offset: int, data: bytes) -> None:
        image = self._images.setdefault(path, bytearray())
        if len(image) < offset + len(data):
            image.extend(bytes(offset + len(data) - len(image)))
        image[offset : offset + len(data)] = data
        match = SEGMENT.fullmatch(path)
        assert match is not None
        at = self._ends.get(path, SEGMENT_HEADER_BYTES)
        while isinstance(block := decode_block(bytes(image), int(match[1]), at), Block):
            self._unsynced.setdefault(path, []).extend((group, record) for _, group, record in decode_records(block))
            self._verdict.checked["blocks"] += 1
            at = block.end
        self._ends[path] = at

    def sent(self, frame: _Frame) -> None:
        if frame.to_node is None:
            self._reply_sent(frame)
            return
        for group, message in items_decoder(PROTOCOLS.values()).decode(frame.body):
            for claim in claims(message, self._node, frame.to_node, self._durable[group]):
                self._look(frame.line, message, claim.holds, claim.but)
                if claim.kind:
                    self._verdict.checked[claim.kind] += 1
            self._verdict.checked[f"messages {type(message).__name__}"] += 1

    def _reply_sent(self, frame: _Frame) -> None:
        _, zxid, _ = struct.unpack_from(">iqi", frame.body)
        shown = [marker for marker, own in self._writes.zxids.items() if own <= zxid]
        if not shown:
            return
        self._verdict.checked["replies"] += 1
        missing = [marker for marker in shown if not self._is_durable(marker)]
        self._look(frame.line, f"a reply with zxid {zxid:#x}", not missing, f"not durable are {missing[:5]}")

    def _is_durable(self, marker: bytes) -> bool:
        return any(
            marker in durable.positions and durable.holds_through(durable.positions[marker])
            for durable in self._durable.values()
        )

    def _look(self, line: int, what: object, right: bool, but: str) -> None:
        if not right:
            self._verdict.violations.append(f"line {line}: {what} leaves, but {but}")


def _frames(calls: Iterable[Call], zookeeper_port: int, peer_ports: Mapping[int, int]) -> list[_Frame]:
    """Every frame but the first of each connection to a client or a peer, which is the handshake."""
    streams: dict[str, _Stream] = {}
    for call in sorted(calls, key=lambda call: call.entered):
        ends = SOCKET.fullmatch(call.target)
        if ends is None or not call.result or call.result < 0:
            continue
        local, remote = int(ends[1]), int(ends[2])
        if local == zookeeper_port or remote in peer_ports:
            if call.name not in SENDING:
                raise ValueError(f"bytes are sent by {call.name}, which is not understood")
            stream = streams.setdefault(call.target, _Stream(peer_ports.get(remote)))
            stream.feed(call.entered, call.data[: call.result])
    return [frame for stream in streams.values() for frame in stream.frames()]


class _Stream:
    """The bytes sent on one connection, and the line at which each piece left."""

    def __init__(self, to_node: int | None) -> None:
        self._to_node = to_node
        self._data = bytearray()
        self._pieces: list[tuple[int, int]] = []
        """(offset, line), ascending."""

    def feed(self, line: int, data: bytes) -> None:
        self._pieces.append((len(self._data), line))
        self._data += data

    def frames(self) -> list[_Frame]:
        found: list[_Frame] = []
        at = 0
        bodies: list[tuple[int, bytes]] = []
        while at + 4 <= len(self._data):
            length = int.from_bytes(self._data[at : at + 4], "big")
            body = bytes(self._data[at + 4 : at + 4 + length])
            if len(body) < length:
                break
            bodies.append((at, body))
            at += 4 + length
        if bodies and self._to_node is not None and SNAPSHOT_HELLO in bodies[0][1]:
            return []
        for offset, body in bodies[1:]:
            line = max(line for start, line in self._pieces if start <= offset)
            if body:
                found.append(_Frame(line, body, self._to_node))
        return found
