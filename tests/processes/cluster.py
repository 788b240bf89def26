"""A cluster of real node processes, and clients for it.

Nodes run as their users run them: `python -m quorate node --config FILE`.  Each node holds
the reading end of a pipe whose writing end only the test process has (`--stop-with-fd`):
should the tests be killed, no node outlives them.

QUORATE_PROTOCOL=paxos (raft, zab, or a list as `quorate up --protocol` takes it) runs every
cluster on that instead of the defaults.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

from kazoo.client import KazooClient
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.retry import KazooRetry

from quorate.node.config import NodeConfig, make_config, render_config

READY_S = 60.0
"""How long anything that takes well under a second on an idle machine may take on a busy one."""

PROTOCOL = os.environ.get("QUORATE_PROTOCOL")

SMALL_STORAGE = {"storage": {"segment_bytes": 1 << 16, "snapshot_log_bytes": 1 << 17}}
"""The smallest log that is allowed: snapshots and changes of segments come after a few hundred writes."""

Value = TypeVar("Value")


def pause(seconds: float) -> None:
    """Let time pass where the passing of time is what is tested, or between two looks at something."""
    threading.Event().wait(seconds)


def eventually(look: Callable[[], Value | None], what: str, within_s: float = READY_S, every_s: float = 0.02) -> Value:
    """The first value of `look` that is true.  Raises AssertionError that says what did not come about."""
    deadline_s = time.monotonic() + within_s
    while True:
        value = look()
        if value:
            return value
        assert time.monotonic() < deadline_s, f"after {within_s:g} s still not so: {what}"
        pause(every_s)


class PortReservation:
    """Ports of 127.0.0.1 that nobody has, kept from other reservations until `release`.

    A port is free if it can be bound without SO_REUSEADDR.  It stays bound here, not listening,
    and with SO_REUSEADDR set afterwards, so that a node may still listen on it.  They lie
    below the range from which the kernel takes ports for outgoing connections.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self, count: int) -> list[int]:
        """So many more of them."""
        ports: list[int] = []
        while len(ports) < count:
            holder = socket.socket()
            port = random.randrange(10_000, 32_000)
            try:
                holder.bind(("127.0.0.1", port))
            except OSError:
                holder.close()
                continue
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ports.append(port)
            self._sockets.append(holder)
        return ports

    def release(self) -> None:
        for holder in self._sockets:
            holder.close()


@dataclass(frozen=True, slots=True)
class Status:
    """What `/status` of a node says, as far as tests ask."""

    role: str
    leader: int | None
    generation: int
    ready: bool
    applied_position: int
    commit_position: int
    snapshot_position: int
    log_full: bool
    raw: Mapping[str, Any]

    def reign(self) -> int:
        """The number of the leadership: Raft's term, ZAB's epoch, the round of Paxos' ballot."""
        _, _, number = self.raw["groups"][0]["leadership"].partition(" ")
        return int(number.partition(".")[0])


