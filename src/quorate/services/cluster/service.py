"""The cluster group's service, as a node knows it."""

from __future__ import annotations

from typing import Final

from quorate.services.cluster.door import ClusterDoor
from quorate.services.cluster.store import ClusterStore
from quorate.services.interface import Service

CLUSTER: Final = Service("cluster", ClusterStore, ClusterDoor)
"""Always group 0 of a cluster."""
