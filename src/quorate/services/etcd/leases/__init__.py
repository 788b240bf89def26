"""The door's side of leases: who keeps them alive, and when they end (see `keeper`)."""

from quorate.services.etcd.leases.keeper import LeaseKeeper

__all__ = ["LeaseKeeper"]
