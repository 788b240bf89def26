"""Who belongs to the cluster, as this node knows it: whom it lets in, and where the others are.

A node is *forming* until it has met every first member of a new cluster, *joining* until a
member of an existing one lets it in, and a *member* from then on (docs/membership.md).

What a member knows of the others may be old: it may have slept through any number of
changes, and the leader that could tell it may be a node that it has never heard of.  So
whoever speaks for the same cluster id is let in unless its folder was removed.  That is
safe because being let in decides nothing: what counts in a group is counted under the
incarnations that the group's own configuration names (`Node` asks `vouches`).
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from quorate.consensus.membership import NO_CONFIGURATION, Configuration
from quorate.consensus.replica import NodeId
from quorate.net.handshake import HandshakeRefused, LocalIdentity, PeerIdentity, RefusalCode
from quorate.node.config import Address, NodeConfig, parse_address
from quorate.node.protocols import why_members_stay
from quorate.services.cluster.addresses import normalise
from quorate.services.cluster.store import ClusterStore
from quorate.storage.identity import Identity, cluster_id_of

_log = logging.getLogger(__name__)


ALONE_MS: Final = 1_500
"""Longer than peers wait between two attempts to reach a node."""
TRY_ANOTHER_MS: Final = 3_000
"""How long a node that cannot be reached is looked for at one address, before another one is tried."""


class Standing(enum.Enum):
    FORMING = "forming"
    JOINING = "joining"
    MEMBER = "member"


class RemovedFromCluster(Exception):
    """This node was removed from its cluster for ever: it ends, and starting it again will not help."""


@dataclass(frozen=True, slots=True)
class Knock:
    """A node with another folder than the one that is known under its id, or whose folder is not known yet."""

    node: NodeId
    incarnation: str
    address: str
    admin: str
    at_ms: int


class Roster:
    """The node's `net.handshake.Gate`."""

    def __init__(
        self,
        config: NodeConfig,
        identity: Identity,
        store: ClusterStore,
        services: Sequence[str],
        release: str,
        joining: bool,
        now_ms: Callable[[], int],
        on_member: Callable[[], None],
        on_removed: Callable[[RemovedFromCluster], None],
    ) -> None:
        self._config = config
        self._identity = identity
        self._store = store
        self._services = tuple(services)
        self._release = release
        self._now_ms = now_ms
        self._began_ms = now_ms()
        self._on_member = on_member
        self._on_removed = on_removed
        self._admins: dict[NodeId, str] = {}
        """Admin addresses that peers came with."""
        self.strangers: dict[NodeId, str] = {}
        """Peers known by what they said of themselves alone, and where they are."""
        self.knocks: dict[NodeId, Knock] = {}
        """Nodes that were refused for their folder, newest attempt each."""
        self._met_by: dict[NodeId, Mapping[NodeId, str]] = {}
        """While forming: whom each first member says that it has met."""
        self._said_at: dict[NodeId, str] = {}
        """Where peers that were let in said they are."""
        self._refusals: dict[NodeId, str] = {}
        """Why peers refuse this node, for people."""
        if identity.cluster_id:
            self.standing = Standing.MEMBER
        elif joining or config.join:
            self.standing = Standing.JOINING
        else:
            self.standing = Standing.FORMING

    def tick(self, now_ms: int) -> None:
        """The only first member has nobody to wait for.

        But for a moment: where its cluster has grown since, and its folder was lost, the
        others still know where it is, and tell it by their hellos.
        """
        if self.standing is Standing.FORMING and now_ms >= self._began_ms + ALONE_MS:
            self._form_if_all_met()

    # --- what it knows -----------------------------------------------------------------------

    @property
    def node(self) -> NodeId:
        return self._config.node

    def initial(self) -> Configuration:
        """The first configuration of every group, where this node was there when the cluster formed."""
        formation = self._identity.formation
        return Configuration.make(1, formation) if formation else NO_CONFIGURATION

    def addresses(self) -> dict[NodeId, str]:
        """Where the other nodes' peer listeners are, as far as this node knows."""
        store = self._store
        by_settings = {node: str(address) for node, address in self._config.members.items()}
        if store.version:
            known = {node: member.address for node, member in {**store.leaving, **store.members}.items()}
        else:
            known = {**by_settings, **self._identity.addresses}
        if self._now_ms() // TRY_ANOTHER_MS % 2:
            # Nodes may have moved while this one was down: what was decided and what the settings say take turns.
            known.update({node: by_settings[node] for node in known if node in by_settings})
        known.update({node: address for node, address in self._said_at.items() if node in known})
        known = {**self.strangers, **known}
        known.pop(self.node, None)
        return dict(sorted(known.items()))

    def admin(self, node: NodeId) -> str:
        """Empty where it is not known."""
        member = self._store.members.get(node)
        return self._admins.get(node) or (member.admin if member is not None else "")

    def waiting_for(self) -> str | None:
        """What keeps this node from serving, for people; None for a member."""
        if self.standing is Standing.FORMING:
            if len(self._config.members) == 1:
                return "a new cluster of one node is formed unless others say that it exists"
            missing = [
                f"node {node} ({address})"
                for node, address in sorted(self._config.members.items())
                if node != self.node and node not in self._identity.met
            ]
            what = f"{', '.join(missing)} missing" if missing else "some of the others have not met each other yet"
            refusals = "".join(f"; {refusal}" for refusal in sorted(set(self._refusals.values())))
            return f"a new cluster is formed once all its first members have met: {what}{refusals}"
        if self.standing is Standing.JOINING:
            return "; ".join(sorted(set(self._refusals.values()))) or "no member has been reached yet"
        return None

    def store_changed(self) -> None:
        """Write down where the others are, and forget who is gone."""
        store = self._store
        for node in [*self.strangers]:
            if node in store.members or node in store.leaving:
                del self.strangers[node]
        for node, knock in [*self.knocks.items()]:
            member = store.member(node)
            if member is None or member.incarnation == knock.incarnation:
                del self.knocks[node]
        if self.standing is Standing.MEMBER and self.node in store.members:
            try:
                addresses = {node: member.address for node, member in store.members.items()}
                self._identity.remember_members(addresses, store.voters)
            except OSError as error:
                _log.warning("the members' addresses cannot be written down for the next start: %s", error)

    # --- Gate --------------------------------------------------------------------------------

    def local(self) -> LocalIdentity:
        config, identity = self._config, self._identity
        return LocalIdentity(
            cluster=config.cluster,
            cluster_id=identity.cluster_id,
            protocol=identity.protocol,
            node=config.node,
            incarnation=identity.incarnation,
            admin=str(config.listen.admin),
            address=str(config.members[config.node]),
            services=self._services,
            release=self._release,
            formation=identity.formation,
            joining=self.standing is Standing.JOINING,
            first_members=sorted(config.members) if self.standing is Standing.FORMING else (),
        )

    def admit(self, peer: PeerIdentity) -> None:
        """Raises HandshakeRefused, and OSError where what must be remembered cannot be written."""
        if self.standing is Standing.FORMING:
            self._admit_while_forming(peer)
        elif self.standing is Standing.JOINING:
            self._admit_while_joining(peer)
        elif peer.cluster_id:
            self._admit_member(peer)
        else:
            self._admit_newcomer(peer)
        self._admins[peer.node] = peer.admin
        self._said_at[peer.node] = peer.address
        self._refusals.pop(peer.node, None)

    def refused_by(self, peer: NodeId, code: RefusalCode, cluster_id: str, reason: str) -> None:
        self._refusals[peer] = f"node {peer}: {reason}"
        not_known = code in (RefusalCode.OTHER_FOLDER, RefusalCode.UNKNOWN)
        if self.standing is Standing.FORMING and cluster_id and not_known:
            # The first members have all met already, and this folder was not among theirs.
            _log.warning(
                "node %d belongs to a cluster that exists and does not know this data folder: waiting to be let in",
                peer,
            )
            self.standing = Standing.JOINING
        elif code is RefusalCode.REMOVED:
            self._on_removed(RemovedFromCluster(reason))

    # --- forming -----------------------------------------------------------------------------

    def _admit_while_forming(self, peer: PeerIdentity) -> None:
        if peer.cluster_id:
            self._adopt(peer)
            return
        members = self._config.members
        if peer.node not in members:
            raise HandshakeRefused(
                f"node {peer.node} is not one of the first members {sorted(members)}", RefusalCode.UNKNOWN
            )
        if sorted(peer.first_members) != sorted(members) and not peer.joining:
            raise HandshakeRefused(
                f"the settings of node {peer.node} name the first members {sorted(peer.first_members)}, those of node "
                f"{self.node} {sorted(members)}: give all of them the same [members]",
                RefusalCode.INCOMPATIBLE,
            )
        if peer.joining:
            raise HandshakeRefused("this cluster has not been formed yet: there is nothing to join", RefusalCode.OTHER)
        met = self._identity.met.get(peer.node)
        if met is None:
            self._identity.meet(peer.node, peer.incarnation)
        elif met != peer.incarnation:
            raise HandshakeRefused(
                f"node {peer.node} came with another data folder than before, while the cluster was forming: "
                "give it the first one back, or begin anew with all folders empty",
                RefusalCode.OTHER_FOLDER,
            )
        self._form_if_all_met()

    def hear_met(self, peer: NodeId, incarnation: str | None, met: Mapping[NodeId, str]) -> None:
        """A first member, connected under this incarnation, says whom it has met and written down."""
        if self.standing is Standing.FORMING and self._identity.met.get(peer) == incarnation:
            self._met_by[peer] = met
            self._form_if_all_met()

    def met(self) -> dict[NodeId, str] | None:
        """What to tell the other first members; None where there is no cluster to be formed."""
        return dict(self._identity.met) if self.standing is Standing.FORMING else None

    def _form_if_all_met(self) -> None:
        """Where all have met all, and have written it down, nobody can ever help to form another cluster."""
        config, identity = self._config, self._identity
        formation = {**identity.met, config.node: identity.incarnation}
        if formation.keys() != config.members.keys():
            return
        for node, incarnation in identity.met.items():
            if {**self._met_by.get(node, {}), node: incarnation} != formation:
                return
        self._become_member(cluster_id_of(config.cluster, formation), formation)

    def _adopt(self, peer: PeerIdentity) -> None:
        """A peer is a member already.  Where the cluster was formed with this very folder, so is this node."""
        if peer.formation.get(self.node) == self._identity.incarnation:
            self._become_member(peer.cluster_id, peer.formation)
            return
        self.standing = Standing.JOINING
        _log.warning("cluster %s was formed without this data folder: waiting to be let in", peer.cluster_id[:8])
        self._admit_while_joining(peer)

    def _become_member(self, cluster_id: str, formation: Mapping[NodeId, str]) -> None:
        self._identity.form(cluster_id, formation)
        self.standing = Standing.MEMBER
        _log.info("the cluster is formed by nodes %s; its id is %s", sorted(formation), cluster_id)
        self._on_member()

    # --- joining -----------------------------------------------------------------------------

    def _admit_while_joining(self, peer: PeerIdentity) -> None:
        if not peer.cluster_id:
            raise HandshakeRefused("neither of us belongs to a cluster yet", RefusalCode.OTHER)
        if not peer.dialled:
            # Only an answer to our own hello says that the members know this very folder.  Settings and folder may
            # know none of the members of today, but these know where this node is.
            self.strangers[peer.node] = peer.address
            raise HandshakeRefused("this node waits for an answer to its own hello", RefusalCode.OTHER)
        self._identity.join(peer.cluster_id)
        self.standing = Standing.MEMBER
        _log.info("let into cluster %s by node %d", peer.cluster_id, peer.node)
        self._on_member()

    # --- as a member -------------------------------------------------------------------------

    def _admit_member(self, peer: PeerIdentity) -> None:
        self._refuse_removed(peer)
        if peer.node not in self._store.members and peer.node not in self._store.leaving:
            self.strangers[peer.node] = peer.address

    def _admit_newcomer(self, peer: PeerIdentity) -> None:
        """A node that belongs to no cluster yet, or has forgotten that it does."""
        self._refuse_removed(peer)
        formed_with = self._identity.formation.get(peer.node)
        member = self._store.members.get(peer.node)
        if not self._store.version and formed_with == peer.incarnation and not peer.joining:
            return
        if member is not None and member.incarnation == peer.incarnation:
            return
        if not self._store.version and formed_with is None:
            raise HandshakeRefused("this node does not know the members yet: another one has to say", RefusalCode.OTHER)
        if member is None and self._store.version:
            raise HandshakeRefused(
                f"node {peer.node} is not a member of cluster {self._config.cluster}: "
                f"add it with `quorate member add {peer.node} {peer.address}`",
                RefusalCode.UNKNOWN,
            )
        if member is not None and not _is_same(member.address, peer.address):
            # Who only claims the id must not take the place of a member that is down for a while.
            raise HandshakeRefused(
                f"node {peer.node} is known at {member.address}, and this one without its data says it is at "
                f"{peer.address}: if it has moved and lost its folder, use `quorate member replace`",
                RefusalCode.OTHER_FOLDER,
            )
        if (fixed := why_members_stay(self._identity.protocol)) is not None:
            raise HandshakeRefused(f"node {peer.node} came with another data folder: {fixed}", RefusalCode.OTHER_FOLDER)
        self.knocks[peer.node] = Knock(peer.node, peer.incarnation, peer.address, peer.admin, self._now_ms())
        if member is not None and not member.incarnation:
            raise HandshakeRefused(
                f"node {peer.node} is being let in; it has to try again in a moment", RefusalCode.UNKNOWN
            )
        known = member.incarnation if member is not None else formed_with or ""
        raise HandshakeRefused(
            f"node {peer.node} came with another data folder (incarnation {peer.incarnation[:8]}, "
            f"known is {known[:8]}): what it had voted is forgotten, so it must be let in and refilled before it "
            "votes again",
            RefusalCode.OTHER_FOLDER,
        )

    def _refuse_removed(self, peer: PeerIdentity) -> None:
        why = self._store.why_removed(peer.incarnation)
        if why is not None:
            raise HandshakeRefused(why, RefusalCode.REMOVED)


def _is_same(known: str, said: str) -> bool:
    try:
        return normalise(known) == normalise(said)
    except ValueError:
        return False


def as_endpoint(address: str) -> tuple[str, int]:
    """(host, port).  Raises ValueError."""
    parsed: Address = parse_address(address)
    return parsed.host, parsed.port
