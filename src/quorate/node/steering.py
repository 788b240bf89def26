"""Leads groups to where the cluster group wants them, and lets in who may come.

Every node runs this.  The leader of a group steps it towards the goal and reports it
settled; the leader of the cluster group forms the list of members, and takes the steps that
follow from one another.  Whoever is knocked at asks the cluster group to let the node in: a
node that lost its data may know no other member.  All of it is repeated until it is so,
hence may be lost or done twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from quorate.consensus.replica import ChangeMembers, NodeId, Refusal, Role
from quorate.node.config import NodeConfig
from quorate.node.group import ReplicatedGroup
from quorate.node.metrics import Metrics
from quorate.node.ports import GroupHost
from quorate.node.roster import Knock, Roster
from quorate.services.cluster.commands import (
    AnyCommand,
    Bind,
    Form,
    Member,
    Moved,
    Promote,
    Reached,
    Refill,
    Swap,
    encode,
)
from quorate.services.cluster.door import ClusterDoor
from quorate.services.cluster.store import ClusterStore, Outcome
from quorate.storage.identity import Identity

_log = logging.getLogger(__name__)

STEP_INTERVAL_MS = 100
"""How often a group is stepped towards its goal."""
SUBMIT_INTERVAL_MS = 500
"""How often the same command is submitted while nothing comes of it."""
GONE_MS = 1_000
"""A voter is refilled only if its former folder has not been heard from for this long."""
KNOCK_FRESH_MS = 5_000
"""Who has not tried to come in for this long has given up."""


class Steering:
    """One node's part in every change of the members."""

    def __init__(
        self,
        config: NodeConfig,
        identity: Identity,
        roster: Roster,
        store: ClusterStore,
        door: ClusterDoor,
        groups: Mapping[int, ReplicatedGroup],
        cluster_group: ReplicatedGroup,
        host: GroupHost,
        incoming: Callable[[NodeId], str | None],
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._identity = identity
        self._roster = roster
        self._store = store
        self._door = door
        self._groups = groups
        self._cluster_group = cluster_group
        self._host = host
        self._incoming = incoming
        """The incarnation under which a peer is connected, if it is."""
        self._metrics = metrics
        self._step_ms = 0
        self._submitted: dict[bytes, int] = {}
        """When each command that still matters, encoded, was submitted last."""
        self._heard_ms: dict[NodeId, int] = {}
        """When each voter was last connected under the incarnation that counts."""
        self._refusal: str | None = None
        """The last one of the cluster group's: the same again is no news."""
        self._told: dict[int, tuple[int, str]] = {}

    def tick(self, now_ms: int) -> None:
        if now_ms < self._step_ms:
            return
        self._step_ms = now_ms + STEP_INTERVAL_MS
        for group in self._groups.values():
            if group.leadership.role is Role.LEADER and group.leadership.ready:
                self._lead(group, now_ms)
        leadership = self._cluster_group.leadership
        leads = leadership.role is Role.LEADER and leadership.ready
        if leads:
            self._decide(now_ms)
        self._watch_voters(now_ms)
        self._answer_knocks(now_ms)
        self._say_where_we_are(now_ms)

    # --- as leader of a group ----------------------------------------------------------------

    def _lead(self, group: ReplicatedGroup, now_ms: int) -> None:
        store, replica = self._store, group.replica
        if not store.version:
            return
        settled = replica.settled_version()
        if settled == store.version:
            if store.reached.get(group.group_id, settled) < settled:
                self._submit(Reached(group.group_id, settled), now_ms)
        elif replica.configuration().version <= store.version:
            effects = self._host.step(group.group_id, ChangeMembers(store.goal()))
            self._tell(group, store.version, effects.refused)

    def _tell(self, group: ReplicatedGroup, version: int, refused: Refusal | None) -> None:
        """Once for every new reason that keeps a group from its goal."""
        why = "" if refused is None or refused is Refusal.CHANGE_UNDER_WAY else refused.value
        if why and self._told.get(group.group_id) != (version, why):
            self._told[group.group_id] = (version, why)
            _log.info(
                "group %d (%s): waits on its way to version %d of the members: %s",
                group.group_id,
                group.service_name,
                version,
                why,
            )

    # --- as leader of the cluster group ------------------------------------------------------

    def _decide(self, now_ms: int) -> None:
        if not self._store.version:
            if self._identity.formation:
                self._submit(self._form(), now_ms)
            return
        step = self._store.next_step()
        if step is not None:
            self._submit(step, now_ms)

    def _form(self) -> Form:
        addresses = {**self._roster.addresses(), self._config.node: str(self._config.members[self._config.node])}
        members = [
            Member(node, addresses.get(node, ""), self._roster.admin(node), incarnation, voter=True)
            for node, incarnation in self._identity.formation.items()
        ]
        return Form(self._identity.cluster_id, members, sorted(self._groups))

    # --- as the one who is knocked at --------------------------------------------------------

    def _answer_knocks(self, now_ms: int) -> None:
        for knock in [*self._roster.knocks.values()]:
            if now_ms - knock.at_ms > KNOCK_FRESH_MS:
                del self._roster.knocks[knock.node]
            else:
                self._answer(knock, now_ms)

    def _watch_voters(self, now_ms: int) -> None:
        for node, member in self._store.members.items():
            if node not in self._heard_ms or not member.voter or self._incoming(node) == member.incarnation:
                self._heard_ms[node] = now_ms

    def _answer(self, knock: Knock, now_ms: int) -> None:
        member = self._store.member(knock.node)
        if member is None or member.incarnation == knock.incarnation:
            return
        if not member.voter:
            self._submit(Bind(knock.node, knock.incarnation, knock.address, knock.admin), now_ms)
        elif self._store.under_way() and not self._store.promotion_is_under_way(knock.node):
            return  # one change at a time: it will knock again
        elif now_ms - self._heard_ms.get(knock.node, now_ms) > GONE_MS:
            self._submit(Refill(knock.node, knock.incarnation, knock.address, knock.admin), now_ms)

    # --- for itself --------------------------------------------------------------------------

    def _say_where_we_are(self, now_ms: int) -> None:
        """The members must know this node's addresses of today."""
        member = self._store.member(self._config.node)
        if member is None or member.incarnation != self._identity.incarnation:
            return
        address, admin = str(self._config.members[self._config.node]), str(self._config.listen.admin)
        if (member.address, member.admin) != (address, admin):
            self._submit(Moved(self._config.node, self._identity.incarnation, address, admin), now_ms)

    def _submit(self, command: AnyCommand, now_ms: int) -> None:
        """Submit it, unless that was done a moment ago."""
        self._submitted = {
            known: at_ms for known, at_ms in self._submitted.items() if now_ms - at_ms < SUBMIT_INTERVAL_MS
        }
        key = encode(command)
        if key in self._submitted or self._cluster_group.leadership.leader is None:
            return
        self._submitted[key] = now_ms
        self._door.submit(command).add_done_callback(lambda done: self._answered(command, done))

    def _answered(self, command: AnyCommand, done: asyncio.Future[Outcome]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        outcome = done.result()
        if outcome.problem is not None:
            if outcome.problem != self._refusal:
                self._refusal = outcome.problem
                _log.warning("the cluster group refuses %s: %s", type(command).__name__, outcome.problem)
        elif outcome.changed and not isinstance(command, Reached | Moved):
            self._metrics.refills += isinstance(command, Refill)
            _log.info("members, version %d: %s", outcome.version, _described(command))


def _described(command: AnyCommand) -> str:
    """In a few words, for the log."""
    if isinstance(command, Form):
        return f"formed by nodes {[member.node for member in command.members]}"
    words = {Bind: "came with its folder", Refill: "lost its folder and is refilled", Promote: "is to vote"}
    if isinstance(command, Bind | Refill | Promote | Swap):
        return f"node {command.node} {words.get(type(command), 'takes the place of the one that it replaces')}"
    return type(command).__name__
