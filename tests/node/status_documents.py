"""Status documents as a node's `GET /status` gives them, for the tests of what is made of them."""

from __future__ import annotations

from typing import Any


def group(service: str = "zookeeper", **changes: Any) -> dict[str, Any]:
    return {
        "group": 0 if service == "cluster" else 1,
        "service": service,
        "role": "leader",
        "leader": 0,
        "generation": 7,
        "ready": True,
        "words": {"term": 7, "voted_for": 0},
        "voters": [0, 1, 2],
        "learners": [3],
        "old_voters": [],
        "settled_version": 4,
        "commit_position": 12345678901,
        "applied_position": 12345678900,
        "last_position": 12345678911,
        "peer_positions": {"1": 12345678911, "2": 12345678901, "3": 0},
        "snapshot_position": 12345670000,
        "snapshot_bytes": 4096,
        "store": {"version": 4, "voters": 3} if service == "cluster" else {"znodes": 7, "sessions": 3},
        "door": {} if service == "cluster" else {"connections": 2, "requests": 900, "watches": 5, "events": 11},
    } | changes


def member(node: int, **changes: Any) -> dict[str, Any]:
    return {
        "node": node,
        "peer": f"10.0.0.{node}:3181",
        "admin": f"10.0.0.{node}:4181",
        "connected": True,
        "voter": True,
        "refilling": False,
        "leaving": False,
        "incarnation": f"{node:032x}",
    } | changes


def status(**changes: Any) -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "cluster": "orders",
        "cluster_id": "c" * 32,
        "state": "member",
        "waiting_for": None,
        "failure": None,
        "node": 0,
        "incarnation": "0" * 32,
        "uptime_s": 12.5,
        "protocol": "raft",
        "members": [member(0), member(1), member(2), member(3, voter=False, connected=False)],
        "membership": {"version": 4, "under_way": {"1": 3}, "cluster_id": "c" * 32},
        "groups": [group(), group("cluster")],
        "log_bytes": 99,
        "log_segments": 2,
        "log_full": False,
        "log_sync_ms": 0.25,
        "log_sync_aside": False,
        "loop_longest_stop_ms": 31.25,
    } | changes


FORMING = {
    "state": "forming",
    "waiting_for": "node 2 (127.0.0.1:3183) has not been met yet",
    "groups": [],
    "cluster_id": "",
}
"""What is different on a node that belongs to no cluster yet."""
