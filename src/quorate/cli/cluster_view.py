"""One picture of a cluster from what each of its nodes says about itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quorate.cli.admin import NoAnswer, NodeAnswer, NodeStatus, fetch_status, find_admin, reachable
from quorate.node.config import Address, parse_address

ANSWER_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class NodeView:
    """One member: its answer, or why there is none."""

    node: int
    admin: Address | None
    answer: NodeAnswer | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The leader that a majority of the members follows, itself included."""

    leader: int
    generation: int
    ready: bool


@dataclass(frozen=True, slots=True)
class ClusterView:
    """All members, sorted by id."""

    nodes: tuple[NodeView, ...]

    def statuses(self) -> list[NodeStatus]:
        return [view.answer.status for view in self.nodes if view.answer is not None]

    def agreement(self) -> Agreement | None:
        """None where no leader is followed by a majority: then there is no quorum.

        A node's word that it leads is not enough: one that was cut off from the others
        may believe so for a moment.
        """
        statuses = self.statuses()
        majority = len(self.nodes) // 2 + 1
        for status in statuses:
            if status.role != "leader":
                continue
            followers = [s for s in statuses if s.leader == status.node and s.generation == status.generation]
            if len(followers) >= majority:
                return Agreement(status.node, status.generation, status.ready)
        return None


async def view_members(admins: Mapping[int, Address | None], cluster: str) -> ClusterView:
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
        return NodeView(node, admin, answer)

    return ClusterView(tuple(await asyncio.gather(*(ask(*member) for member in sorted(admins.items())))))


async def view_cluster(endpoints: Sequence[Address]) -> ClusterView:
    """The cluster of the first endpoint (an admin or a ZooKeeper client port) that answers.  Raises NoAnswer."""
    problems: list[str] = []
    for endpoint in endpoints:
        try:
            admin, status = await _first_answer(endpoint)
            admins = {**_admins(status), status.node: admin}
        except NoAnswer as error:
            problems.append(f"{endpoint}: {error}")
            continue
        return await view_members(admins, status.cluster)
    raise NoAnswer("; ".join(problems))


def _admins(status: NodeStatus) -> dict[int, Address | None]:
    try:
        return {
            member.node: reachable(parse_address(member.admin), parse_address(member.peer)) if member.admin else None
            for member in status.members
        }
    except ValueError as error:
        raise NoAnswer(f"it names a member's address that is none: {error}") from error


async def _first_answer(endpoint: Address) -> tuple[Address, NodeStatus]:
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
