"""Health pages: what a node's status comes to.  Pure functions of the status document (`GET /status`).

Three questions, because three different things follow from the answers:

    livez    is the process worth keeping?    a supervisor starts it again where not
    readyz   can it serve a client now?       a load balancer sends clients elsewhere meanwhile
    health   is anything wrong with it?       a person looks

So a node without a quorum is alive: starting it again would help nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

MAX_LAG_ENTRIES: Final = 10_000
"""A node this far behind what it knows to be committed is not sent clients: their reads would wait."""
CLUSTER_SERVICE: Final = "cluster"
"""The cluster's own group: without its leader no members change, and clients are served all the same."""

Verdict: TypeAlias = tuple[bool, dict[str, Any]]
"""(yes or no, the JSON that says why)"""


def livez(status: Mapping[str, Any]) -> Verdict:
    """The loop turns, or nobody would answer, and the node has not failed."""
    failure = status["failure"]
    return failure is None, {"live": failure is None, "reasons": [] if failure is None else [failure]}


def readyz(status: Mapping[str, Any]) -> Verdict:
    """A client of any of the services can be served, reads and writes."""
    reasons = _reasons(status)
    return not reasons, {"ready": not reasons, "reasons": reasons}


def _reasons(status: Mapping[str, Any]) -> list[str]:
    reasons = []
    if status["failure"] is not None:
        reasons.append(f"the node has failed: {status['failure']}")
    if status["state"] != "member":
        waiting = f": {status['waiting_for']}" if status["waiting_for"] else ""
        reasons.append(f"the node is {status['state']}{waiting}")
    if any(member["node"] == status["node"] and member["refilling"] for member in status["members"]):
        reasons.append("the node lost its data and is being refilled from its peers")
    for group in status["groups"]:
        if group["service"] == CLUSTER_SERVICE:
            continue
        lag = group["commit_position"] - group["applied_position"]
        if group["leader"] is None:
            reasons.append(f"{group['service']}: no leader is known")
        elif group["role"] == "leader" and not group["ready"]:
            reasons.append(f"{group['service']}: this node leads and is not ready yet")
        if lag > MAX_LAG_ENTRIES:
            reasons.append(f"{group['service']}: {lag} committed entries are not applied yet")
    if status["log_full"]:
        reasons.append("the disk is full: writes are refused")
    return reasons


def health(status: Mapping[str, Any]) -> Verdict:
    """Every group, the cluster's own included, has a leader, and there is room on the disk."""
    leaderless = [group["service"] for group in status["groups"] if group["leader"] is None]
    healthy = status["state"] == "member" and not leaderless and not status["log_full"] and status["failure"] is None
    return healthy, {
        "healthy": healthy,
        "state": status["state"],
        "waiting_for": status["waiting_for"],
        "without_leader": leaderless,
        "log_full": status["log_full"],
        "failure": status["failure"],
    }
