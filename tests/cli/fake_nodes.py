"""Admin listeners that answer whatever a test wants, on free ports of this machine."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
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


def status_of(node: int, admins: list[str], *, leader: int | None = 0, generation: int = 3, **more: Any) -> Any:
    """The JSON of `GET /status` of one node of a healthy cluster."""
    role = "leader" if leader == node else "follower"
    group = {
        "group": 1,
        "service": "zookeeper",
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
        "store": {},
        "door": {},
    }
    return {
        "version": "0.1.0",
        "cluster": "lab",
        "node": node,
        "incarnation": "x",
        "pid": 100 + node,
        "uptime_s": 1.5,
        "protocol": "raft",
        "role": role,
        "leader": leader,
        "generation": generation,
        "ready": role == "leader",
        "words": {"term": generation},
        "members": [
            {"node": member, "peer": f"127.0.0.1:{3181 + member}", "admin": admin, "connected": True}
            for member, admin in enumerate(admins)
        ],
        "groups": [group],
        "log_bytes": 16 << 20,
        "log_segments": 1,
        "log_full": False,
        "endpoints": {"zookeeper": f"127.0.0.1:{2181 + node}", "peer": "", "admin": admins[node]},
        **more,
    }


@contextmanager
def cluster(make_status: Callable[[int, list[str]], Any], nodes: int = 3) -> Iterator[list[str]]:
    """Admin listeners of some nodes; yields their addresses.  A node for which None is made does not answer."""
    admins: list[str] = []

    def answer_as(node: int) -> Answer:
        def answer(request: bytes) -> bytes:
            status = make_status(node, admins)
            if not request.startswith(b"GET /status ") or status is None:
                return b""
            return http(json.dumps(status).encode())

        return answer

    with ExitStack() as listeners:
        ports = [listeners.enter_context(listener(answer_as(node))) for node in range(nodes)]
        admins += [f"127.0.0.1:{port}" for port in ports]
        yield admins
