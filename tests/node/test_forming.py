"""How a cluster comes to be, and that no two ever come of one list of members: whole nodes, simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from quorate.node.config import Address, ListenConfig, NodeConfig
from quorate.node.roster import ALONE_MS, TRY_ANOTHER_MS, Roster, Standing
from quorate.services.cluster.commands import Add, Form, Member, Promote
from quorate.services.cluster.store import ClusterStore
from quorate.simulation.disk import SimulatedDisk
from quorate.storage.identity import FILE_NAME, Identity
from tests.node.whole_nodes import WholeNodes


def standings(cluster: WholeNodes) -> dict[int, str]:
    return {node: running.status()["state"] for node, running in cluster.nodes.items()}


def ids(cluster: WholeNodes) -> set[str]:
    """Of the clusters that were formed."""
    return {running.status()["cluster_id"] for running in cluster.nodes.values()} - {""}


def test_a_cluster_forms_only_when_all_first_members_have_met_all() -> None:
    cluster = WholeNodes(3)
    cluster.start(0)
    cluster.start(1)
    cluster.pass_time(2)
    cluster.part(0, 1)
    cluster.part(1, 2)
    cluster.start(2)
    cluster.pass_time(5)
    # 0 and 2 have met everybody, but 1 has not met 2, and would take another folder of its for the first.
    assert standings(cluster) == {0: "forming", 1: "forming", 2: "forming"}
    assert "have not met each other" in cluster.nodes[0].status()["waiting_for"]
    cluster.mend(1, 2)
    cluster.wait_for_leader()
    assert len(ids(cluster)) == 1
    cluster.mend(0, 1)
    cluster.close()


def test_a_folder_lost_while_the_cluster_forms_forms_no_second_one() -> None:
    cluster = WholeNodes(3)
    cluster.start(0)
    cluster.start(1)
    cluster.pass_time(2)
    cluster.part(0, 1)
    cluster.part(1, 2)
    cluster.start(2)
    cluster.pass_time(2)
    cluster.kill(2)
    cluster.wipe(2)
    cluster.part(0, 2)
    cluster.mend(1, 2)
    cluster.start(2)
    cluster.pass_time(10)
    cluster.mend(0, 1)
    cluster.mend(0, 2)
    cluster.pass_time(10)
    assert len(ids(cluster)) <= 1
    # Node 0 had met the folder that is lost: somebody has to decide, and is told so.
    assert "came with another data folder than before" in cluster.nodes[2].status()["waiting_for"]
    cluster.close()


class WithAnotherProtocol(WholeNodes):
    """The settings of one node say another protocol than those of the rest, until they are mended."""

    def __init__(self, odd: int) -> None:
        super().__init__(3, protocol="paxos")
        self.odd: int | None = odd

    def config(self, node: int) -> NodeConfig:
        config = super().config(node)
        return replace(config, protocol="zookeeper=raft") if node == self.odd else config


def test_nodes_with_different_protocols_form_no_cluster_and_say_why() -> None:
    cluster = WithAnotherProtocol(2)
    for node in cluster.members:
        cluster.start(node)
    cluster.pass_time(5)
    assert standings(cluster) == {0: "forming", 1: "forming", 2: "forming"}
    waiting_for = cluster.nodes[2].status()["waiting_for"]
    assert "node 2 runs the protocol raft, node 0 paxos" in waiting_for
    assert "give a node that has no data yet the same `protocol`" in waiting_for
    cluster.kill(2)
    cluster.odd = None
    cluster.start(2)
    cluster.wait_for_leader()
    assert len(ids(cluster)) == 1
    cluster.close()


def test_a_log_without_its_identity_is_set_aside_and_not_taken_into_another_cluster() -> None:
    cluster = WholeNodes(3)
    cluster.start_all()
    cluster.wait_for(lambda: cluster.settled(1) or None)
    cluster.kill(0)
    disk = cluster.disks[0]
    disk.rename(FILE_NAME, "gone")
    disk.sync_folder("")
    cluster.start(0)
    cluster.wait_for(lambda: (cluster.settled(3) and len(cluster.voters()) == 3) or None)
    assert "damaged-1" in {name.split("/")[0] for name in disk.list("")}
    assert len(ids(cluster)) == 1
    cluster.close()


def test_a_lone_first_member_whose_cluster_has_grown_is_claimed_by_the_others() -> None:
    cluster = WholeNodes(1, spares=2)
    cluster.start_all()
    cluster.wait_for(lambda: cluster.settled(1) or None)
    for node in (1, 2):
        cluster.start(node)
        cluster.change(Add(0, node, cluster.peer_address(node)))
        cluster.change(Promote(0, node))
    cluster.kill(0)
    cluster.wipe(0)
    cluster.start(0)
    cluster.pass_time(ALONE_MS / 1000 + 15)
    assert len(ids(cluster)) == 1 and cluster.voters() == [0, 1, 2]
    cluster.close()


class Place:
    """One node's roster, without the node."""

    def __init__(self, members: Mapping[int, str]) -> None:
        self.now_ms = 0
        self.store = ClusterStore()
        addresses = {node: Address("10.0.0.9", int(port)) for node, port in members.items()}
        listen = ListenConfig(addresses[0], Address("10.0.0.9", 1), Address("10.0.0.9", 2))
        config = NodeConfig("paris", 0, Path("unused"), addresses, listen)
        identity = Identity.open(SimulatedDisk(), "paris", 0, "0" * 32, "raft")
        identity.join("c" * 32)
        self.roster = Roster(
            config,
            identity,
            self.store,
            ["zookeeper"],
            "1",
            False,
            lambda: self.now_ms,
            lambda: None,
            lambda error: None,
        )


def test_a_node_is_looked_for_where_it_was_and_where_the_settings_say() -> None:
    place = Place({0: "100", 1: "201"})
    assert place.roster.standing is Standing.MEMBER
    members = [Member(node, f"10.0.0.9:{100 + node}", "", f"{node:032x}", voter=True) for node in (0, 1)]
    assert place.store.execute(Form("c" * 32, members, [0])).problem is None
    looked_for = set()
    for _ in range(2):
        looked_for.add(place.roster.addresses()[1])
        place.now_ms += TRY_ANOTHER_MS
    assert looked_for == {"10.0.0.9:101", "10.0.0.9:201"}
