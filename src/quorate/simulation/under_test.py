"""What a run needs to know of a service: its observed store, and clients that use it and know what is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from quorate.consensus.replica import NodeId
from quorate.services.interface import Service
from quorate.simulation.plan import Plan
from quorate.simulation.scheduler import Simulation
from quorate.simulation.store_agreement import StoreAgreement
from quorate.simulation.violation import Violation


class Workload(Protocol):
    """The clients of one run.  They know nothing of faults."""

    @property
    def coverage(self) -> Counter[str]:
        """What they did and saw."""
        ...

    def start(self) -> None:
        """Boot the clients' machines and let them work."""
        ...

    def completed(self) -> int:
        """Operations that were answered so far."""
        ...

    def is_content(self) -> bool:
        """Every client has come on since `demand_progress`."""
        ...

    def demand_progress(self) -> None:
        """The faults are over: from now on every client must come on."""
        ...

    def stop(self) -> None:
        """Begin nothing more.  What must be seen in the end is looked at now, by fresh clients."""
        ...

    def is_done(self) -> bool:
        """Everything after `stop` is done."""
        ...

    def violations(self) -> Iterable[Violation]:
        """Check all that was recorded.  Called once, at the end; may take a while."""
        ...


class WatchedService(Protocol):
    """A service whose stores are observed."""

    name: str

    def service(self, node: NodeId, agreement: StoreAgreement) -> Service:
        """The service for one node, whose stores tell the agreement what they come to."""
        ...

    def look(self, store: object) -> None:
        """Show the whole state of one of the service's stores to its agreement."""
        ...

    def position(self, store: object) -> int:
        """A number that identifies the state; equal for equally many commands applied."""
        ...

    def describe(self, data: bytes, from_client: bool) -> str:
        """Bytes between a client and a door in a few words, for traces."""
        ...


class ServiceUnderTest(WatchedService, Protocol):
    """A service with its workload."""

    def workload(self, simulation: Simulation, servers: list[str], plan: Plan) -> Workload: ...


class CampaignService(ServiceUnderTest, Protocol):
    """A service of which there are campaigns."""

    required_coverage: tuple[str, ...]
    """What the clients of a campaign with all faults must have done and seen."""
