"""What the benchmarks share: clusters of ZooKeeper and of Quorate on loopback, and the load generator for ZooKeeper.

Both clusters are context managers that hold their data in a folder of the caller's, start their processes as
children and end them by process id.  Both sync before they acknowledge: ZooKeeper as it comes (`forceSync=yes`,
checked in what the running server says), Quorate because it has no switch for it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec

HERE = Path(__file__).parent
JAR_FOLDER = Path("/usr/share/java")
"""Where Debian's `zookeeper` package and its dependencies put their jars."""
LOG4J_FOLDER = Path("/etc/zookeeper/conf")
START_SECONDS = 60.0
STOP_SECONDS = 20.0
IDLE_SECONDS = 30.0
"""The longest that what an earlier load has left is waited for."""
IDLE_LOAD = 0.15
"""Of a core: a cluster without a load uses less."""
PEER_DISTANCE, ADMIN_DISTANCE = 1000, 2000
"""Distances of the other ports of a node from its client port, as `quorate up` lays them out."""


class BenchmarkError(Exception):
    """The benchmark cannot go on; the message says why and is all that the user sees."""


class MissingPeer(BenchmarkError):
    """Software to compare with is not installed."""


class Load(msgspec.Struct, frozen=True):
    """What `zkload` printed.  Latencies in microseconds; `cpu_share` is the generator's own, of one core."""

    operation: str
    connections: int
    window: int
    ops: int
    seconds: float
    ops_per_second: float
    p50_us: float
    p90_us: float
    p99_us: float
    p99_9_us: float
    max_us: float
    cpu_share: float
    disconnects: int
    unanswered: int
    errors: dict[str, int]

    def failures(self) -> str:
        """What went wrong in words; empty where nothing did."""
        parts = [f"{count} x error {code}" for code, count in self.errors.items()]
        if self.disconnects:
            parts.append(f"{self.disconnects} disconnects")
        if self.unanswered:
            parts.append(f"{self.unanswered} unanswered")
        return ", ".join(parts)


class LoadGenerator:
    """`zkload.c`, compiled into a folder of the caller's."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise BenchmarkError("no C compiler: the load generator needs `cc` (Debian: apt install gcc libc6-dev)")
        self._program = folder / "zkload"
        subprocess.run([compiler, "-O2", "-o", self._program, HERE / "zkload.c"], check=True)

    def start(self, endpoints: Iterable[str], **options: object) -> subprocess.Popen[str]:
        """Start it; options are those of `zkload`, without their dashes."""
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        return subprocess.Popen([self._program, *arguments, *endpoints], stdout=subprocess.PIPE, text=True)

    def finish(self, process: subprocess.Popen[str]) -> Load:
        """Wait for it.  Raises BenchmarkError where it could not run; its own words are on stderr by then."""
        output, _ = process.communicate()
        if process.returncode != 0:
            raise BenchmarkError("the load generator could not do its work")
        return msgspec.json.decode(output, type=Load)

    def run(self, endpoints: Iterable[str], **options: object) -> Load:
        return self.finish(self.start(endpoints, **options))


# --- talking to nodes --------------------------------------------------------------------------


def free_ports(count: int, distances: Sequence[int] = (0,)) -> int:
    """A port P such that P + distance + i is free for each distance and each i below `count`."""
    for base in itertools.count(21_810, 10):
        with contextlib.ExitStack() as stack:
            try:
                for distance in distances:
                    for i in range(count):
                        probe = stack.enter_context(socket.socket())
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind(("127.0.0.1", base + distance + i))
            except OSError:
                continue
            return base
    raise AssertionError("unreachable")


def four_letters(endpoint: str, word: str) -> str:
    """The answer to one of ZooKeeper's four-letter words.  Raises OSError."""
    host, _, port = endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(word.encode())
        chunks = iter(lambda: connection.recv(65536), b"")
        return b"".join(chunks).decode()


