"""The services that the simulator knows, each with clients that use it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from quorate.consensus.replica import NodeId
from quorate.services.interface import Service
from quorate.simulation.labels import describe_zookeeper
from quorate.simulation.plan import Plan
from quorate.simulation.scheduler import Simulation
from quorate.simulation.store_agreement import StoreAgreement
from quorate.simulation.under_test import ServiceUnderTest, Workload
from quorate.simulation.workload.simulated import SimulatedZooKeeperWorkload
from quorate.simulation.zookeeper_store import ObservedStore, observed_zookeeper


class ZooKeeperUnderTest:
    """The ZooKeeper door and store, used by our own asyncio client."""

    name = "zookeeper"

    def service(self, node: NodeId, agreement: StoreAgreement) -> Service:
        return observed_zookeeper(agreement, node)

    def workload(self, simulation: Simulation, servers: list[str], plan: Plan) -> Workload:
        return SimulatedZooKeeperWorkload(simulation, servers, plan)

    def look(self, store: object) -> None:
        assert isinstance(store, ObservedStore)
        store.look()

    def position(self, store: object) -> int:
        assert isinstance(store, ObservedStore)
        return store.zxid

    def describe(self, data: bytes, from_client: bool) -> str:
        return describe_zookeeper(data, from_client)


SERVICES: Mapping[str, ServiceUnderTest] = MappingProxyType({"zookeeper": ZooKeeperUnderTest()})
