"""Sessions of etcdctl: the same commands to two servers, and what is said apart from ids, times and addresses."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from quorate.services.etcd import etcd_pb2 as pb
from tests.processes.cluster import READY_S, eventually
from tests.services.etcd.peer import Peer, etcdctl, running_etcdctl

WITHOUT_MEANING = (
    (r'"(cluster_id|member_id|raft_term|leader|ID|id|raftIndex|raftTerm|raftAppliedIndex|lease)":\d+', r'"\1":N'),
    (r'"(dbSize|dbSizeInUse|ttl|took)":("[^"]*"|\d+)', r'"\1":N'),
    (r'"(ClusterID|MemberID|RaftTerm|Leader|RaftIndex|RaftAppliedIndex|DBSize|ID|Lease)" : [1-9]\d*', r'"\1" : N'),
    (r"http://127\.0\.0\.1:\d+", "URL"),
    (r"127\.0\.0\.1:\d+", "ENDPOINT"),
    (r"endpoint://client-[-0-9a-f]+/", "endpoint://"),
    (r"\b[0-9a-f]{13,16}\b", "ID"),
    (r"\b\d+\.\d+[nµm]?s\b|(?<=remaining\()\d+s", "T"),
    (r"(?s)goroutine \d+ .*", ""),  # etcdctl's own panics
    (r"\d+(\.\d+)? [kKMG]?i?B\b", "SIZE"),
    (r"\b3\.\d+\.\d+\b", "VERSION"),
    (r"\b(etcd0|node-?0)\b", "NAME"),
    (r"-{3,}", "---"),  # the widths of tables
    (r" {2,}", " "),
)
"""Patterns of what may differ, and what stands there instead."""

STATUS_NUMBERS = re.compile(r"(true|false), \d+, \d+, \d+, |(true|false) \| +\d+ \| +\d+ \| +\d+ \|")
"""Raft term, index and applied index in `endpoint status`."""


KEYS_OF_A_LEASE = re.compile(r'(?<="keys":\[)[^\]]*|(?<=attached keys\(\[)[^\]]*')
"""etcd lists them as it finds them in a map of Go's: in another order each time."""


def meaning(text: str) -> str:
    """What is left to compare."""
    text = KEYS_OF_A_LEASE.sub(lambda keys: " ".join(sorted(re.split("[ ,]", keys[0]))), text)
    text = STATUS_NUMBERS.sub("N", text)
    lines = [log_line(line) if line.startswith('{"level"') else line for line in text.splitlines()]
    text = "\n".join(lines)
    for pattern, replacement in WITHOUT_MEANING:
        text = re.sub(pattern, replacement, text)
    return text


def log_line(line: str) -> str:
    """What the client library says of a retry: without when, and where in its code."""
    logged: dict[str, Any] = json.loads(line)
    return f"{logged['msg']}: {logged.get('error')}"


class Session:
    """etcdctl and one server.

    In commands `{r}` stands for the revision at the start, so that `{r}` in braces with a number behind it is written
    `{r1}`, `{r2}`...; `{lease}` is the lease that was granted last.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.lease = "0"
        self.base = 0
        self.said: list[str] = []
        """Each command with what came, in order."""

    def revision(self) -> int:
        [status] = json.loads(etcdctl(self.peer.endpoints[:1], "endpoint", "status", "-w", "json").stdout)
        return int(status["Status"]["header"]["revision"])

    def arguments(self, command: str) -> list[str]:
        revisions = {f"r{ahead}": self.base + ahead for ahead in range(30)}
        return shlex.split(command.format(lease=self.lease, lease_number=int(self.lease, 16), **revisions))

    def run(self, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end and note what it said."""
        stdin = stdin.format(lease=self.lease, lease_number=int(self.lease, 16), r0=self.base)
        answer = etcdctl(self.peer.endpoints, *self.arguments(command), stdin=stdin)
        self.note(command, f"exit code {answer.returncode}", answer.stdout, answer.stderr)
        if granted := re.match(r"lease ([0-9a-f]+) granted", answer.stdout):
            self.lease = granted[1]
        return answer

    def note(self, command: str, *said: str) -> None:
        self.said.append("\n".join([f"$ etcdctl {command}", *map(meaning, said)]))

    def decode(self, command: str, kind: type[Message]) -> None:
        """Note a response in protobuf."""
        arguments = ["etcdctl", "--endpoints", self.peer.endpoints[0], *self.arguments(command), "-w", "protobuf"]
        output = subprocess.run(
            arguments, capture_output=True, check=True, env={**os.environ, "ETCDCTL_API": "3"}
        ).stdout
        message: Any = kind.FromString(output)
        message.header.CopyFrom(pb.ResponseHeader(cluster_id=1, member_id=1, revision=message.header.revision))
        self.note(command, MessageToString(message))

    def start(self, command: str) -> Running:
        """A command that goes on."""
        return Running(self, command)


