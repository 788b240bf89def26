"""The ZooKeeper service, as a node knows it."""

from __future__ import annotations

from typing import Final

from quorate.services.interface import Service
from quorate.services.zookeeper.door import ZooKeeperDoor
from quorate.services.zookeeper.store import Store

ZOOKEEPER: Final = Service("zookeeper", Store, ZooKeeperDoor)
