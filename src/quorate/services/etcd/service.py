"""The etcd service, as a node knows it."""

from __future__ import annotations

from functools import partial

from quorate.services.etcd.door import EtcdDoor
from quorate.services.etcd.options import EtcdOptions
from quorate.services.etcd.store import Store
from quorate.services.interface import DoorConfig, Group, Service


def make_service(options: EtcdOptions) -> Service:
    """One of these for each node; its options should be the same on all nodes of a cluster."""

    def create_door(store: Store, group: Group, config: DoorConfig) -> EtcdDoor:
        return EtcdDoor(store, group, config, options)

    return Service("etcd", partial(Store, options.quota_bytes), create_door)