class Node:
    """One node process and its folder."""

    def __init__(self, config: NodeConfig, folder: Path, wrapper: Sequence[str]) -> None:
        self.config = config
        self.node = config.node
        self.folder = folder
        self.data = config.data
        self.log_path = folder / "node.log"
        self.wrapper = tuple(wrapper)
        self.process: subprocess.Popen[bytes] | None = None
        self.config_path = folder / "node.toml"
        self.paused = False
        folder.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(render_config(config))

    @property
    def address(self) -> str:
        return str(self.config.listen.zookeeper)

    @property
    def peer(self) -> str:
        """Where the other nodes reach it."""
        return str(self.config.listen.peer)

    @property
    def pid(self) -> int:
        """The node's own process, also where a wrapper such as strace started it."""
        assert self.process is not None, f"node {self.node} does not run"
        if not self.wrapper:
            return self.process.pid
        return int(self.require_status().raw["pid"])

    def start(self, stop_with: int) -> None:
        assert not self.runs(), f"node {self.node} runs already"
        arguments = [*self.wrapper, sys.executable, "-m", "quorate", "node", "--config", str(self.config_path)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*arguments, "--stop-with-fd", str(stop_with)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(stop_with,),
                start_new_session=True,
            )

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        assert self.process is not None
        if self.runs():
            self.send(signal.SIGKILL)
        self.process.wait()
        self.paused = False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask the node to stop; returns its exit code."""
        self.send(number)
        return self.exit_code()

    def exit_code(self, within_s: float = READY_S) -> int:
        """Wait for the process to end by itself."""
        assert self.process is not None
        return self.process.wait(within_s)

    def suspend(self) -> None:
        self.send(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        self.send(signal.SIGCONT)
        self.paused = False

    def clear_away(self) -> None:
        """End the process whatever its state, at the end of a test."""
        if not self.runs():
            return
        assert self.process is not None
        if not self.wrapper:
            self.process.terminate()
        # A node with a wrapper ends because its pipe did, and the wrapper with it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()

    def ask(self, path: str) -> Any:
        """The JSON at a path of the admin listener; None where the node does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.config.listen.admin}{path}", timeout=5) as answer:
                return json.load(answer)
        except (OSError, HTTPException, ValueError):
            return None

    def status(self) -> Status | None:
        """None where the node does not answer."""
        raw = self.ask("/status")
        if raw is None:
            return None
        # A node that is forming or joining has no groups yet.
        group = next(
            iter(raw["groups"]), dict.fromkeys(("applied_position", "commit_position", "snapshot_position"), 0)
        )
        return Status(
            role=raw["role"],
            leader=raw["leader"],
            generation=raw["generation"],
            ready=raw["ready"],
            applied_position=group["applied_position"],
            commit_position=group["commit_position"],
            snapshot_position=group["snapshot_position"],
            log_full=raw["log_full"],
            raw=raw,
        )

    def require_status(self) -> Status:
        return eventually(self.status, f"node {self.node} answers on its admin listener")

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_for_log(self, text: str, since: int = 0, within_s: float = READY_S) -> str:
        """The first line of the log, behind character `since`, that holds `text`."""

        def look() -> str | None:
            return next((line for line in self.log_text()[since:].splitlines() if text in line), None)

        return eventually(look, f"node {self.node} logs {text!r}", within_s)

    def resident_bytes(self) -> int:
        """Memory that the process occupies."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def segments(self) -> list[Path]:
        """The files of the log, oldest first."""
        return sorted((self.data / "log").glob("*.segment"))


class Cluster:
    """Some nodes on this machine.  `close` ends what is left of them."""

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        settings: Mapping[str, Mapping[str, int]] | None = None,
        *,
        name: str = "tested",
        data_folders: Mapping[int, Path] | None = None,
        wrapper: Callable[[int], Sequence[str]] = lambda node: (),
        services: Sequence[str] = ("zookeeper",),
        protocol: str | None = PROTOCOL,
    ) -> None:
        """`settings` are sections of the configuration, the same for all nodes; `wrapper` precedes a node's command."""
        self._reservation = PortReservation()
        peers = {str(node): f"127.0.0.1:{port}" for node, port in enumerate(self._reservation.take(nodes))}
        self.folder = folder
        self.name = name
        self._settings = settings or {}
        self._services = services
        self._protocol = protocol
        self._clients: list[Any] = []
        self._closed = False
        self._pipe_reading, self._pipe_writing = os.pipe()
        self.nodes: list[Node] = []
        """Those that belong to the cluster, or are to."""
        self.former: list[Node] = []
        """Those that were removed."""
        for node in range(nodes):
            self._make_node(node, peers, (data_folders or {}).get(node), wrapper(node))

    # --- nodes -------------------------------------------------------------------------------

    def _make_node(
        self, node: int, peers: Mapping[str, str], data: Path | None, wrapper: Sequence[str] = (), join: bool = False
    ) -> Node:
        ports = self._reservation.take(len(self._services) + 1)
        listeners = zip([*self._services, "admin"], ports, strict=True)
        folder = self.folder / f"node-{node}"
        settings = {
            "cluster": self.name,
            "node": node,
            "data": str(data or folder / "data"),
            "members": peers,
            "services": [*self._services],
            "listen": {listener: f"127.0.0.1:{port}" for listener, port in listeners},
            **({"join": True} if join else {}),
            **({"protocol": self._protocol} if self._protocol is not None else {}),
            **self._settings,
        }
        self.nodes.append(Node(make_config(settings), folder, wrapper))
        return self.nodes[-1]

    def new_node(self, node: int) -> Node:
        """A node that is to join, with an empty folder.  Its settings name the members of now; it does not run yet."""
        peers = {str(member.node): member.peer for member in self.nodes}
        [port] = self._reservation.take(1)
        return self._make_node(node, {**peers, str(node): f"127.0.0.1:{port}"}, None, join=True)

    def node(self, number: int) -> Node:
        """The node of that id."""
        return next(node for node in self.nodes if node.node == number)

    def has_left(self, node: Node) -> None:
        """The node is no member any more."""
        self.nodes.remove(node)
        self.former.append(node)

    def command(self, *arguments: str, within_s: float = READY_S) -> subprocess.CompletedProcess[str]:
        """Run `quorate ARGUMENTS --endpoint ...` with the admin listeners of all nodes that run."""
        endpoints = [
            text for node in self.nodes if node.runs() for text in ("--endpoint", str(node.config.listen.admin))
        ]
        return quorate(*arguments, *endpoints, within_s=within_s)

    def members(self) -> Mapping[str, Any] | None:
        """What `GET /members` says on the node that knows the newest version; None where no member answers."""
        found = [members for node in self.nodes if node.runs() and (members := node.ask("/members")) is not None]
        # A node that is forming or joining has version 0 and tells what stands in its settings.
        newest = max(found, key=lambda members: int(members["version"]), default=None)
        return newest if newest is not None and newest["version"] else None

    def wait_until_it_came(self, number: int) -> None:
        """Wait until the members know the folder of a node that was added: before that it cannot be promoted."""

        def look() -> bool:
            members = self.members()
            return members is not None and any(m["node"] == number and m["incarnation"] for m in members["members"])

        eventually(look, f"node {number} has come")

    def wait_settled(self, voters: Sequence[int], learners: Sequence[int] = ()) -> Node:
        """Wait until these are the members, every group has them and every node has caught up; returns the leader."""

        def look() -> Node | None:
            leader = self._find_leader()
            members = leader.ask("/members") if leader is not None else None
            if leader is None or members is None or members["under_way"]:
                return None
            found = {member["node"]: member["voter"] for member in members["members"] if not member["leaving"]}
            if found != {**dict.fromkeys(voters, True), **dict.fromkeys(learners, False)}:
                return None
            groups = leader.require_status().raw["groups"]
            return leader if all(sorted(group["voters"]) == sorted(voters) for group in groups) else None

        eventually(look, f"nodes {list(voters)} vote and {list(learners)} learn, in every group")
        return self.wait_ready()

    def start(self) -> Cluster:
        """Start all nodes and wait until they are led."""
        for node in self.nodes:
            self.start_node(node)
        self.wait_ready()
        ended = [node.node for node in self.nodes if not node.runs()]
        assert not ended, f"nodes {ended} did not start: {self.nodes[ended[0]].log_text()}"
        eventually(self._know_members, "every node knows the members")
        return self

    def _know_members(self) -> bool:
        statuses = [node.status() for node in self.nodes]
        return all(status is not None and status.raw["membership"]["version"] > 0 for status in statuses)

    def start_node(self, node: Node) -> None:
        node.start(self._pipe_reading)

    def leader(self) -> Node:
        """The node that a majority follows and that is ready to serve, as soon as there is one."""
        return eventually(self._find_leader, "a majority follows a leader")

    def _find_leader(self) -> Node | None:
        statuses = {node.node: status for node in self.nodes if node.runs() and (status := node.status()) is not None}
        for number, status in statuses.items():
            if status.role != "leader" or not status.ready:
                continue
            voters = status.raw["groups"][0]["voters"]
            followers = [s for n, s in statuses.items() if n in voters and same_leadership(s, status)]
            if 2 * len(followers) > len(voters):
                return self.node(number)
        return None

    def followers(self) -> list[Node]:
        leader = self.leader()
        return [node for node in self.nodes if node is not leader and node.runs()]

    def wait_ready(self) -> Node:
        """Wait until every node that runs follows one leader and has applied what was committed; returns the leader."""

        def look() -> Node | None:
            leader = self._find_leader()
            leader_status = leader.status() if leader is not None else None
            if leader is None or leader_status is None:
                return None
            # Asked after the leader, so that writes which go on do not make this wait for ever.
            statuses = [node.status() for node in self.nodes if node.runs()]
            caught_up = all(
                status is not None
                and status.leader == leader.node
                and status.applied_position >= leader_status.commit_position
                for status in statuses
            )
            return leader if caught_up else None

        return eventually(look, "every node that runs follows the leader and has caught up")

    def close(self) -> None:
        """End all clients and nodes.  Once more does nothing."""
        if self._closed:
            return
        self._closed = True
        for client in self._clients:
            forget(client)
        # The end of the pipe alone stops the nodes; asking each is quicker.
        os.close(self._pipe_writing)
        nodes = [*self.nodes, *self.former]
        for node in nodes:
            if node.runs() and node.paused:
                node.resume()
        for node in nodes:
            node.clear_away()
        os.close(self._pipe_reading)
        self._reservation.release()

    # --- clients -----------------------------------------------------------------------------

    def client(self, nodes: Sequence[Node] | None = None, *, timeout_s: float = 10.0, kind: Any = KazooClient) -> Any:
        """A kazoo client that is connected, of all nodes or of some; it retries fast and for as long as it takes."""
        hosts = ",".join(node.address for node in nodes or self.nodes)
        client = kind(
            hosts=hosts,
            timeout=timeout_s,
            connection_retry=KazooRetry(max_tries=-1, delay=0.02, backoff=1, max_delay=0.05),
            command_retry=KazooRetry(max_tries=-1, delay=0.02, backoff=1, max_delay=0.05, deadline=READY_S),
        )
        self._clients.append(client)
        client.start(timeout=READY_S)
        return client


