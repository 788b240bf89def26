"""The identity file binds a data folder to one node of one cluster."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
import pytest
from google_crc32c import value
from hypothesis import given
from hypothesis import strategies as st

from quorate.simulation.disk import SimulatedDisk
from quorate.storage.disk import DiskFull
from quorate.storage.identity import (
    FILE_NAME,
    DamagedIdentity,
    Identity,
    IdentityMismatch,
    cluster_id_of,
    is_cluster_id,
    is_incarnation,
)
from tests.storage.crashes import crashed, killed

OWN = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
CLUSTER = "c" * 32


def reloaded(disk: SimulatedDisk) -> Identity:
    identity = Identity.load(disk)
    assert identity is not None
    return identity


def test_a_new_folder_gets_an_identity_that_stays() -> None:
    disk = SimulatedDisk()
    assert Identity.load(disk) is None
    identity = Identity.open(disk, "paris", 3, OWN, "raft")
    assert (identity.cluster, identity.node, identity.incarnation) == ("paris", 3, OWN)
    for seed in range(10):
        again = Identity.open(crashed(disk, Random(seed)), "paris", 3, OTHER, "raft")
        assert again.incarnation == OWN


def test_a_cluster_forms_durably() -> None:
    disk = SimulatedDisk()
    identity = Identity.open(disk, "paris", 3, OWN, "raft")
    assert (identity.cluster_id, identity.met, identity.formation, identity.recovered_from) == ("", {}, {}, "")
    identity.meet(2, OTHER)
    identity.meet(1, OTHER)
    identity.meet(1, OWN)
    for seed in range(10):
        assert reloaded(crashed(disk, Random(seed))).met == {1: OWN, 2: OTHER}
    formation = {3: OWN, 2: OTHER, 1: OWN}
    identity.form(cluster_id_of("paris", formation), formation)
    for seed in range(10):
        again = reloaded(crashed(disk, Random(seed)))
        assert again.cluster_id == cluster_id_of("paris", formation)
        assert (again.met, again.formation) == ({}, formation)


def test_a_node_joins_durably_and_only_one_cluster() -> None:
    disk = SimulatedDisk()
    identity = Identity.open(disk, "paris", 3, OWN, "raft")
    identity.meet(1, OTHER)
    identity.join(CLUSTER)
    for seed in range(10):
        again = reloaded(crashed(disk, Random(seed)))
        assert (again.cluster_id, again.met, again.formation, again.incarnation) == (CLUSTER, {}, {}, OWN)
    changes: list[Callable[[], None]] = [
        lambda: identity.join(OTHER),
        lambda: identity.form(OTHER, {3: OWN}),
        lambda: identity.meet(1, OWN),
    ]
    for change in changes:
        with pytest.raises(AssertionError):
            change()
    assert reloaded(disk).cluster_id == identity.cluster_id == CLUSTER


def test_addresses_are_remembered_and_written_only_where_they_changed() -> None:
    disk = SimulatedDisk()
    identity = Identity.open(disk, "paris", 3, OWN, "raft")
    identity.remember_members({2: "b:4181", 1: "a:4181"}, [2, 1])
    syncs = disk.sync_count
    identity.remember_members({1: "a:4181", 2: "b:4181"}, [2, 1])
    identity.join(CLUSTER)
    assert disk.sync_count == syncs + 2
    identity.join(CLUSTER)
    identity.remember_members({1: "a:4181", 2: "b:4181"}, [2, 1])
    assert disk.sync_count == syncs + 2
    identity.remember_members({2: "c:4181"}, [2, 1])
    for seed in range(10):
        again = reloaded(crashed(disk, Random(seed)))
        assert (again.addresses, again.cluster_id) == ({2: "c:4181"}, CLUSTER)


def test_an_identity_may_begin_as_a_recovered_member() -> None:
    disk = SimulatedDisk()
    Identity.create(disk, "paris", 3, OWN, "raft", cluster_id=CLUSTER, formation={3: OWN}, recovered_from=OTHER)
    again = reloaded(disk)
    assert (again.cluster_id, again.formation, again.recovered_from) == (CLUSTER, {3: OWN}, OTHER)


def test_a_cluster_id_is_that_of_the_name_and_of_all_first_members() -> None:
    ids = [
        cluster_id_of("paris", {1: OWN, 2: OTHER}),
        cluster_id_of("paris", {1: OTHER, 2: OWN}),
        cluster_id_of("paris", {1: OWN}),
        cluster_id_of("paris", {11: OWN}),
        cluster_id_of("rome", {1: OWN, 2: OTHER}),
    ]
    assert len(set(ids)) == len(ids)
    assert all(map(is_cluster_id, ids))
    assert cluster_id_of("paris", {2: OTHER, 1: OWN}) == ids[0]
    # Nodes of different versions must come to the same.
    assert ids[0] == "30f28b47579aaad2868c40b108772034"


def test_the_folder_of_another_node_or_cluster_is_refused() -> None:
    disk = SimulatedDisk()
    Identity.open(disk, "paris", 3, OWN, "raft")
    with pytest.raises(IdentityMismatch, match="belongs to node 3, not node 2"):
        Identity.open(disk, "paris", 2, OWN, "raft")
    with pytest.raises(IdentityMismatch, match="belongs to cluster 'paris', not 'rome'"):
        Identity.open(disk, "rome", 3, OWN, "raft")


@pytest.mark.parametrize("version", [1, 4])
def test_another_format_is_named(version: int) -> None:
    disk = SimulatedDisk()
    content = b'{"crc32c": 0, "identity": {"format": %d, "members": []}}' % version
    disk.open(FILE_NAME, create=True).write_at(0, content)
    with pytest.raises(IdentityMismatch, match=f"format {version}; this version of Quorate reads formats 2 and 3"):
        Identity.load(disk)


def test_a_folder_of_a_time_with_one_protocol_runs_on_that() -> None:
    disk = SimulatedDisk()
    identity = Identity.open(disk, "paris", 3, OWN, "zab")
    identity.form(CLUSTER, {3: OWN})
    content = msgspec.json.decode(disk.read(FILE_NAME))["identity"]
    del content["protocol"]
    old = msgspec.json.encode({**content, "format": 2})
    file = b'{"crc32c": %d, "identity": %b}' % (value(old), old)
    there = disk.open(FILE_NAME)
    there.truncate(0)
    there.write_at(0, file)
    again = reloaded(disk)
    assert (again.protocol, again.incarnation, again.cluster_id, again.formation) == ("raft", OWN, CLUSTER, {3: OWN})
    again.remember_members({3: "a:1"}, [3])
    last = reloaded(disk)
    assert (last.protocol, last.cluster_id, last.addresses) == ("raft", CLUSTER, {3: "a:1"})


def test_an_edited_file_is_damaged() -> None:
    disk = SimulatedDisk()
    Identity.open(disk, "paris", 3, OWN, "raft")
    data = disk.read(FILE_NAME)
    file = disk.open(FILE_NAME)
    file.write_at(data.index(b"paris"), b"milan")
    with pytest.raises(DamagedIdentity, match="checksum"):
        Identity.load(disk)


def test_every_cut_is_damaged() -> None:
    disk = SimulatedDisk()
    Identity.open(disk, "paris", 3, OWN, "raft")
    size = disk.open(FILE_NAME).size()
    for size_bytes in range(size - 1):
        cut = killed(disk)
        cut.open(FILE_NAME).truncate(size_bytes)
        with pytest.raises(DamagedIdentity):
            Identity.load(cut)


@given(st.binary(max_size=100))
def test_random_bytes_are_damaged(data: bytes) -> None:
    disk = SimulatedDisk()
    disk.open(FILE_NAME, create=True).write_at(0, data)
    with pytest.raises(DamagedIdentity):
        Identity.load(disk)


def test_an_incarnation_must_be_one() -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        Identity.create(SimulatedDisk(), "paris", 3, "short", "raft")


def test_a_cluster_id_must_be_one() -> None:
    identity = Identity.create(SimulatedDisk(), "paris", 3, OWN, "raft")
    for use in (
        lambda: Identity.create(SimulatedDisk(), "paris", 3, OWN, "raft", cluster_id="short"),
        lambda: Identity.create(SimulatedDisk(), "paris", 3, OWN, "raft", recovered_from="short"),
        lambda: identity.join(""),
        lambda: identity.form("short", {}),
    ):
        with pytest.raises(ValueError, match="32 hexadecimal digits"):
            use()


def test_what_cannot_be_remembered_is_not_known() -> None:
    disk = SimulatedDisk()
    identity = Identity.open(disk, "paris", 3, OWN, "raft")
    disk.capacity_bytes = disk.open(FILE_NAME).size()
    with pytest.raises(DiskFull):
        identity.meet(1, OTHER)
    with pytest.raises(DiskFull):
        identity.join(CLUSTER)
    assert (identity.met, identity.cluster_id) == ({}, "")
    disk.capacity_bytes = None
    identity.meet(1, OTHER)
    assert identity.met == {1: OTHER}


def test_an_incarnation_is_told_from_other_text() -> None:
    assert is_incarnation(OWN)
    for other in ("", OWN[:-1], OWN + "0", OWN.upper(), OWN[:-1] + "g", OWN[:-1] + "\n", OWN + "\n"):
        assert not is_incarnation(other)
