"""The etcd workload as a run of the simulator uses it (`quorate.simulation.under_test.Workload`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quorate.checking.etcd.records import History
from quorate.checking.models import KV
from quorate.simulation.plan import Plan
from quorate.simulation.scheduler import Simulation
from quorate.simulation.simulated_workload import SimulatedWorkload, not_linearizable
from quorate.simulation.violation import Violation
from quorate.simulation.workload_etcd.client import WorkloadOptions
from quorate.simulation.workload_etcd.workload import Workload

CHRONICLERS = 2
"""So many watch everything: if one of them is cut off, the other comes on, and what it has seen may be compacted."""


class SimulatedEtcdWorkload(SimulatedWorkload):
    """Clients of the etcd service."""

    def __init__(self, simulation: Simulation, servers: Sequence[str], plan: Plan) -> None:
        numbers = list(range(plan.clients) if plan.client_numbers is None else plan.client_numbers)
        options = WorkloadOptions(
            plan.seed,
            plan.clients,
            plan.operations_per_s,
            max_operations=plan.max_operations,
            chroniclers=frozenset(numbers[:CHRONICLERS]),
        )
        trace = simulation.trace
        note = None if trace is None else lambda client, kind, text: trace.note(client, simulation.now_s, kind, text)
        self._workload = Workload(servers, options, lambda: simulation.now_s, note)
        super().__init__(simulation, self._workload, plan)

    @property
    def history(self) -> History:
        """All that the clients recorded."""
        return self._workload.history

    def violations(self) -> Iterator[Violation]:
        """What contradicts the promise of etcd's API, then what is not linearizable, or could not be decided."""
        for finding in self._workload.findings():
            yield Violation(finding.check, finding.text, finding.client, finding.at)
        yield from not_linearizable(self._workload.operations(), KV)
