"""A node's gate for tests of what stands before it: it remembers data folders, and what it was told."""

from __future__ import annotations

import dataclasses
from typing import Any

from quorate.net.handshake import Handshake, HandshakeRefused, LocalIdentity, PeerIdentity, RefusalCode


def incarnation(node: int) -> str:
    return f"{node:032x}"


def identity(node: int, /, **changes: Any) -> LocalIdentity:
    """Of a member of the cluster "orders", but for `changes`."""
    proper = LocalIdentity(
        "orders", "raft", node, incarnation(node), f"10.0.0.{node + 1}:7400", f"10.0.0.{node + 1}:80"
    )
    return dataclasses.replace(proper, **changes)


class RememberingGate:
    """Lets `members` in, each under the incarnation that it came with first, or all where None."""

    def __init__(self, local: LocalIdentity, members: set[int] | None = None) -> None:
        self.identity = local
        self.members = members
        self.folders: dict[int, str] = {}
        self.admitted: list[PeerIdentity] = []
        self.refusals: list[tuple[int, RefusalCode, str, str]] = []

    @property
    def handshake(self) -> Handshake:
        return Handshake(self)

    def local(self) -> LocalIdentity:
        return self.identity

    def admit(self, peer: PeerIdentity) -> None:
        if self.members is not None and peer.node not in self.members:
            raise HandshakeRefused(f"node {peer.node} is no member", RefusalCode.UNKNOWN)
        if self.folders.setdefault(peer.node, peer.incarnation) != peer.incarnation:
            raise HandshakeRefused(f"node {peer.node} came with another data folder", RefusalCode.OTHER_FOLDER)
        self.admitted.append(peer)

    def refused_by(self, peer: int, code: RefusalCode, cluster_id: str, reason: str) -> None:
        self.refusals.append((peer, code, cluster_id, reason))