def mode(endpoint: str) -> str | None:
    """ "leader", "follower" or "standalone"; None while the node does not serve."""
    try:
        answer = four_letters(endpoint, "srvr")
    except OSError:
        return None
    modes = [line.removeprefix("Mode: ") for line in answer.splitlines() if line.startswith("Mode: ")]
    return modes[0] if modes else None


Ask: TypeAlias = Callable[[str], str | None]
"""Asks an endpoint for its mode; None while the node does not serve."""


def wait_for_modes(endpoints: Sequence[str], still_runs: Callable[[], None], ask: Ask = mode) -> dict[str, str]:
    """Endpoint -> mode, once all nodes serve and one leads.  Raises BenchmarkError after START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        still_runs()
        modes = {endpoint: ask(endpoint) for endpoint in endpoints}
        served = {endpoint: found for endpoint, found in modes.items() if found is not None}
        if len(served) == len(endpoints) and not {"leader", "standalone"}.isdisjoint(served.values()):
            return served
        time.sleep(0.05)
    raise BenchmarkError(f"no leader after {START_SECONDS:g} s; modes: {modes}")


class Cluster(Protocol):
    """Started on entering the context, stopped on leaving it."""

    name: str
    endpoints: list[str]

    def __enter__(self) -> Cluster: ...

    def __exit__(self, *reason: object) -> None: ...

    def modes(self) -> dict[str, str]:
        """Endpoint -> "leader", "follower" or "standalone", waiting for a leader."""
        ...


def last_zxid(endpoint: str) -> int:
    """The newest transaction that a node has applied; -1 while it does not serve."""
    try:
        answer = four_letters(endpoint, "srvr")
    except OSError:
        return -1
    found = [line.removeprefix("Zxid: ") for line in answer.splitlines() if line.startswith("Zxid: ")]
    return int(found[0], 16) if found else -1


def wait_caught_up(cluster: Cluster) -> dict[str, str]:
    """Wait until every node serves and has applied what the leader had before; returns the modes."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        modes = cluster.modes()
        reached = max(last_zxid(endpoint) for endpoint in cluster.endpoints)
        while time.monotonic() < deadline:
            if all(last_zxid(endpoint) >= reached for endpoint in cluster.endpoints):
                return modes
            time.sleep(0.05)
    raise BenchmarkError(f"{cluster.name}: a node has not caught up after {START_SECONDS:g} s")


def wait_idle() -> None:
    """Wait until no child of this process has much to do any more, and the disk has nothing to write.

    What an earlier load has left behind, a snapshot for one, is not the next one's.
    """
    os.sync()
    deadline = time.monotonic() + IDLE_SECONDS
    before = children_cpu_seconds()
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = children_cpu_seconds()
        if now - before < 0.5 * IDLE_LOAD:
            break
        before = now
    os.sync()


def children_cpu_seconds() -> float:
    """What the running children of this process have used so far."""
    ticks = 0
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            # Behind the name, which may hold anything: state, and eleven numbers later the times as user and as system.
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for one that does not heed it."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- ZooKeeper ---------------------------------------------------------------------------------

ZOO_CFG = """\
tickTime=2000
initLimit=10
syncLimit=5
dataDir={data}
clientPort={client_port}
clientPortAddress=127.0.0.1
admin.enableServer=false
4lw.commands.whitelist=*
maxClientCnxns=0
"""