class Running:
    """An etcdctl that goes on: what it prints can be waited for.  Use it as a context manager."""

    def __init__(self, session: Session, command: str) -> None:
        self._command = command
        self._context = running_etcdctl(session.peer.endpoints, *session.arguments(command))
        self.output = ""
        self.errors = ""

    def __enter__(self) -> Running:
        self._process = self._context.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._context.__exit__(None, None, None)

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def says(self, text: str, within_s: float) -> bool:
        """Read until the text was printed, the output ended or the time is over."""
        deadline_s = time.monotonic() + within_s
        assert self._process.stdout is not None
        while text not in self.output:
            left_s = deadline_s - time.monotonic()
            readable, _, _ = select.select([self._process.stdout], [], [], max(left_s, 0))
            chunk = os.read(self._process.stdout.fileno(), 65536) if readable else b""
            if not chunk:
                return False
            self.output += chunk.decode()
        return True

    def wait_for(self, text: str) -> None:
        """Read until the text was printed."""
        found = self.says(text, READY_S)
        assert found, f"`etcdctl {self._command}` never said {text!r}; it said {self.output!r}"

    def close_input(self) -> int:
        """Say that nothing more comes; the exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.stdin = None
        return self.end()

    def interrupt(self) -> int:
        """As Ctrl-C does; the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Wait until it has ended and read what is left; the exit code."""
        output, errors = self._process.communicate(timeout=READY_S)
        self.output += output.decode()
        self.errors = errors.decode()
        return int(self._process.returncode)


def begin(peers: Sequence[Peer]) -> list[Session]:
    """Sessions on empty stores of one revision, whatever the servers were asked before."""
    sessions = [Session(peer) for peer in peers]
    for session in sessions:
        for line in etcdctl(session.peer.endpoints, "lease", "list").stdout.splitlines()[1:]:
            etcdctl(session.peer.endpoints, "lease", "revoke", line)
        etcdctl(session.peer.endpoints, "del", "--prefix", "")
    goal = max(session.revision() for session in sessions) + 2
    for session in sessions:
        while session.revision() < goal - 1:
            etcdctl(session.peer.endpoints, "put", "pad", "")
        etcdctl(session.peer.endpoints, "del", "pad")
        session.base = eventually(session.revision, "the server answers")
    assert len({session.base for session in sessions}) == 1, [session.base for session in sessions]
    return sessions


def compare(sessions: Sequence[Session]) -> None:
    """Every command of the first session was answered to the second alike; raises AssertionError that shows all."""
    theirs, ours = sessions
    differences = [
        f"--- {theirs.peer.name}\n{one}\n--- {ours.peer.name}\n{other}"
        for one, other in zip(theirs.said, ours.said, strict=True)
        if one != other
    ]
    assert not differences, f"{len(differences)} of {len(theirs.said)} differ\n" + "\n\n".join(differences)
