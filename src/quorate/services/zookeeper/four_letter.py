"""Four-letter words: the questions that operators and load balancers ask a ZooKeeper server in plain text.

A client sends four letters instead of a connect request and gets text, then the end of the
connection.  The text follows ZooKeeper 3.8 line by line where a line exists there, so that
existing scripts and exporters can read it.

Source: the `server/command` package, `ServerStats` and `ZooKeeperServer` of ZooKeeper 3.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from quorate import __version__

PROTOCOL_VERSION: Final = "3.8.0"
"""The ZooKeeper release whose protocol is spoken; clients decide by it what they may use."""
FULL_VERSION: Final = f"{PROTOCOL_VERSION}-quorate-{__version__}, built on 1970-01-01 00:00 UTC"
"""Scripts expect a build date, and the reproducible one is this."""

WORDS: Final = frozenset((b"ruok", b"srvr", b"stat", b"mntr", b"conf", b"isro", b"envi"))


class ClientFacts(msgspec.Struct, frozen=True):
    """One connection, for `stat`."""

    peer: str
    received: int
    in_flight: int


class ServerFacts(msgspec.Struct, frozen=True):
    """Everything that a word may ask of a server.  Times in milliseconds, sizes in bytes."""

    node_id: int
    host: str
    port: int
    admin: str
    mode: str
    """leader, follower or standalone; empty where no leader is known, and the server does not serve."""
    zxid: int
    znodes: int
    ephemerals: int
    sessions: int
    watches: int
    requests: int
    replies: int
    outstanding: int
    latency_min_ms: int
    latency_average_ms: float
    latency_max_ms: int
    clients: Sequence[ClientFacts]
    min_session_timeout_ms: int
    max_session_timeout_ms: int
    max_connections: int
    max_frame_bytes: int
    max_requests_in_flight: int
    max_unread_bytes: int


def answer(word: bytes, facts: ServerFacts) -> str:
    """The text for one of `WORDS`."""
    match word:
        case b"ruok":
            return "imok"
        case b"isro":
            return "rw" if facts.mode else "null"
        case b"envi":
            return f"Environment:\nzookeeper.version={FULL_VERSION}\nhost.name={facts.host}\n"
        case b"conf":
            return _conf(facts)
        case _ if not facts.mode:
            return "This ZooKeeper instance is not currently serving requests\n"
        case b"srvr":
            return _srvr(facts)
        case b"stat":
            return _stat(facts)
        case b"mntr":
            return _mntr(facts)
    raise AssertionError(f"not a four-letter word of ours: {word!r}")


def _srvr(facts: ServerFacts) -> str:
    return f"Zookeeper version: {FULL_VERSION}\n{_statistics(facts)}"


def _stat(facts: ServerFacts) -> str:
    clients = "".join(
        f" /{client.peer}[1](queued={client.in_flight},recved={client.received},"
        f"sent={client.received - client.in_flight})\n"
        for client in facts.clients
    )
    return f"Zookeeper version: {FULL_VERSION}\nClients:\n{clients}\n{_statistics(facts)}"


def _statistics(facts: ServerFacts) -> str:
    return (
        f"Latency min/avg/max: {facts.latency_min_ms}/{facts.latency_average_ms:.4f}/{facts.latency_max_ms}\n"
        f"Received: {facts.requests}\n"
        f"Sent: {facts.replies}\n"
        f"Connections: {len(facts.clients)}\n"
        f"Outstanding: {facts.outstanding}\n"
        f"Zxid: 0x{facts.zxid:x}\n"
        f"Mode: {facts.mode}\n"
        f"Node count: {facts.znodes}\n"
    )


def _mntr(facts: ServerFacts) -> str:
    lines = {
        "version": FULL_VERSION,
        "server_state": facts.mode,
        "avg_latency": f"{facts.latency_average_ms:.4f}",
        "max_latency": facts.latency_max_ms,
        "min_latency": facts.latency_min_ms,
        "packets_received": facts.requests,
        "packets_sent": facts.replies,
        "num_alive_connections": len(facts.clients),
        "outstanding_requests": facts.outstanding,
        "znode_count": facts.znodes,
        "watch_count": facts.watches,
        "ephemerals_count": facts.ephemerals,
        "global_sessions": facts.sessions,
        "last_zxid": facts.zxid,
    }
    return "".join(f"zk_{name}\t{value}\n" for name, value in lines.items())


def _conf(facts: ServerFacts) -> str:
    lines = {
        "clientPort": facts.port,
        "clientPortAddress": facts.host,
        "maxClientCnxns": facts.max_connections,
        "minSessionTimeout": facts.min_session_timeout_ms,
        "maxSessionTimeout": facts.max_session_timeout_ms,
        "serverId": facts.node_id,
        "adminEndpoint": facts.admin,
        "jute.maxbuffer": facts.max_frame_bytes,
        "maxRequestsInFlight": facts.max_requests_in_flight,
        "maxUnreadBytes": facts.max_unread_bytes,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())