class ZooKeeperCluster:
    """ZooKeeper from Debian's package, with its defaults but for ports, folders and the admin server's port 8080."""

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        self.name = "ZooKeeper"
        self._java = shutil.which("java")
        if self._java is None or not (JAR_FOLDER / "zookeeper.jar").exists():
            raise MissingPeer("ZooKeeper or Java is not installed: scripts/install-peers.sh installs them")
        self._folder = folder
        base = free_ports(nodes, (0, PEER_DISTANCE, ADMIN_DISTANCE))
        self._ports = [base + i for i in range(nodes)]
        self.endpoints = [f"127.0.0.1:{port}" for port in self._ports]
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> ZooKeeperCluster:
        try:
            for i in range(len(self._ports)):
                self.processes.append(self._start(i))
            self.modes()
            for endpoint in self.endpoints:
                self._check_durable(endpoint)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start_node(self, index: int) -> None:
        """Start a node that has ended, on its data."""
        self.processes[index].wait()
        self.processes[index] = self._start(index)

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        number, port = index + 1, self._ports[index]
        servers = "".join(
            f"server.{i}=127.0.0.1:{port + PEER_DISTANCE}:{port + ADMIN_DISTANCE}\n"
            for i, port in enumerate(self._ports, 1)
        )
        folder = self._folder / f"zookeeper-{number}"
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "myid").write_text(f"{number}\n")
        settings = folder / "zoo.cfg"
        settings.write_text(ZOO_CFG.format(data=data, client_port=port) + (servers if len(self._ports) > 1 else ""))
        arguments = [
            str(self._java),
            "-cp",
            f"{LOG4J_FOLDER}:{JAR_FOLDER / 'zookeeper.jar'}",
            f"-Dzookeeper.log.dir={folder}",
            "-Dzookeeper.root.logger=INFO,ROLLINGFILE",
            "-Dzookeeper.jmx.log4j.disable=true",
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(settings),
        ]
        with (folder / "console.log").open("ab") as console:
            return subprocess.Popen(arguments, stdout=console, stderr=subprocess.STDOUT)

    def _check_durable(self, endpoint: str) -> None:
        """forceSync is on unless a system property says otherwise: ask the running server for its properties."""
        for line in four_letters(endpoint, "envi").splitlines():
            if "forceSync" in line and not line.endswith("=yes"):
                raise BenchmarkError(f"ZooKeeper at {endpoint} does not sync its log: {line}")
        for process in self.processes:
            command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            if b"forceSync" in command_line or "JDK_JAVA_OPTIONS" in os.environ or "JAVA_TOOL_OPTIONS" in os.environ:
                raise BenchmarkError("ZooKeeper's sync may have been turned off by an option of Java; unset it")

    def modes(self) -> dict[str, str]:
        def still_runs() -> None:
            for number, process in enumerate(self.processes, 1):
                if process.poll() is not None:
                    console = (self._folder / f"zookeeper-{number}" / "console.log").read_text()
                    raise BenchmarkError(f"ZooKeeper server {number} ended with {process.returncode}:\n{console}")

        return wait_for_modes(self.endpoints, still_runs)

    def __exit__(self, *reason: object) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            stop_process(process)


# --- Quorate -----------------------------------------------------------------------------------


