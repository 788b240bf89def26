"""All mutants, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tests.mutants import (
    etcd_door,
    etcd_store,
    membership,
    node,
    paxos,
    raft_elections,
    raft_log,
    reads,
    repair,
    storage,
    transfer,
    two_phase_commit,
    zab,
    zookeeper_door,
    zookeeper_store,
)
from tests.mutants.mutant import Mutant

ALL: Final[tuple[Mutant, ...]] = (
    *raft_elections.MUTANTS,
    *raft_log.MUTANTS,
    *reads.MUTANTS,
    *storage.MUTANTS,
    *node.MUTANTS,
    *membership.MUTANTS,
    *transfer.MUTANTS,
    *repair.MUTANTS,
    *zookeeper_store.MUTANTS,
    *zookeeper_door.MUTANTS,
    *etcd_store.MUTANTS,
    *etcd_door.MUTANTS,
    *paxos.MUTANTS,
    *zab.MUTANTS,
    *two_phase_commit.MUTANTS,
)

MUTANTS: Final[Mapping[str, Mutant]] = MappingProxyType({mutant.name: mutant for mutant in ALL})
