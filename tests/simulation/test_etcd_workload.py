"""The etcd workload on a whole simulated cluster: it does everything that it is there for, and finds nothing wrong."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from quorate.checking.etcd.operations import operations
from quorate.checking.etcd.records import Call
from quorate.checking.linearizability import Verdict, check
from quorate.checking.models import KV
from quorate.services.etcd import etcd_pb2 as pb
from quorate.simulation.faults import FAULTS
from quorate.simulation.plan import Injection, Plan
from quorate.simulation.run import run
from quorate.simulation.services import EtcdUnderTest
from quorate.simulation.workload_etcd.simulated import SimulatedEtcdWorkload

SEEN_IN_A_SHORT_RUN = (
    *("Range", "Put", "DeleteRange", "Txn", "Compaction", "txns succeeded", "txns failed", "reads of the past"),
    *("watches set", "watches resumed", "watches cancelled", "watch events", "progress notified"),
    *("LeaseGrant", "LeaseRevoke", "leases kept alive", "leased keys deleted", "locks acquired", "unknown outcomes"),
    *("fenced writes done", "fenced uses accepted", "members changed"),
)
TROUBLE = (
    Injection("crash", 4.0, 2.0, "leader"),
    Injection("partition-isolation", 8.0, 3.0, "leader"),
    Injection("power-loss", 12.0, 2.0, "0"),
    Injection("pause", 13.0, 3.0, "client-2"),
)
PLAN = Plan(seed=3, service="etcd", duration_s=16.0, faults=tuple(FAULTS), injections=TROUBLE)


class Observed(EtcdUnderTest):
    """Keeps the workload at hand."""

    workloads: list[SimulatedEtcdWorkload]

    def __init__(self) -> None:
        self.workloads = []

    def workload(self, *arguments: object) -> SimulatedEtcdWorkload:
        self.workloads.append(super().workload(*arguments))  # type: ignore[arg-type]
        return self.workloads[-1]


@pytest.fixture(scope="module")
def trouble() -> tuple[SimulatedEtcdWorkload, Counter[str], str]:
    """A run in which leaders die and are cut off: the workload, the coverage, the digest."""
    service = Observed()
    outcome = run(PLAN, service=service)
    assert outcome.violation is None, outcome.violation
    return service.workloads[0], outcome.coverage, outcome.digest


def test_a_cluster_in_trouble_keeps_its_promise_and_everything_is_seen(
    trouble: tuple[SimulatedEtcdWorkload, Counter[str], str],
) -> None:
    workload, coverage, _ = trouble
    assert [what for what in SEEN_IN_A_SHORT_RUN if not coverage[what]] == []
    answer = check(operations(workload.history), KV)
    assert (answer.verdict, answer.keys) == (Verdict.VALID, 5)
    assert answer.operations > 300


def test_what_it_recorded_is_checked(trouble: tuple[SimulatedEtcdWorkload, Counter[str], str]) -> None:
    workload, _, _ = trouble

    def is_read(call: Call) -> bool:
        response = call.response
        return bool(call.process) and isinstance(response, pb.RangeResponse) and len(response.kvs) == 1

    read = next(call for call in workload.history.calls if is_read(call))
    assert isinstance(read.response, pb.RangeResponse)
    value, read.response.kvs[0].value = read.response.kvs[0].value, b"what nobody wrote"
    try:
        assert {violation.check for violation in workload.violations()} == {"reads", "linearizability"}
    finally:
        read.response.kvs[0].value = value


def test_all_runs_alike_from_one_seed_recorded_or_not(
    trouble: tuple[SimulatedEtcdWorkload, Counter[str], str],
) -> None:
    outcome = run(PLAN, record=True)
    assert (outcome.violation, outcome.digest) == (None, trouble[2])
    assert outcome.trace is not None
    texts = [event.text for event in outcome.trace.events]
    assert any("HEADERS" in text for text in texts)
    assert any(text.startswith("put 'registers/") for text in texts)


def test_a_run_goes_with_few_clients_and_operations() -> None:
    """As a shrunk one: whoever is left is chronicler."""
    plan = msgspec.structs.replace(PLAN, duration_s=10.0, injections=(), client_numbers=(4, 7), max_operations=40)
    service = Observed()
    outcome = run(plan, service=service)
    assert outcome.violation is None, outcome.violation
    clients = {call.client for call in service.workloads[0].history.calls}
    assert clients == {"client-4", "client-7", "client-10"}
    assert 60 < outcome.coverage["operations"] < 200
