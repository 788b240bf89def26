"""The ZooKeeper workload as a run of the simulator uses it (`quorate.simulation.under_test.Workload`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quorate.checking.models import KV
from quorate.checking.zookeeper.records import History
from quorate.simulation.plan import Plan
from quorate.simulation.scheduler import Simulation
from quorate.simulation.simulated_workload import SimulatedWorkload, not_linearizable
from quorate.simulation.violation import Violation
from quorate.simulation.workload.client import WorkloadOptions
from quorate.simulation.workload.workload import Workload


class SimulatedZooKeeperWorkload(SimulatedWorkload):
    """Clients of the ZooKeeper service."""

    def __init__(self, simulation: Simulation, servers: Sequence[str], plan: Plan) -> None:
        options = WorkloadOptions(plan.seed, plan.clients, plan.operations_per_s, max_operations=plan.max_operations)
        trace = simulation.trace
        note = None if trace is None else lambda client, kind, text: trace.note(client, simulation.now_s, kind, text)
        self._workload = Workload(servers, options, lambda: simulation.now_s, note)
        super().__init__(simulation, self._workload, plan)

    @property
    def history(self) -> History:
        """All that the clients recorded."""
        return self._workload.history

    def violations(self) -> Iterator[Violation]:
        """What contradicts ZooKeeper's promise, then what is not linearizable, or could not be decided."""
        for finding in self._workload.findings():
            seen_by = "" if finding.session is None else self._workload.history.sessions[finding.session].client
            yield Violation(finding.check, finding.text, seen_by, finding.at)
        yield from not_linearizable(self._workload.operations(), KV)
