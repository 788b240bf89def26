"""Admin listeners that answer whatever a test wants, on free ports of this machine."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

Answer = Callable[[bytes], bytes]


@contextmanager
def listener(answer: Answer) -> Iterator[int]:
    """Listen on a free port, which is yielded; answer the first bytes of each connection, then close it."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(answer(self.request.recv(65536)))

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def group_of(group: int, service: str, node: int, voters: list[int], leader: int | None, generation: int) -> Any:
    """One of a status' groups."""
    role = "leader" if leader == node else "follower" if node in voters else "learner"
    return {
        "group": group,
        "service": service,
        "role": role,
        "leader": leader,
        "generation": generation,
        "ready": role == "leader",
        "words": {"term": generation},
        "commit_position": 1200 - node,
        "applied_position": 1200 - 2 * node,
        "last_position": 1200,
        "snapshot_position": 0,
        "snapshot_bytes": 2048 * node,
        "voters": voters,
        "learners": [],
        "old_voters": [],
        "settled_version": 1,
        "peer_positions": {},
        "store": {},
        "door": {},
    }


def member_of(node: int, admin: str, **more: Any) -> Any:
    """One of a status' members."""
    return {
        "node": node,
        "peer": f"127.0.0.1:{3181 + node}",
        "admin": admin,
        "connected": True,
        "voter": True,
        "refilling": False,
        "leaving": False,
        "incarnation": f"{node}" * 32,
        **more,
    }


CLUSTER_ID = "ab" * 16


def status_of(
    node: int,
    admins: list[str],
    *,
    leader: int | None = 0,
    generation: int = 3,
    voters: list[int] | None = None,
    version: int = 1,
    under_way: Mapping[str, int] | None = None,
    **more: Any,
) -> Any:
    """The JSON of `GET /status` of one node of a healthy cluster."""
    voters = list(range(len(admins))) if voters is None else voters
    zookeeper = group_of(1, "zookeeper", node, voters, leader, generation)
    return {
        "version": "0.1.0",
        "release": "0.1.0",
        "cluster": "lab",
        "cluster_id": CLUSTER_ID,
        "state": "member",
        "waiting_for": None,
        "membership": {"version": version, "under_way": dict(under_way or {}), "cluster_id": CLUSTER_ID},
        "node": node,
        "incarnation": "x",
        "pid": 100 + node,
        "uptime_s": 1.5,
        "protocol": "raft",
        "role": zookeeper["role"],
        "leader": leader,
        "generation": generation,
        "ready": zookeeper["ready"],
        "words": {"term": generation},
        "members": [member_of(member, admin, voter=member in voters) for member, admin in enumerate(admins)],
        "groups": [zookeeper, group_of(0, "cluster", node, voters, leader, generation)],
        "log_bytes": 16 << 20,
        "log_segments": 1,
        "log_full": False,
        "endpoints": {"zookeeper": f"127.0.0.1:{2181 + node}", "peer": "", "admin": admins[node]},
        **more,
    }


def with_etcd(status: Any, leader: int | None, generation: int = 7) -> Any:
    """The status of a node that serves etcd too."""
    node = status["node"]
    etcd = group_of(2, "etcd", node, status["groups"][0]["voters"], leader, generation)
    zookeeper, cluster = status["groups"]
    endpoints = {**status["endpoints"], "etcd": f"127.0.0.1:{2379 + node}"}
    return {**status, "groups": [zookeeper, etcd, cluster], "endpoints": endpoints}


def members_of(status: Any) -> Any:
    """The JSON of `GET /members` of a node with that status."""
    return {
        "cluster": status["cluster"],
        "cluster_id": status["cluster_id"],
        "version": status["membership"]["version"],
        "under_way": status["membership"]["under_way"],
        "members": status["members"],
    }


def _no_post(node: int, path: str, body: Any) -> bytes:
    return http(b"", "404 Not Found")


@contextmanager
def cluster(
    make_status: Callable[[int, list[str]], Any],
    nodes: int = 3,
    post: Callable[[int, str, Any], bytes] = _no_post,
) -> Iterator[list[str]]:
    """Admin listeners of some nodes; yields their addresses.  A node for which None is made does not answer.

    `post` gets node, path and the decoded body of a POST, and gives the whole answer.
    """
    admins: list[str] = []

    def answer_as(node: int) -> Answer:
        def answer(request: bytes) -> bytes:
            status = make_status(node, admins)
            if status is None:
                return b""
            method, path, _ = request.split(b" ", 2)
            if method == b"POST":
                return post(node, path.decode(), json.loads(request.partition(b"\r\n\r\n")[2]))
            if path == b"/status":
                return http(json.dumps(status).encode())
            if path == b"/members":
                return http(json.dumps(members_of(status)).encode())
            return b""

        return answer

    with ExitStack() as listeners:
        ports = [listeners.enter_context(listener(answer_as(node))) for node in range(nodes)]
        admins += [f"127.0.0.1:{port}" for port in ports]
        yield admins
