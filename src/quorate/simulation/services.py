"""The services that the simulator knows, each with clients that use it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from quorate.consensus.replica import NodeId
from quorate.services.interface import Service
from quorate.simulation.etcd_store import ObservedStore as ObservedEtcdStore
from quorate.simulation.etcd_store import observed_etcd
from quorate.simulation.labels import describe_http2, describe_zookeeper
from quorate.simulation.plan import Plan
from quorate.simulation.scheduler import Simulation
from quorate.simulation.store_agreement import StoreAgreement
from quorate.simulation.under_test import CampaignService, Workload
from quorate.simulation.workload.simulated import SimulatedZooKeeperWorkload
from quorate.simulation.workload_etcd.simulated import SimulatedEtcdWorkload
from quorate.simulation.zookeeper_store import ObservedStore, observed_zookeeper


class ZooKeeperUnderTest:
    """The ZooKeeper door and store, used by our own asyncio client."""

    name = "zookeeper"
    required_coverage: tuple[str, ...] = (
        *("sessions opened", "sessions expired", "sessions moved", "sessions left", "watches fired"),
        *("locks acquired", "fenced uses refused", "ephemerals vanished", "unknown outcomes"),
    )

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


class EtcdUnderTest:
    """The etcd door and store, used by our own asyncio client."""

    name = "etcd"
    required_coverage: tuple[str, ...] = (
        *("Range", "Put", "DeleteRange", "Txn", "Compaction", "txns succeeded", "txns failed", "reads of the past"),
        *("Range refused: COMPACTED", "Range refused: FUTURE_REVISION", "Put refused: KEY_NOT_FOUND"),
        *("Put refused: LEASE_NOT_FOUND", "unknown outcomes", "members changed"),
        *("watches set", "watches resumed", "watches cancelled", "watches overtaken by compaction", "watch events"),
        *("progress notified", "LeaseGrant", "LeaseTimeToLive", "LeaseLeases", "leases kept alive", "leases revoked"),
        *("leases left", "leased keys deleted", "leases found to be over", "locks acquired"),
        *("fenced writes done", "fenced writes refused", "fenced uses refused"),
    )

    def service(self, node: NodeId, agreement: StoreAgreement) -> Service:
        return observed_etcd(agreement, node)

    def workload(self, simulation: Simulation, servers: list[str], plan: Plan) -> Workload:
        return SimulatedEtcdWorkload(simulation, servers, plan)

    def look(self, store: object) -> None:
        assert isinstance(store, ObservedEtcdStore)
        store.look()

    def position(self, store: object) -> int:
        assert isinstance(store, ObservedEtcdStore)
        return store.commands

    def describe(self, data: bytes, from_client: bool) -> str:
        return describe_http2(data)


SERVICES: Mapping[str, CampaignService] = MappingProxyType({"zookeeper": ZooKeeperUnderTest(), "etcd": EtcdUnderTest()})