def same_leadership(one: Status, other: Status) -> bool:
    return (one.leader, one.generation) == (other.leader, other.generation)


def quorate(*arguments: str, within_s: float = READY_S) -> subprocess.CompletedProcess[str]:
    """Run the command line, as a user does."""
    command = [sys.executable, "-m", "quorate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * within_s, check=False)


def succeed(answer: subprocess.CompletedProcess[str]) -> str:
    """The output of a command, which must have ended with exit code 0."""
    assert answer.returncode == 0, f"exit code {answer.returncode}: {answer.stdout}\n{answer.stderr}"
    return answer.stdout


def fail(answer: subprocess.CompletedProcess[str]) -> str:
    """The error of a command, which must have ended with exit code 1 and without a trace."""
    assert answer.returncode == 1, f"exit code {answer.returncode}: {answer.stdout}\n{answer.stderr}"
    assert "Traceback" not in answer.stderr, answer.stderr
    return answer.stderr


def forget(client: Any) -> None:
    """Close a client whose cluster may be gone."""
    with contextlib.suppress(KazooTimeoutError):
        client.stop()
    client.close()


@contextlib.contextmanager
def running(target: Callable[[threading.Event], None], count: int = 1) -> Iterator[threading.Event]:
    """Run `target(stopping)` in `count` threads; at the end set `stopping`, join, and raise what one of them raised."""
    stopping = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            target(stopping)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield stopping
    finally:
        stopping.set()
        for thread in threads:
            thread.join(READY_S)
    assert not any(thread.is_alive() for thread in threads), "a thread did not end when it was asked to"
    if failures:
        raise failures[0]
