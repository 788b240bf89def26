"""The other nodes as this one sees them now: linked, let in, how far they are, and whose word counts where."""

from __future__ import annotations

from collections.abc import Mapping

from quorate.consensus.replica import NodeId
from quorate.net.links import Links
from quorate.net.listener import PeerListener
from quorate.node.group import ReplicatedGroup
from quorate.node.ports import GroupHost
from quorate.node.room import CLUSTER_GROUP
from quorate.node.roster import Roster, as_endpoint
from quorate.node.wire import Met, Positions

POSITIONS_INTERVAL_MS = 500


class Neighbours:
    """Keeps links as the roster wants them, and listens to peers as the groups' configurations say."""

    def __init__(
        self,
        roster: Roster,
        links: Links,
        listener: PeerListener,
        groups: Mapping[int, ReplicatedGroup],
        host: GroupHost,
    ) -> None:
        self._roster = roster
        self._links = links
        self._listener = listener
        self._groups = groups
        self._host = host
        self.unheeded: frozenset[tuple[NodeId, int]] = frozenset()
        """(peer, group): it is known there under another incarnation than it comes with, so nothing of it counts."""
        self._positions: dict[NodeId, dict[int, int]] = {}
        """How far each connected peer has applied each group, as it said last."""
        self._tell_ms = 0

    # --- who is linked, and who counts -------------------------------------------------------

    def link(self) -> None:
        """Link to whom the roster knows, and to nobody else."""
        addresses = self._roster.addresses()
        for peer, address in addresses.items():
            self._links.ensure(peer, as_endpoint(address))
        for peer in [*self._links.by_peer]:
            if peer not in addresses:
                self._links.remove(peer)
                self._listener.disconnect(peer)

    def have_dial_again(self) -> None:
        """Whoever is connected learns at its next hello what this node has become."""
        for peer in self._roster.addresses():
            self._listener.disconnect(peer)

    def tell_met(self) -> None:
        """While a cluster forms, the first members tell each other whom they have met."""
        met = self._roster.met()
        if met is not None:
            for link in self._links.by_peer.values():
                link.queue((CLUSTER_GROUP, Met(met)))
            self._host.schedule()

    def heed(self) -> None:
        """Find out anew what of whom counts where: a configuration changed, or a peer connected."""
        unheeded = []
        for group_id, group in self._groups.items():
            configuration = group.replica.configuration()
            for peer in configuration.members:
                known_as = configuration.incarnation(peer) or configuration.learners.get(peer)
                connected_as = self._listener.incarnation_of(peer)
                if connected_as is not None and connected_as != known_as:
                    unheeded.append((peer, group_id))
        self.unheeded = frozenset(unheeded)

    # --- how far they are --------------------------------------------------------------------

    def alive(self) -> list[NodeId]:
        """This node and those that it is connected with."""
        return [self._roster.node, *(peer for peer, link in self._links.by_peer.items() if link.connected)]

    def lags(self) -> dict[NodeId, int]:
        """Entries that each connected node is behind in the group where it is furthest behind; itself included."""
        known = {**self._positions, self._roster.node: self._own_positions()}
        furthest = {group: max(applied.get(group, 0) for applied in known.values()) for group in self._groups}
        return {
            node: max((furthest[group] - applied.get(group, 0) for group in self._groups), default=0)
            for node, applied in known.items()
        }

    def best_successor(self, group: ReplicatedGroup) -> NodeId | None:
        """The voter that is least behind; None where there is no other that is connected."""
        lags, voters = self.lags(), group.replica.configuration().voters
        others = [(lags[node], node) for node in voters if node in lags and node != self._roster.node]
        return min(others)[1] if others else None

    def hear_stopping(self, peer: NodeId) -> None:
        if (link := self._links.by_peer.get(peer)) is not None:
            link.leaving = True

    def hear_positions(self, peer: NodeId, positions: Positions) -> None:
        self._positions[peer] = positions.applied

    def lost(self, peer: NodeId) -> None:
        self._positions.pop(peer, None)

    def tick(self, now_ms: int) -> None:
        """Tell the others how far this node is."""
        if now_ms >= self._tell_ms:
            self._tell_ms = now_ms + POSITIONS_INTERVAL_MS
            message = Positions(self._own_positions())
            for link in self._links.by_peer.values():
                link.queue((CLUSTER_GROUP, message))
            self._host.schedule()

    def _own_positions(self) -> dict[int, int]:
        return {group_id: group.applied_position for group_id, group in self._groups.items()}
