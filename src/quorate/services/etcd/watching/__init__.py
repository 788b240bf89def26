"""Watches: who is told of which changes, without a queue for anybody (see `watches`)."""

from quorate.services.etcd.watching.watches import Watching

__all__ = ["Watching"]