class QuorateNodes:
    """`quorate node` once for each node, with default settings, so that each can be killed, stopped and started.

    It serves one service, and `ask` says how nodes of that service are asked for their modes.
    """

    def __init__(self, folder: Path, nodes: int = 3, service: str = "zookeeper", ask: Ask = mode) -> None:
        self.name = "Quorate"
        self._ask = ask
        base = free_ports(nodes, (0, PEER_DISTANCE, ADMIN_DISTANCE))
        self.endpoints = [f"127.0.0.1:{base + i}" for i in range(nodes)]
        self.processes: list[subprocess.Popen[bytes]] = []
        # Nodes stop once the writing end is closed, which the kernel does should the benchmark be killed.
        self._pipe_reading, self._pipe_writing = os.pipe()
        self._folders = [folder / f"quorate-{i}" for i in range(nodes)]
        members = "".join(f'{i} = "127.0.0.1:{base + PEER_DISTANCE + i}"\n' for i in range(nodes))
        for i, node_folder in enumerate(self._folders):
            node_folder.mkdir(parents=True)
            (node_folder / "node.toml").write_text(
                f'cluster = "bench"\nnode = {i}\ndata = "data"\nservices = ["{service}"]\n'
                f'[listen]\n{service} = "127.0.0.1:{base + i}"\nadmin = "127.0.0.1:{base + ADMIN_DISTANCE + i}"\n'
                f"[members]\n{members}"
            )

    def __enter__(self) -> QuorateNodes:
        try:
            self.processes = [self._start(i) for i in range(len(self._folders))]
            self.modes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        folder = self._folders[index]
        command = [sys.executable, "-m", "quorate", "node", "--config", str(folder / "node.toml")]
        command += ["--stop-with-fd", str(self._pipe_reading)]
        with (folder / "node.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, pass_fds=(self._pipe_reading,))

    def start_node(self, index: int) -> None:
        """Start a node that has ended, on its data."""
        self.processes[index].wait()
        self.processes[index] = self._start(index)

    def modes(self) -> dict[str, str]:
        def still_runs() -> None:
            for process, folder in zip(self.processes, self._folders, strict=True):
                if process.poll() is not None:
                    log = (folder / "node.log").read_text()[-4000:]
                    raise BenchmarkError(f"{folder.name} ended with {process.returncode}; it said:\n{log}")

        return wait_for_modes(self.endpoints, still_runs, self._ask)

    def __exit__(self, *reason: object) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            stop_process(process)
        os.close(self._pipe_writing)
        os.close(self._pipe_reading)


class QuorateCluster:
    """`quorate up` as a user runs it, in the Python that runs the benchmark."""

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        arguments: Sequence[str] = (),
        service: str = "zookeeper",
        ask: Ask = mode,
    ) -> None:
        self.name = "Quorate"
        self._service = service
        self._ask = ask
        self.folder = folder / "quorate"
        self._output = folder / "quorate-up.log"
        self._nodes = nodes
        self._arguments = arguments
        self._base = free_ports(nodes, (0, PEER_DISTANCE, ADMIN_DISTANCE))
        self.endpoints = [f"127.0.0.1:{self._base + i}" for i in range(nodes)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> QuorateCluster:
        self.start()
        return self

    def start(self) -> None:
        """Start all nodes, on the data that is there, and wait for a leader."""
        command = [sys.executable, "-m", "quorate", "up", "--nodes", str(self._nodes), "--data", str(self.folder)]
        command += ["--services", self._service, f"--{self._service}-port", str(self._base)]
        command += ["--peer-port", str(self._base + PEER_DISTANCE), "--admin-port", str(self._base + ADMIN_DISTANCE)]
        command += ["--no-restart", *self._arguments]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            self.modes()
        except BaseException:
            self.stop()
            raise

    def modes(self) -> dict[str, str]:
        def still_runs() -> None:
            if self._process is None or self._process.poll() is not None:
                raise BenchmarkError(f"quorate up has ended; it said:\n{self._output.read_text()}")

        return wait_for_modes(self.endpoints, still_runs, self._ask)

    def stop(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
            stop_process(self._process)

    def __exit__(self, *reason: object) -> None:
        self.stop()

    def status(self, node: int = 0) -> dict[str, Any]:
        """The status document of one node's admin listener."""
        return self.ask(node, "GET", "/status")

    def process_id(self, node: int) -> int:
        """The process of one node: a child of `quorate up`, known by its settings file.  Raises BenchmarkError."""
        assert self._process is not None
        for text in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            if f"/node-{node}/".encode() in Path(f"/proc/{text}/cmdline").read_bytes():
                return int(text)
        raise BenchmarkError(f"node {node} has no process")

    def kill(self) -> None:
        """SIGKILL to all nodes, then end `quorate up`."""
        for node in range(self._nodes):
            os.kill(self.process_id(node), signal.SIGKILL)
        self.stop()

    def ask(self, node: int, method: str, path: str) -> dict[str, Any]:
        """A request to a node's admin listener; its JSON answer.  Raises BenchmarkError."""
        url = f"http://127.0.0.1:{self._base + ADMIN_DISTANCE + node}{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as answer:
                body = answer.read()
        except OSError as error:
            raise BenchmarkError(f"{method} {url}: {error}") from error
        document = json.loads(body or b"{}")
        if not isinstance(document, dict):
            raise BenchmarkError(f"{method} {url}: expected an object, got {body[:100]!r}")
        return document


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Ends the program with a message: exit code 2 where software is missing, 1 for other failures."""
    try:
        yield
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, MissingPeer) else 1)
