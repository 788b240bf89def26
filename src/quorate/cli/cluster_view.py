"""One picture of a cluster from what each of its nodes says about itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
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
from quorate.node.protocols import quorum_sizes
from quorate.quorums import AtLeast, Flexible, Joint, Majority, Quorum

ANSWER_TIMEOUT_S = 2.0

MAX_ROUNDS = 3
"""Of asking the nodes that a better answer names.  One is the rule; more take members that change meanwhile."""

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
    term: tuple[str, str]
    """The generation in the protocol's own words, as in ("term", "7")."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """All members, sorted by id."""

    nodes: tuple[NodeView, ...]

    def statuses(self) -> list[NodeStatus]:
        return [view.answer.status for view in self.nodes if view.answer is not None]

    def newest(self) -> NodeStatus:
        """The answer of the node that knows most of the members.  Somebody must have answered."""
        return max(self.statuses(), key=_knowledge)

    def group_ids(self) -> list[int]:
        """Of every group that some node has, the cluster's own last."""
        found = {group.group for status in self.statuses() for group in status.groups}
        return sorted(found, key=lambda group: (group == CLUSTER_GROUP, group))

    def services(self) -> dict[int, str]:
        """Group -> service, of every group that some node has, the cluster's own last."""
        names = {group.group: group.service for status in self.statuses() for group in status.groups}
        return {group: names[group] for group in self.group_ids()}

    def leaders(self) -> dict[str, Agreement | None]:
        """Service -> who leads it, of those that have clients; none while the cluster forms."""
        return {service: self.agreement(group) for group, service in self.services().items() if group != CLUSTER_GROUP}

    def is_led(self) -> bool:
        """Clients of every service find a leader, as far as it takes no more than a quorum."""
        leaders = self.leaders()
        return bool(leaders) and None not in leaders.values()

    def agreement(self, group_id: int) -> Agreement | None:
        """Of one group.  None where no leader is followed by a quorum.

        A node's word that it leads is not enough: one that was cut off from the others
        may believe so for a moment.  Nor are nodes that do not vote.
        """
        groups = [(s.node, group) for s in self.statuses() for group in s.groups if group.group == group_id]
        for leader, led in groups:
            if led.role != "leader" or not led.voters:
                continue
            followers = [node for node, g in groups if g.leader == leader and g.generation == led.generation]
            if quorum(led).is_quorum(followers):
                return Agreement(leader, led.generation, led.ready, led.in_own_words())
        return None

    def voters(self) -> tuple[int, ...]:
        """Who votes, as the node that is furthest in the first service's group says; none while forming."""
        groups = [status.groups[0] for status in self.statuses() if status.groups]
        return max(groups, key=lambda group: (group.generation, group.commit_position)).voters if groups else ()

    def highest_commits(self) -> dict[int, int]:
        """Each group's highest commit position that any node knows."""
        highest: dict[int, int] = {}
        for status in self.statuses():
            for group in status.groups:
                highest[group.group] = max(highest.get(group.group, 0), group.commit_position)
        return highest


def heading_of(words: Iterable[str]) -> str:
    """Of a column with generations: each protocol's own word."""
    return "/".join(dict.fromkeys(words)) or "term"


def quorum(group: GroupStatus) -> Quorum | AtLeast:
    """Who decides in the group, as one of its nodes says; it must know voters."""
    voters = tuple(sorted(set(group.voters)))
    if (sizes := quorum_sizes(group.protocol)) is not None:
        return Flexible(voters, *sizes).phase_2
    majority = Majority(voters)
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
            admins_of(answer.status)
        except NoAnswer as error:
            return NodeView(node, admin, None, str(error))
        status = answer.status
        if (status.cluster, status.node) != (cluster, node):
            return NodeView(node, admin, None, f"node {status.node} of cluster {status.cluster} answers there")
        if not _same_cluster(status, cluster, cluster_id):
            assert status.cluster_id is not None
            other = f"another cluster by the name of {cluster} (id {status.cluster_id[:8]})"
            return NodeView(node, admin, None, f"node {node} of {other} answers there")
        return NodeView(node, admin, answer)

    return ClusterView(tuple(await asyncio.gather(*(ask(*member) for member in sorted(admins.items())))))


async def view_cluster(endpoints: Sequence[Address]) -> ClusterView:
    """The cluster of the first endpoint (an admin port or one for clients) that answers.  Raises NoAnswer.

    Who its members are is the word of the node that knows most (`ClusterView.newest`), of all
    endpoints and of all nodes that the first one names: one that is being refilled knows only
    what its settings say.  Nodes that were given as endpoints are in the picture, members or not.
    """
    admin, first = await first_answer(endpoints)
    cluster_id = first.cluster_id
    admins = {**admins_of(first), first.node: admin}
    view, others = await asyncio.gather(
        view_members(admins, first.cluster, cluster_id),
        _others_among([endpoint for endpoint in endpoints if endpoint not in admins.values()], first),
    )
    answered = {node.node: node.admin for node in view.nodes if node.answer is not None and node.admin in endpoints}
    given = {**others, **answered, first.node: admin}
    for _ in range(MAX_ROUNDS):
        # Nodes given and not yet in the picture have to be asked in any case.
        newest = view.newest() if view.statuses() else first
        kept = {node.node: node.admin for node in view.nodes if node.node == newest.node}
        named = {node: address or admins.get(node) for node, address in admins_of(newest).items()}
        wanted = {**named, **kept, **given}
        newest_id = newest.cluster_id or cluster_id
        if (wanted, newest_id) == (admins, cluster_id):
            break
        admins, cluster_id = wanted, newest_id
        view = await view_members(admins, first.cluster, cluster_id)
    return view


async def _others_among(endpoints: Sequence[Address], first: NodeStatus) -> dict[int, Address | None]:
    """Node -> admin listener of those that answer in time; of two that claim one id, of that which knows more."""

    async def ask(endpoint: Address) -> tuple[Address, NodeStatus] | None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await _answer_of(endpoint)
        except (NoAnswer, TimeoutError):
            return None

    answers = [answer for answer in await asyncio.gather(*map(ask, endpoints)) if answer is not None]
    answers = [(admin, status) for admin, status in answers if _same_cluster(status, first.cluster, first.cluster_id)]
    return {status.node: admin for admin, status in sorted(answers, key=lambda answer: _knowledge(answer[1]))}


def _same_cluster(status: NodeStatus, cluster: str, cluster_id: str | None) -> bool:
    """As far as both know: who is forming or joining has no id."""
    return status.cluster == cluster and not (cluster_id and status.cluster_id and status.cluster_id != cluster_id)


def _knowledge(status: NodeStatus) -> tuple[bool, int]:
    """To compare what nodes know of the members; one that knows only its settings knows least."""
    version = status.membership.version
    return status.state == "member" and version > 0, version


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
        except NoAnswer as no_client_port:
            raise NoAnswer(str(error)) from no_client_port
        return admin, (await fetch_status(admin, ANSWER_TIMEOUT_S)).status
