"""The person who looks after a cluster: adds and removes members, asks for a leader, and replaces folders.

Everything is asked as `POST /members` asks it: judged by `services.cluster.plan` on some node that runs, then
submitted there.  What came of it is seen where a person would see it, in what the nodes say of their members.

The operator also knows what the design promises to survive: at every moment the voters of every configuration that
may still decide, whose folders are sound, must be a quorum (`may_lose`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random
from zlib import crc32

from msgspec.structs import replace

from quorate.consensus.membership import Configuration
from quorate.node.group import ReplicatedGroup
from quorate.node.node import Node
from quorate.node.room import CLUSTER_GROUP
from quorate.services.cluster.commands import Add, Promote, Remove
from quorate.services.cluster.plan import judge
from quorate.services.cluster.store import ClusterStore, Outcome
from quorate.simulation.cluster import SERVICE_GROUP, SimulatedCluster
from quorate.simulation.observation import Observer
from quorate.simulation.store_agreement import StoreAgreement
from quorate.simulation.violation import Violation

FEWEST_VOTERS = 2
"""Below this nobody is removed, whatever is forced."""


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A change that was asked for and may be decided yet: the voters that it leads to from a version."""

    version: int
    goal: Configuration


class Operator:
    """See the module's head."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        observer: Observer,
        coverage: Counter[str],
        on_violation: Callable[[Violation], None],
    ) -> None:
        self.damaged: dict[int, dict[str, None]] = {}
        """Nodes with files that were damaged, which they may not have noticed."""
        self._cluster = cluster
        self._observer = observer
        self._coverage = coverage
        self._on_violation = on_violation
        self._agreement = StoreAgreement(on_violation)
        self._random = Random(f"{cluster.simulation.seed}/operator")
        self._doubts: list[_Doubt] = []
        self._goals: dict[int, Configuration] = {}
        """By version, as some node had it."""
        self._removed: dict[str, int] = {}
        """Incarnations that some node knew to be removed."""

    # --- looking -----------------------------------------------------------------------------

    def _running(self) -> dict[int, Node]:
        """Those that serve, as members."""
        cluster = self._cluster
        return {node: cluster.nodes[node] for node in sorted(cluster.nodes) if cluster.group(node) is not None}

    def newest(self) -> ClusterStore | None:
        """The latest that any node knows of the members; None before there is anything."""
        stores = [running.members for running in self._running().values() if running.members.version]
        return max(stores, key=lambda store: (store.version, sum(store.reached.values())), default=None)

    def look(self) -> ClusterStore | None:
        """See what all nodes say of their members, and check that they agree."""
        for node, running in self._running().items():
            store = running.members
            group = self._cluster.group(node, CLUSTER_GROUP)
            if group is not None and store.version and not group.is_installing() and not group.is_amid_entry():
                self._agreement.is_at(node, group.applied_position, crc32(store.content()))
                self._see_goal(node, store)
                self._removed |= store.removed
        newest = self.newest()
        if newest is not None:
            self._doubts = [doubt for doubt in self._doubts if doubt.version >= newest.version]
        for node in [*self.damaged]:
            self._forget_what_is_gone(node)
        return newest

    def _see_goal(self, node: int, store: ClusterStore) -> None:
        goal = store.goal()
        known = self._goals.setdefault(goal.version, goal)
        if known != goal:
            text = f"at version {goal.version} node {node} wants {goal}, another one wanted {known}"
            self._on_violation(Violation("members agreement", text))
        for group_id, group in self._observer.groups.items():
            voters = group.history.voters_of.get(goal.version)
            if voters is not None and voters != goal.voters:
                text = f"group {group_id} settles at {voters} with version {goal.version}, whose goal is {goal.voters}"
                self._on_violation(Violation("members agreement", text))

    def is_removed(self, node: int) -> bool:
        """Whether the node's present folder was removed from the cluster, as far as any node knew."""
        self.look()
        group = self._observer.groups.get(CLUSTER_GROUP)
        view = group.views.get(node) if group is not None else None
        return view is not None and view.incarnation in self._removed

    def is_awaited(self, node: int) -> bool:
        """Whether the node is a member that has not come with a folder yet."""
        newest = self.newest()
        member = newest.members.get(node) if newest is not None else None
        return member is not None and not member.incarnation

    def spare(self, running: Collection[int]) -> int | None:
        """A node that could be added: one that is no member, and has not the data of a former membership."""
        newest = self.newest()
        if newest is None:
            return None
        free = [node for node in self._cluster.known if node not in newest.members and node not in newest.leaving]
        fresh = [node for node in free if node not in running or self._state(node) == "joining"]
        return self._random.choice(fresh) if fresh else None

    def _state(self, node: int) -> str:
        running = self._cluster.nodes.get(node)
        if running is None or node in self._cluster.starting:
            return ""
        state: str = running.status()["state"]
        return state

    # --- what may be lost --------------------------------------------------------------------

    def may_lose(self, node: int) -> bool:
        """Whether what is sound without this node's folder is a quorum of everything that may still decide."""
        newest = self.newest()
        wanted = [doubt.goal for doubt in self._doubts]
        if newest is not None:
            wanted.append(newest.goal())
        groups = self._observer.groups
        if not {SERVICE_GROUP, CLUSTER_GROUP} <= groups.keys():
            return False
        return all(self._is_borne(group_id, wanted, without=node) for group_id in groups)

    def _is_borne(self, group_id: int, wanted: list[Configuration], without: int | None) -> bool:
        group = self._observer.groups[group_id]
        counting = group.counting()
        if not counting:
            return False
        for configuration in [*counting, *wanted]:
            sound = [
                node
                for node, view in group.views.items()
                if node != without and node not in self.damaged and configuration.incarnation(node) == view.incarnation
            ]
            if configuration.voters and not configuration.quorum().is_quorum(sound):
                return False
        return True

    def damage(self, node: int, path: str) -> None:
        self.damaged.setdefault(node, {})[path] = None
        self._observer.damaged(node)

    def lost(self, node: int) -> None:
        """The node's folder is empty now."""
        self.damaged.pop(node, None)
        self._observer.lost(node)

    def _forget_what_is_gone(self, node: int) -> None:
        """A node that serves has read its log and its identity; of its snapshots it has read one."""
        if self._cluster.group(node) is None:
            return
        disk = self._cluster.disks[node]
        left = [path for path in self.damaged[node] if path.startswith("snapshots/") and disk.exists(path)]
        if left:
            self.damaged[node] = dict.fromkeys(left)
        else:
            del self.damaged[node]

    # --- asking ------------------------------------------------------------------------------

    def ask(self, change: Add | Promote | Remove, *, forced: bool = False) -> None:
        """Ask some node for a change, once; what came of it is to be seen in `newest`."""
        running = self._running()
        if running:
            node = self._random.choice([*running])
            self._cluster.machine(node).loop.call_soon(self._submit, running[node], change, forced)

    def _submit(self, node: Node, change: Add | Promote | Remove, forced: bool) -> None:
        door, store = node.cluster_door, node.members
        if door is None or door.leadership.leader is None:
            return
        verdict = judge(store, change, node.neighbours.alive(), node.neighbours.lags())
        if verdict.refusal(forced) is not None:
            self._coverage["changes refused"] += 1
            return
        change = replace(change, expected=store.version)
        if isinstance(change, Remove):
            goal = Configuration.make(
                store.version, {voter: store.members[voter].incarnation for voter in verdict.after.voters}
            )
            if len(goal.voters) < FEWEST_VOTERS or not self._bears(goal):
                return
            self._doubts.append(_Doubt(store.version, goal))
        door.submit(change).add_done_callback(self._answered)

    def _bears(self, goal: Configuration) -> bool:
        return all(self._is_borne(group_id, [goal], without=None) for group_id in self._observer.groups)

    def _answered(self, done: asyncio.Future[Outcome]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._coverage["changes in doubt"] += 1
        elif done.result().problem is None:
            self._coverage["changes decided"] += 1
        else:
            self._coverage["changes refused"] += 1

    def hand_over(self, group_id: int, target: int | None) -> bool:
        """Have the leader of a group hand over; False where there is none just now."""
        cluster = self._cluster
        leader = cluster.leader(group_id)
        if leader is None or target == leader:
            return False
        group, machine = cluster.group(leader, group_id), cluster.machine(leader)
        assert group is not None
        handing = cluster.nodes[leader].hand_over(group, "request", "it was asked for", target)
        cluster.simulation.start(machine, handing, "transfer").add_done_callback(self._handed_over)
        return True

    def _handed_over(self, done: asyncio.Task[str | None]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            violation = Violation("node failed", f"a transfer raised {type(error).__name__}: {error}")
            violation.__cause__ = error
            self._on_violation(violation)
        elif done.result() is None:
            self._coverage["transfers done"] += 1
        else:
            self._coverage["transfers given up"] += 1

    def voters(self, group_id: int) -> list[int]:
        """Those of a group, by the latest that was committed; the one that has applied least is first."""
        voters = self._observer.groups[group_id].history.latest.voters
        return sorted(voters, key=lambda node: self._cluster.applied(node))

    # --- the end -----------------------------------------------------------------------------

    def unsettled(self) -> str:
        """What of the members is not as it was decided, once all faults are over; "" where all is."""
        newest = self.look()
        if newest is None:
            return "no cluster"
        if newest.under_way():
            return f"groups {newest.under_way()} behind version {newest.version}"
        for node, member in newest.members.items():
            if member.refilling or (member.replaces in newest.members and not member.voter):
                return f"node {node} is to vote: {member}"
            running = self._cluster.nodes.get(node)
            if running is None or node in self._cluster.starting or not running.groups():
                return f"node {node} does not serve: {self._why_waiting(node)}"
            if running.local_identity().incarnation != member.incarnation:
                return f"node {node} has another folder than {member}"
            if running.members.content() != newest.content():
                return f"node {node} does not know the members of today"
            for group in running.groups():
                if why := _unsettled(group, newest):
                    return f"node {node}: {why}"
        for node in self._cluster.nodes:
            if node not in newest.members and self._state(node) == "member":
                return f"node {node} was removed and does not know"
        return ""

    def _why_waiting(self, node: int) -> str:
        running = self._cluster.nodes.get(node)
        return str(running.status()["waiting_for"]) if running is not None else "it is down"


def _unsettled(group: ReplicatedGroup, newest: ClusterStore) -> str:
    configuration = group.replica.configuration()
    if configuration != newest.goal() or group.replica.settled_version() != newest.version:
        return f"group {group.group_id} is at {configuration}, which is to be {newest.goal()}"
    return ""


def members_of(store: ClusterStore | None) -> Mapping[int, object]:
    return store.members if store is not None else {}
