"""Servers that speak etcd's API, as real processes: etcd itself (Debian's `etcd-server`), and Quorate beside it.

    with Etcd(folder, nodes=3) as etcd, Quorate(folder, nodes=3) as quorate:
        etcd.endpoints, quorate.endpoints   # ["127.0.0.1:23791", ...]

Tests that compare ask for etcd by `require_etcd`, which skips them and says so where it is not installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.processes.cluster import Cluster, PortReservation, eventually

LOG_TAIL_CHARACTERS = 4000


def require_etcd(*programs: str) -> None:
    """Skip the test, loudly, where one of the programs is missing."""
    for program in programs or ("etcd", "etcdctl"):
        if shutil.which(program) is None:
            pytest.skip(f"NOT COMPARED WITH ETCD: no {program}; install Debian's packages etcd-server and etcd-client")


class Peer(Protocol):
    """A cluster that serves etcd's API."""

    name: str

    @property
    def endpoints(self) -> list[str]:
        """host:port of each node, in the order of the nodes."""
        ...


class Etcd:
    """A cluster of the real etcd on loopback.  It does not sync its log: nothing here pulls the plug.

    Nodes get a signal when the thread that started them ends, so none outlives it.
    """

    def __init__(
        self, folder: Path, nodes: int = 1, *, node_name: str = "etcd", first_client_port: int | None = None
    ) -> None:
        self.name = "etcd"
        self._ports = PortReservation()
        client, peer = self._ports.take(nodes), self._ports.take(nodes)
        if first_client_port is not None:
            client[0] = first_client_port
        self.endpoints = [f"127.0.0.1:{port}" for port in client]
        self._logs = [folder / f"{node_name}{node}.log" for node in range(nodes)]
        names = [f"{node_name}{node}" for node in range(nodes)]
        members = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in zip(names, peer, strict=True))
        bound_to_us = [] if shutil.which("setpriv") is None else ["setpriv", "--pdeathsig", "KILL"]
        self._commands = [
            [
                *(*bound_to_us, "etcd", "--name", names[node], "--data-dir", str(folder / names[node])),
                *("--listen-client-urls", f"http://{self.endpoints[node]}"),
                *("--advertise-client-urls", f"http://{self.endpoints[node]}"),
                *("--listen-peer-urls", f"http://127.0.0.1:{peer[node]}"),
                *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer[node]}"),
                *("--initial-cluster", members, "--initial-cluster-token", str(folder)),
                "--unsafe-no-fsync",
            ]
            for node in range(nodes)
        ]
        self.processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Etcd:
        try:
            for command, path in zip(self._commands, self._logs, strict=True):
                with path.open("ab") as log:
                    self.processes.append(
                        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment())
                    )
            eventually(self._is_ready, "every node of etcd serves")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _is_ready(self) -> bool:
        for process, path in zip(self.processes, self._logs, strict=True):
            assert process.poll() is None, f"etcd ended:\n{path.read_text(errors='replace')[-LOG_TAIL_CHARACTERS:]}"
        return all(map(health, self.endpoints))

    def __exit__(self, *reason: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        self._ports.release()


class Quorate:
    """Nodes of Quorate as their users run them, with the etcd service."""

    def __init__(self, folder: Path, nodes: int = 1, settings: Mapping[str, Mapping[str, int]] | None = None) -> None:
        self.name = "Quorate"
        self.cluster = Cluster(folder, nodes, settings, services=["etcd"])

    @property
    def endpoints(self) -> list[str]:
        return [str(node.config.listen.etcd) for node in self.cluster.nodes]

    def __enter__(self) -> Quorate:
        try:
            self.cluster.start()
        except BaseException:
            self.cluster.close()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        self.cluster.close()


def health(endpoint: str) -> bool:
    """Whether a node of etcd can read linearizably."""
    try:
        with urllib.request.urlopen(f"http://{endpoint}/health", timeout=5) as answer:
            return bool(json.load(answer)["health"] == "true")
    except (OSError, HTTPException, ValueError):
        return False


def environment() -> dict[str, str]:
    """Ours, without the variables that etcd and etcdctl take for options."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ETCD_", "ETCDCTL_"))}
    return {**kept, "ETCDCTL_API": "3"}


def etcdctl(
    endpoints: Sequence[str], *arguments: str, stdin: str = "", within_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run etcdctl to its end."""
    command = ["etcdctl", "--endpoints", ",".join(endpoints), *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=within_s, env=environment(), check=False
    )


@contextlib.contextmanager
def running_etcdctl(endpoints: Sequence[str], *arguments: str) -> Iterator[subprocess.Popen[Any]]:
    """etcdctl with pipes for its input and output, unbuffered; killed at the end if it runs still."""
    command = ["etcdctl", "--endpoints", ",".join(endpoints), *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
