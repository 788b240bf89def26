"""The two that are compared: a real etcd, and Quorate."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.services.etcd.peer import Etcd, Peer, Quorate, require_etcd

AGAINST_ITSELF = os.environ.get("ETCD_AGAINST_ITSELF")
"""Set, a second etcd takes the place of Quorate: what differs then is the tests' own fault."""


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """One node of etcd."""
    require_etcd()
    with Etcd(tmp_path_factory.mktemp("etcd")) as peer:
        yield peer


@pytest.fixture(scope="module")
def quorate(tmp_path_factory: pytest.TempPathFactory, etcd: Peer) -> Iterator[Peer]:
    """One node of Quorate."""
    folder = tmp_path_factory.mktemp("quorate")
    with Etcd(folder) if AGAINST_ITSELF else Quorate(folder) as peer:
        yield peer
