"""All checks of the promise of etcd's API at once."""

from __future__ import annotations

from quorate.checking.etcd.answers import check_answers, check_connections, check_real_time, check_refusals
from quorate.checking.etcd.evidence import Evidence
from quorate.checking.etcd.leases import check_leases
from quorate.checking.etcd.locks import check_locks
from quorate.checking.etcd.order import rebuild
from quorate.checking.etcd.records import Finding, History
from quorate.checking.etcd.watches import check_watches


def findings(history: History) -> list[Finding]:
    """Everything that contradicts the promise, the earliest first; empty where it was kept.

    There must be a watch of the whole keyspace from revision 1 on that came to the end, or writes of unknown outcome
    are found to be holes in the order.
    """
    evidence = Evidence(history)
    order = rebuild(history, evidence)
    found = [
        *order.findings,
        *check_real_time(history, evidence),
        *check_connections(history),
        *check_answers(history, evidence, order),
        *check_refusals(history, evidence, order),
        *check_watches(history, evidence, order),
        *check_leases(history, evidence, order),
        *check_locks(history, order),
    ]
    return sorted(found, key=lambda finding: finding.at)
