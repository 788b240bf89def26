"""The identity file binds a data folder to one node of one cluster."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.simulation.disk import SimulatedDisk
from quorate.storage.disk import DiskFull
from quorate.storage.identity import FILE_NAME, DamagedIdentity, Identity, IdentityMismatch, is_incarnation
from tests.storage.crashes import crashed, killed

OWN = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2


def test_a_new_folder_gets_an_identity_that_stays() -> None:
    disk = SimulatedDisk()
    assert Identity.load(disk) is None
    identity = Identity.open(disk, "paris", 3, OWN)
    assert (identity.cluster, identity.node, identity.incarnation) == ("paris", 3, OWN)
    for seed in range(10):
        again = Identity.open(crashed(disk, Random(seed)), "paris", 3, OTHER)
        assert again.incarnation == OWN


def test_peers_are_remembered_durably() -> None:
    disk = SimulatedDisk()
    identity = Identity.open(disk, "paris", 3, OWN)
    assert identity.known_peer(1) is None
    identity.remember_peer(1, OTHER)
    assert identity.known_peer(1) == OTHER
    for seed in range(10):
        again = Identity.load(crashed(disk, Random(seed)))
        assert again is not None
        assert (again.known_peer(1), again.known_peer(2)) == (OTHER, None)


def test_the_folder_of_another_node_or_cluster_is_refused() -> None:
    disk = SimulatedDisk()
    Identity.open(disk, "paris", 3, OWN)
    with pytest.raises(IdentityMismatch, match="belongs to node 3, not node 2"):
        Identity.open(disk, "paris", 2, OWN)
    with pytest.raises(IdentityMismatch, match="belongs to cluster 'paris', not 'rome'"):
        Identity.open(disk, "rome", 3, OWN)


def test_a_newer_format_is_named() -> None:
    disk = SimulatedDisk()
    disk.open(FILE_NAME, create=True).write_at(0, b'{"crc32c": 0, "identity": {"format": 2, "members": []}}')
    with pytest.raises(IdentityMismatch, match="format 2; this version of Quorate reads format 1"):
        Identity.load(disk)


def test_an_edited_file_is_damaged() -> None:
    disk = SimulatedDisk()
    Identity.open(disk, "paris", 3, OWN)
    data = disk.read(FILE_NAME)
    file = disk.open(FILE_NAME)
    file.write_at(data.index(b"paris"), b"milan")
    with pytest.raises(DamagedIdentity, match="checksum"):
        Identity.load(disk)


def test_every_cut_is_damaged() -> None:
    disk = SimulatedDisk()
    Identity.open(disk, "paris", 3, OWN)
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
        Identity.create(SimulatedDisk(), "paris", 3, "short")


def test_a_peer_that_cannot_be_remembered_is_not_known() -> None:
    disk = SimulatedDisk()
    identity = Identity.open(disk, "paris", 3, OWN)
    disk.capacity_bytes = disk.open(FILE_NAME).size()
    with pytest.raises(DiskFull):
        identity.remember_peer(1, OTHER)
    assert identity.known_peer(1) is None
    disk.capacity_bytes = None
    identity.remember_peer(1, OTHER)
    assert identity.known_peer(1) == OTHER


def test_an_incarnation_is_told_from_other_text() -> None:
    assert is_incarnation(OWN)
    for other in ("", OWN[:-1], OWN + "0", OWN.upper(), OWN[:-1] + "g", OWN[:-1] + "\n", OWN + "\n"):
        assert not is_incarnation(other)
