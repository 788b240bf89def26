"""One picture of a cluster from what each of its nodes says about itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quorate.cli.admin import (
    GroupStatus,
    MemberStatus,
    NoAnswer,
    NodeAnswer,
    NodeStatus,
    fetch_status,
    find_admin,
    reachable,
)
from quorate.node.config import Address, parse_address
from quorate.quorums import Joint, Majority, Quorum

ANSWER_TIMEOUT_S = 2.0

CLUSTER_GROUP = 0
"""The group that decides about the members; the others are services'."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One member: its answer, or why there is none."""

    node: int
    admin: Address | None
    answer: NodeAnswer | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The leader that a quorum of the voters follows, itself included."""

    leader: int
    generation: int
    ready: bool


@dataclass(frozen=True, slots=True)
class ClusterView:
    """All members, sorted by id."""

    nodes: tuple[NodeView, ...]

    def statuses(self) -> list[NodeStatus]:
        return [view.answer.status for view in self.nodes if view.answer is not None]

    def newest(self) -> NodeStatus:
        """The answer of the node that knows most of the members.  Somebody must have answered."""
        return max(self.statuses(), key=lambda status: status.membership.version)

    def group_ids(self) -> list[int]:
        """Of every group that some node has, the cluster's own last."""
        found = {group.group for status in self.statuses() for group in status.groups}
        return sorted(found, key=lambda group: (group == CLUSTER_GROUP, group))

    def agreement(self, group_id: int | None = None) -> Agreement | None:
        """Of one group, by default the first service's.  None where no leader is followed by a quorum.

        A node's word that it leads is not enough: one that was cut off from the others
        may believe so for a moment.  Nor are nodes that do not vote.
        """
        if group_id is None:
            group_id = next(iter(self.group_ids()), CLUSTER_GROUP)
        groups = [(s.node, group) for s in self.statuses() for group in s.groups if group.group == group_id]
        for leader, led in groups:
            if led.role != "leader" or not led.voters:
                continue
            followers = [node for node, g in groups if g.leader == leader and g.generation == led.generation]
            if quorum(led).is_quorum(followers):
                return Agreement(leader, led.generation, led.ready)
        return None

    def voters(self) -> tuple[int, ...]:
        """Who votes in the first service's group, as the node that is furthest in it says; none while forming."""
        groups = [status.groups[0] for status in self.statuses() if status.groups]
        return max(groups, key=lambda group: (group.generation, group.commit_position)).voters if groups else ()

    def highest_commits(self) -> dict[int, int]:
        """Each group's highest commit position that any node knows."""
        highest: dict[int, int] = {}
        for status in self.statuses():
            for group in status.groups:
                highest[group.group] = max(highest.get(group.group, 0), group.commit_position)
        return highest


def quorum(group: GroupStatus) -> Quorum:
    """Who decides in the group, as one of its nodes says; it must know voters."""
    majority = Majority(tuple(sorted(set(group.voters))))
    return Joint(Majority(tuple(sorted(set(group.old_voters)))), majority) if group.old_voters else majority


async def view_members(
    admins: Mapping[int, Address | None], cluster: str, cluster_id: str | None = None
) -> ClusterView:
    """Ask all members at once; the slowest takes ANSWER_TIMEOUT_S at most."""

    async def ask(node: int, admin: Address | None) -> NodeView:
        if admin is None:
            return NodeView(node, None, None, "its admin address is not known yet")
        try:
            answer = await fetch_status(admin, ANSWER_TIMEOUT_S)
        except NoAnswer as error:
            return NodeView(node, admin, None, str(error))
        status = answer.status
        if (status.cluster, status.node) != (cluster, node):
            return NodeView(node, admin, None, f"node {status.node} of cluster {status.cluster} answers there")
        if cluster_id and status.cluster_id and status.cluster_id != cluster_id:
            other = f"another cluster by the name of {cluster} (id {status.cluster_id[:8]})"
            return NodeView(node, admin, None, f"node {node} of {other} answers there")
        return NodeView(node, admin, answer)

    return ClusterView(tuple(await asyncio.gather(*(ask(*member) for member in sorted(admins.items())))))


async def view_cluster(endpoints: Sequence[Address]) -> ClusterView:
    """The cluster of the first endpoint (an admin or a ZooKeeper client port) that answers.  Raises NoAnswer."""
    admin, status = await first_answer(endpoints)
    return await view_members({**admins_of(status), status.node: admin}, status.cluster, status.cluster_id)


async def first_answer(endpoints: Sequence[Address]) -> tuple[Address, NodeStatus]:
    """The admin listener and status of the first endpoint that answers, however it was named.  Raises NoAnswer."""
    problems: list[str] = []
    for endpoint in endpoints:
        try:
            admin, status = await _answer_of(endpoint)
            admins_of(status)
        except NoAnswer as error:
            problems.append(f"{endpoint}: {error}")
            continue
        return admin, status
    raise NoAnswer("; ".join(problems))


def admins_of(status: NodeStatus) -> dict[int, Address | None]:
    """Where the members' admin listeners are reached, as far as the node knows.  Raises NoAnswer for nonsense."""
    try:
        return {member.node: admin_of(member) for member in status.members}
    except ValueError as error:
        raise NoAnswer(f"it names a member's address that is none: {error}") from error


def admin_of(member: MemberStatus) -> Address | None:
    """Raises ValueError where one of its addresses is none."""
    return reachable(parse_address(member.admin), parse_address(member.peer)) if member.admin else None


async def _answer_of(endpoint: Address) -> tuple[Address, NodeStatus]:
    try:
        return endpoint, (await fetch_status(endpoint, ANSWER_TIMEOUT_S)).status
    except NoAnswer as error:
        if str(error) == "connection refused":
            raise
        try:
            admin = await find_admin(endpoint, ANSWER_TIMEOUT_S)
        except NoAnswer as not_zookeeper:
            raise NoAnswer(str(error)) from not_zookeeper
        return admin, (await fetch_status(admin, ANSWER_TIMEOUT_S)).status
