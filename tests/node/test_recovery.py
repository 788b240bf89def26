"""A new cluster out of a survivor's folder or a backup: what a real replica and store make of the result."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from quorate.consensus.membership import NO_CONFIGURATION, Configuration, is_configuration
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.records import Entry, SaveEntry, SaveState, TruncateFrom
from quorate.consensus.replica import Persisted, Replica, ReplicaConfig, Role, Tick
from quorate.node.protocols import protocols_in
from quorate.node.recovery import CannotRecover, NewNode, Recovery, examine, recover, restore_backup
from quorate.node.wire import PayloadCodec
from quorate.services.cluster.store import ClusterStore
from quorate.storage.backup import FolderNotEmpty
from quorate.storage.identity import Identity
from quorate.storage.log import Log
from quorate.storage.log_errors import CorruptLog
from quorate.storage.real_disk import RealDisk
from quorate.storage.snapshots import Snapshots
from tests.node.survivors import ADD, CLUSTER_ID, INCARNATIONS, SERVICE_LOG, backup, leave, payload

NEW = NewNode("e" * 32, "f" * 32)


@pytest.fixture
def disk(tmp_path: Path) -> RealDisk:
    return RealDisk(tmp_path / "data")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Restarted:
    """The groups of a recovered folder, run by real replicas until they lead, with the real store behind group 0."""

    def __init__(self, disk: RealDisk) -> None:
        identity = Identity.load(disk)
        assert identity is not None
        self.identity = identity
        self.log, recovery = Log.open(disk)
        self.store = ClusterStore()
        self.committed: dict[int, list[Entry]] = {}
        self.replicas: dict[int, Replica] = {}
        snapshots = Snapshots(disk)
        for group, recovered in recovery.groups.items():
            if group == 0 and recovered.compacted.position:
                (info,) = [i for i in snapshots.all(0) if i.position == recovered.compacted.position]
                _, content = snapshots.open(info)
                loader = self.store.restore()
                loader.feed(content)
                loader.finish()
            config = ReplicaConfig(identity.node, NO_CONFIGURATION, incarnation=identity.incarnation)
            runs_on = protocols_in(identity.protocol, ["zookeeper" if group else "cluster"]).popitem()[1]
            replica = PROTOCOLS[runs_on].build(config, recovered, Random(1), 0)
            self.replicas[group] = replica
            self.committed[group] = self._lead(group, replica)
        for entry in self.committed[0]:
            if entry.payload and not is_configuration(entry.payload):
                for batch in PayloadCodec().decode(entry.payload).batches:
                    for outcome in self.store.apply(batch.commands, 0):
                        assert outcome.problem is None
        self.log.close()

    def _lead(self, group: int, replica: Replica) -> list[Entry]:
        committed: list[Entry] = []
        now_ms = 0
        while not replica.status().ready:
            assert now_ms < 60_000, "a lone voter leads after an election timeout"
            now_ms = max(now_ms + 1, replica.deadline_ms())
            effects = replica.step(Tick(), now_ms)
            while effects.ticket or effects.committed:
                committed += effects.committed
                self.log.append(group, effects.records)
                self.log.commit()
                effects = replica.step(Persisted(effects.ticket), now_ms)
        return committed


def test_what_is_found(disk: RealDisk) -> None:
    leave(disk)
    found = examine(disk)
    assert (found.cluster, found.cluster_id, found.node) == ("lab", CLUSTER_ID, 1)
    assert found.groups[1].last_position == 4
    assert (found.groups[1].generation, found.groups[1].state_generation) == (2, 3)
    assert found.groups[1].configuration.version == 4
    assert found.groups[0].configuration == Configuration.make(1, INCARNATIONS), "as the cluster was formed"
    assert found.members.version == 2
    assert found.version() == 4
    assert found.others() == [0, 2]
    assert [doubt for doubt in found.doubts() if "group 1" in doubt and "heard of term 3" in doubt]
    assert not [doubt for doubt in found.doubts() if "did not vote" in doubt]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_lone_node_goes_on_with_everything_that_was_there(disk: RealDisk, protocol: str) -> None:
    leave(disk, protocol=protocol)
    recovery = recover(disk, examine(disk), NEW, "test")
    assert recovery == Recovery(
        "lab", NEW.cluster_id, 1, "10.0.0.2:3181", protocol, ("zookeeper",), "before-recovery-1"
    )
    node = Restarted(disk)
    assert (node.identity.cluster_id, node.identity.incarnation) == (NEW.cluster_id, NEW.incarnation)
    assert (node.identity.recovered_from, node.identity.protocol) == (CLUSTER_ID, protocol)
    assert not node.identity.formation
    # Everything, and then what makes this node the only voter.
    assert [entry.payload for entry in node.committed[1][:4]] == [entry.payload for entry in SERVICE_LOG]
    for replica in node.replicas.values():
        assert replica.configuration() == Configuration.make(5, {1: NEW.incarnation})
        assert replica.settled_version() == 5
        assert replica.status().role is Role.LEADER
    assert list(node.store.members) == [1]
    assert node.store.cluster_id == NEW.cluster_id
    assert node.store.version == 5, "as the groups' configurations: else no later change could be made"
    assert not node.store.under_way()
    assert node.store.goal() == Configuration.make(5, {1: NEW.incarnation})
    for incarnation in INCARNATIONS.values():
        assert node.store.why_removed(incarnation), "no former member may come back to life"
    assert node.store.execute(ADD).problem is None, "it can grow again"


ROUND = 1_000_000_000
FIRST, SECOND = ROUND, 2 * ROUND + 2
"""Ballots of node 0 and of node 2."""
WITH_HOLES = (
    Entry(1, FIRST, b""),
    Entry(2, FIRST, payload(b"one")),
    Entry(4, FIRST, payload(b"three")),
    Entry(7, SECOND, b""),
    Entry(8, SECOND, payload(b"four")),
)
"""3 came to other members only; so did 5 and 6, with which node 2 filled what it had found to be open."""


def test_a_survivor_of_paxos_has_holes_and_what_came_behind_them_from_the_same_leader_is_void(disk: RealDisk) -> None:
    leave(disk, protocol="paxos", service_log=WITH_HOLES)
    found = examine(disk)
    assert (found.groups[1].holes, found.groups[1].last_position) == ((3, 5, 6), 8)
    assert [doubt for doubt in found.doubts() if "3 of the entries before the last never came to this node" in doubt]
    recover(disk, found, NEW, "test")
    committed = Restarted(disk).committed[1]
    assert [entry.position for entry in committed[:9]] == [*range(1, 10)]
    written = {entry.position: entry.payload for entry in committed[:8] if entry.payload}
    assert written == {2: payload(b"one"), 8: payload(b"four")}


def test_a_new_cluster_of_one_decides_by_majorities_whatever_the_old_ones_quorums_were(disk: RealDisk) -> None:
    leave(disk, protocol="cluster=raft,zookeeper=paxos:3+1")
    assert recover(disk, examine(disk), NEW, "test").protocol == "cluster=raft,zookeeper=paxos"
    node = Restarted(disk)
    assert [entry.payload for entry in node.committed[1][:4]] == [entry.payload for entry in SERVICE_LOG]


def test_a_log_of_raft_has_no_holes(disk: RealDisk) -> None:
    leave(disk, service_log=(SERVICE_LOG[0], SERVICE_LOG[2]))
    with pytest.raises(CannotRecover, match="the log of group 1 has no entry at position 2"):
        examine(disk)


def test_a_survivor_whose_members_lie_in_a_snapshot(disk: RealDisk) -> None:
    leave(disk, snapshot_at=2)
    found = examine(disk)
    assert (found.groups[0].snapshot_position, found.groups[0].last_position) == (2, 3)
    assert found.members.version == 2
    recover(disk, found, NEW, "test")
    node = Restarted(disk)
    assert (node.store.cluster_id, list(node.store.members)) == (NEW.cluster_id, [1])


def test_generations_never_go_back_in_the_log(disk: RealDisk) -> None:
    leave(disk)
    recover(disk, examine(disk), NEW, "test")
    for entries in Restarted(disk).committed.values():
        generations = [entry.generation for entry in entries]
        assert generations == sorted(generations)


def test_another_address(disk: RealDisk) -> None:
    leave(disk)
    new = NewNode("e" * 32, "f" * 32, 1, "127.0.0.1:9", "rehearsal")
    recovery = recover(disk, examine(disk), new, "test")
    assert (recovery.cluster, recovery.peer) == ("rehearsal", "127.0.0.1:9")
    node = Restarted(disk)
    assert node.identity.cluster == "rehearsal"
    assert node.store.members[1].address == "127.0.0.1:9"


def test_another_nodes_folder_is_refused(disk: RealDisk, tmp_path: Path) -> None:
    leave(disk)
    before = files(tmp_path)
    with pytest.raises(CannotRecover, match="that of node 1, not of node 2"):
        recover(disk, examine(disk), NewNode("e" * 32, "f" * 32, 2), "test")
    assert files(tmp_path) == before


def test_a_node_that_did_not_vote_is_doubtful(disk: RealDisk) -> None:
    leave(disk)
    log, _ = Log.open(disk)
    log.append(1, [SaveEntry(Entry(5, 3, Configuration.make(5, {0: INCARNATIONS[0]}, {1: "9" * 32}).encode()))])
    log.close()
    assert [doubt for doubt in examine(disk).doubts() if "group 1: node 1 did not vote" in doubt]


def test_folders_of_which_nothing_can_be_made(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path / "empty")
    with pytest.raises(CannotRecover, match=r"no identity\.json"):
        examine(disk)
    disk = RealDisk(tmp_path / "forming")
    Identity.create(disk, "lab", 1, INCARNATIONS[1], "raft")
    with pytest.raises(CannotRecover, match="did not belong to any cluster yet"):
        examine(disk)
    disk = RealDisk(tmp_path / "without a log")
    Identity.create(disk, "lab", 1, INCARNATIONS[1], "raft", cluster_id=CLUSTER_ID)
    with pytest.raises(CannotRecover, match="the log is gone"):
        examine(disk)


def test_a_hole_in_the_log_is_refused(disk: RealDisk) -> None:
    leave(disk)
    log, _ = Log.open(disk)
    log.append(1, [TruncateFrom(4), SaveEntry(Entry(6, 2, b""))])
    log.close()
    with pytest.raises(CannotRecover, match="the log of group 1 has no entry at position 4"):
        examine(disk)


def test_a_missing_snapshot_is_refused(disk: RealDisk, tmp_path: Path) -> None:
    leave(disk, snapshot_at=2)
    for path in (tmp_path / "data" / "snapshots").iterdir():
        path.unlink()
    with pytest.raises(CannotRecover, match="begins after position 2, whose snapshot is missing"):
        examine(disk)


def test_a_state_of_another_protocol_is_refused(disk: RealDisk) -> None:
    leave(disk)
    log, _ = Log.open(disk)
    log.append(1, [SaveState(b"?")])
    log.close()
    with pytest.raises(CannotRecover, match="group 1: Raft hard state"):
        examine(disk)


def test_a_damaged_log_is_refused(disk: RealDisk, tmp_path: Path) -> None:
    leave(disk)
    (segment, *_) = sorted((tmp_path / "data" / "log").iterdir())
    content = bytearray(segment.read_bytes())
    content[content.index(b"10.0.0.1") + 1] ^= 1
    segment.write_bytes(content)
    before = files(tmp_path)
    with pytest.raises(CorruptLog):
        examine(disk)
    assert files(tmp_path) == before


# --- backups ---------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path)


def save(tmp_path: Path, **about: Any) -> Path:
    path = tmp_path / "lab.quorate"
    path.write_bytes(backup(RealDisk(tmp_path / "served"), **about))
    return path


def restore(disk: RealDisk, path: Path) -> Recovery:
    return asyncio.run(restore_backup(disk, path, NewNode("e" * 32, "f" * 32, 7, "127.0.0.1:9")))


@pytest.mark.parametrize(("protocol", "generation"), [*((name, 6) for name in PROTOCOLS), ("paxos", 0)])
def test_a_backup_becomes_a_cluster_of_one(disk: RealDisk, tmp_path: Path, protocol: str, generation: int) -> None:
    """Where the last entry before a snapshot of Paxos was void, the snapshot's generation is 0."""
    recovery = restore(disk, save(tmp_path, protocol=protocol, generation=generation))
    assert (recovery.cluster, recovery.node, recovery.peer) == ("lab", 7, "127.0.0.1:9")
    node = Restarted(disk)
    assert node.identity.recovered_from == CLUSTER_ID
    assert list(node.store.members) == [7]
    assert node.store.version == node.replicas[1].settled_version() == 3
    assert node.store.why_removed(INCARNATIONS[0])
    # The snapshot is where the log says, and what comes after it is of no earlier generation.
    (info,) = Snapshots(disk).all(1)
    assert (info.position, [*Snapshots(disk).open(info)][1]) == (400, b"all the data")
    assert [(entry.position, entry.generation > generation) for entry in node.committed[1]] == [
        (401, True),
        (402, True),
    ]


def test_a_backup_goes_into_an_empty_folder_only(disk: RealDisk, saved: Path, tmp_path: Path) -> None:
    leave(disk)
    before = files(tmp_path)
    with pytest.raises(FolderNotEmpty):
        restore(disk, saved)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("wrong", "words"), [({"protocol": "viewstamped"}, "viewstamped"), ({"groups": (1,)}, "list of members")]
)
def test_a_backup_of_which_nothing_can_be_made(
    disk: RealDisk, tmp_path: Path, wrong: dict[str, object], words: str
) -> None:
    path = save(tmp_path, **wrong)
    with pytest.raises(CannotRecover, match=words):
        restore(disk, path)
    assert Identity.load(disk) is None
    assert not [name for name in files(tmp_path / "data") if name != "lock"]
