"""All checks of ZooKeeper's promise at once."""

from __future__ import annotations

from quorate.checking.zookeeper.locks import check_locks
from quorate.checking.zookeeper.order import (
    check_expiry,
    check_gaps,
    check_real_time,
    check_sequences,
    check_session_ids,
    check_sessions,
)
from quorate.checking.zookeeper.records import Finding, History
from quorate.checking.zookeeper.replay import Replay
from quorate.checking.zookeeper.watches import check_watches
from quorate.checking.zookeeper.writes import resolve


def findings(history: History) -> list[Finding]:
    """Everything that contradicts ZooKeeper's promise, the earliest first; empty where it was kept."""
    writes = resolve(history)
    replay = Replay(history, writes)
    replay.run()
    found = [
        *writes.findings,
        *check_real_time(history),
        *check_sessions(history),
        *check_session_ids(history),
        *check_expiry(history),
        *check_sequences(history),
        *check_gaps(history),
        *replay.findings,
        *check_watches(history, writes, replay.gone),
        *check_locks(history),
    ]
    return sorted(found, key=lambda finding: finding.at)
