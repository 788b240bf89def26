"""What benchmarks of the etcd service share: a cluster of the real etcd on loopback, and calls to set up and check.

What is measured is not asked by these calls, but by `h2load`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from cluster import BenchmarkError, MissingPeer, free_ports, stop_process, wait_for_modes
from quorate.services.etcd import etcd_pb2 as pb

PEER_DISTANCE = 1000
CALL_SECONDS = 10.0

PUT, RANGE, TXN = "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn"
COMPACT = "/etcdserverpb.KV/Compact"
STATUS = "/etcdserverpb.Maintenance/Status"
WATCH = "/etcdserverpb.Watch/Watch"

Response = TypeVar("Response", bound=Message)


class Calls:
    """Unary calls to one node, by grpcio.  Use it as a context manager."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(endpoint)

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *reason: object) -> None:
        self._channel.close()

    def call(self, path: str, request: Message, kind: type[Response]) -> Response:
        """Raises grpc.RpcError."""
        stub: Any = self._channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=kind.FromString
        )
        response: Response = stub(request, timeout=CALL_SECONDS)
        return response


def status(endpoint: str) -> pb.StatusResponse:
    """Raises grpc.RpcError."""
    with Calls(endpoint) as calls:
        return calls.call(STATUS, pb.StatusRequest(), pb.StatusResponse)


def etcd_mode(endpoint: str) -> str | None:
    """ "leader" or "follower"; None while the node does not serve or knows no leader."""
    try:
        found = status(endpoint)
        with Calls(endpoint) as calls:
            calls.call(RANGE, pb.RangeRequest(key=b"served"), pb.RangeResponse)
    except grpc.RpcError:
        return None
    if not found.leader:
        return None
    return "leader" if found.leader == found.header.member_id else "follower"


class EtcdCluster:
    """etcd from Debian's package with its defaults, but for ports and folders: it syncs before it acknowledges."""

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        self.name = "etcd"
        program = shutil.which("etcd")
        if program is None:
            raise MissingPeer("etcd is not installed: scripts/install-peers.sh installs it")
        base = free_ports(nodes, (0, PEER_DISTANCE))
        self.endpoints = [f"127.0.0.1:{base + i}" for i in range(nodes)]
        peers = [f"http://127.0.0.1:{base + PEER_DISTANCE + i}" for i in range(nodes)]
        members = ",".join(f"bench{i}={peer}" for i, peer in enumerate(peers))
        self._folder = folder
        self._commands = [
            [
                *(program, "--name", f"bench{i}", "--data-dir", str(folder / f"etcd-{i}")),
                *("--listen-client-urls", f"http://{self.endpoints[i]}"),
                *("--advertise-client-urls", f"http://{self.endpoints[i]}"),
                *("--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i]),
                *("--initial-cluster", members, "--logger", "zap"),
            ]
            for i in range(nodes)
        ]
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> EtcdCluster:
        # Variables are options to etcd, and might turn its sync off.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        try:
            for i, command in enumerate(self._commands):
                with (self._folder / f"etcd-{i}.log").open("ab") as log:
                    self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
            self.modes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def modes(self) -> dict[str, str]:
        def still_runs() -> None:
            for i, process in enumerate(self.processes):
                if process.poll() is not None:
                    log = (self._folder / f"etcd-{i}.log").read_text()[-4000:]
                    raise BenchmarkError(f"etcd {i} ended with {process.returncode}:\n{log}")

        return wait_for_modes(self.endpoints, still_runs, etcd_mode)

    def __exit__(self, *reason: object) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            stop_process(process)


@contextlib.contextmanager
def refused_is_an_error() -> Iterator[None]:
    """A call that a server refuses ends the benchmark with its words."""
    try:
        yield
    except grpc.RpcError as error:
        raise BenchmarkError(f"{error.code().name}: {error.details()}") from error
