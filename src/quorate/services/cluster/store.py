"""The replicated list of members: pure and deterministic, a few hundred bytes.

What is decided here is the *goal*; the groups follow it one version after another
(docs/membership.md), and say so with `Reached`.  A change is *under way* while some group
has not reached the version.  Nothing else is decided meanwhile, because two changes in
flight would each be judged against members that the other is about to change; but what
waits for a node that may never come or never catch up can always be taken back, and a
learner may come at any time.

A command that is refused changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self

import msgspec
from msgspec.structs import replace

from quorate.consensus.membership import Configuration
from quorate.services.cluster.addresses import normalise
from quorate.services.cluster.commands import (
    NOBODY,
    Add,
    AnyCommand,
    Bind,
    Form,
    Member,
    Moved,
    Promote,
    Reached,
    Recover,
    Refill,
    Remove,
    Swap,
    decode,
)

MAX_MEMBERS: Final = 9
"""Without members that are about to be replaced.  The same as a node's settings allow."""
MAX_NODE_ID: Final = 999_999_999


class Outcome(msgspec.Struct, frozen=True):
    """The result of a command."""

    version: int
    """Of the members after it."""
    problem: str | None = None
    """Why nothing was done; None where it was done, or was done already."""
    changed: bool = False
    """Something of the state is another."""


class NotAllowed(Exception):
    """The command is refused, for the reason given; raised before anything is changed."""


class _Content(msgspec.Struct, frozen=True, array_like=True):
    """The whole state, in the order in which it is encoded."""

    format: int
    cluster_id: str
    version: int
    members: list[Member]
    leaving: list[Member]
    removed: dict[str, int]
    reached: dict[int, int]


_FORMAT: Final = 1


class ClusterStore:
    """The state machine (`services.interface.Store`).  Read its attributes, never change them."""

    def __init__(self) -> None:
        self.cluster_id = ""
        """Empty until the cluster is formed."""
        self.version = 0
        self.members: dict[int, Member] = {}
        self.leaving: dict[int, Member] = {}
        """Removed, but some group has not reached the version: they may still be needed to decide."""
        self.removed: dict[str, int] = {}
        """Incarnations that members had, and never will have again, and whose they were."""
        self.reached: dict[int, int] = {}
        """Each group's settled version."""
        self._handlers: Final[dict[type[AnyCommand], Callable[..., None]]] = {
            Form: self._form,
            Add: self._add,
            Promote: self._promote,
            Remove: self._remove,
            Swap: self._swap,
            Bind: self._bind,
            Refill: self._refill,
            Moved: self._moved,
            Reached: self._reached,
            Recover: self._recover,
        }

    # --- what it says ------------------------------------------------------------------------

    @property
    def groups(self) -> list[int]:
        """Ids of all groups, in order."""
        return sorted(self.reached)

    @property
    def voters(self) -> list[int]:
        """Ids of the members that are to vote, in order."""
        return sorted(node for node, member in self.members.items() if member.voter)

    def member(self, node: int) -> Member | None:
        """None also where the node is leaving."""
        return self.members.get(node)

    def goal(self) -> Configuration:
        """What every group is to be led to.  A learner that never came is nobody yet, so it is left out."""
        voters = {node: member.incarnation for node, member in self.members.items() if member.voter}
        learners = {
            node: member.incarnation for node, member in self.members.items() if not member.voter and member.incarnation
        }
        return Configuration.make(self.version, voters, learners)

    def under_way(self) -> dict[int, int]:
        """Groups that have not reached the version, and which one they have."""
        return {group: self.reached[group] for group in self.groups if self.reached[group] < self.version}

    def promotion_is_under_way(self, node: int) -> bool:
        """The node is to vote, and some group may not have it vote yet."""
        member = self.members.get(node)
        return (
            member is not None
            and member.voter
            and any(version < member.voting_since for version in self.reached.values())
        )

    def why_removed(self, incarnation: str) -> str | None:
        """Why this folder is refused for ever; None where it is not, also while its member is still leaving."""
        node = self.removed.get(incarnation)
        if node is None or any(member.incarnation == incarnation for member in self.leaving.values()):
            return None
        member = self.members.get(node)
        if member is not None and not member.incarnation:
            return (
                f"this data folder is of an earlier membership of node {node}, which was removed from the cluster and "
                "added again: it needs an empty folder"
            )
        if member is not None:
            return f"this data folder of node {node} was given up: the node has come with another one since"
        return f"node {node} was removed from the cluster; to come back it needs an empty folder and to be added again"

    def next_step(self) -> AnyCommand | None:
        """What the leader of the cluster group should submit by itself now."""
        if self.under_way():
            return None
        for node, member in sorted(self.members.items()):
            if not member.voter and member.incarnation:
                if member.replaces != NOBODY:
                    return Swap(self.version, node)
                if member.refilling:
                    return Promote(self.version, node)
        return None

    # --- services.interface.Store ------------------------------------------------------------

    def apply(self, commands: Sequence[bytes], time_ms: int) -> list[Outcome]:
        """Apply one batch; an Outcome for each command."""
        outcomes = []
        for data in commands:
            try:
                command = decode(data)
            except ValueError as error:
                outcomes.append(Outcome(self.version, str(error)))
            else:
                outcomes.append(self.execute(command))
        return outcomes

    def execute(self, command: AnyCommand) -> Outcome:
        """Apply one command."""
        before = self.content()
        try:
            self._handlers[type(command)](command)
        except NotAllowed as error:
            return Outcome(self.version, str(error))
        return Outcome(self.version, None, self.content() != before)

    def content(self) -> bytes:
        """The whole state; equal states have equal bytes."""
        return msgspec.msgpack.encode(
            _Content(
                _FORMAT,
                self.cluster_id,
                self.version,
                [self.members[node] for node in sorted(self.members)],
                [self.leaving[node] for node in sorted(self.leaving)],
                dict(sorted(self.removed.items())),
                dict(sorted(self.reached.items())),
            )
        )

    @classmethod
    def of(cls, content: bytes) -> Self:
        """A store of its own with that content.  Raises ValueError."""
        store = cls()
        store.install(content)
        return store

    def install(self, data: bytes) -> None:
        """Become what `content` gave.  Raises ValueError and changes nothing."""
        try:
            content = msgspec.msgpack.decode(data, type=_Content)
        except (msgspec.DecodeError, ValueError) as error:
            raise ValueError(f"not the content of the cluster group: {error}") from error
        if content.format != _FORMAT:
            raise ValueError(f"the cluster group's content has format {content.format}; this version reads {_FORMAT}")
        self.cluster_id, self.version = content.cluster_id, content.version
        self.members = {member.node: member for member in content.members}
        self.leaving = {member.node: member for member in content.leaving}
        self.removed, self.reached = content.removed, content.reached

    def snapshot(self) -> _Slices:
        return _Slices(self.content())

    def restore(self) -> _Loader:
        return _Loader(self)

    def summary(self) -> dict[str, int]:
        voters = len(self.voters)
        return {
            "version": self.version,
            "voters": voters,
            "learners": len(self.members) - voters,
            "leaving": len(self.leaving),
            "groups_behind": len(self.under_way()),
        }

    # --- commands of people ------------------------------------------------------------------

    def _add(self, command: Add) -> None:
        self._check_expected(command.expected)
        node = command.node
        if not 0 <= node <= MAX_NODE_ID:
            raise NotAllowed(f"a node's id must be a whole number from 0 to {MAX_NODE_ID}, not {node}")
        if node in self.members:
            raise NotAllowed(f"node {node} is a member already, at {self.members[node].address}")
        if node in self.leaving:
            raise NotAllowed(f"node {node} is still leaving: {self._behind()}")
        self._check_address(node, command.address)
        replaced = {member.replaces for member in self.members.values()} & self.members.keys()
        if command.replaces != NOBODY:
            old = self._known(command.replaces)
            if not old.voter:
                raise NotAllowed(
                    f"node {old.node} does not vote, so it needs no replacement: remove it and add another"
                )
            if old.node in replaced:
                raise NotAllowed(f"node {old.node} is being replaced already")
            replaced.add(old.node)
        if len(self.members) + 1 - len(replaced) > MAX_MEMBERS:
            raise NotAllowed(f"the cluster has {len(self.members)} members; there may be at most {MAX_MEMBERS}")
        self._check_nothing_under_way()
        self.members[node] = Member(node, command.address, "", "", voter=False, replaces=command.replaces)
        self._new_version()

    def _promote(self, command: Promote) -> None:
        self._check_expected(command.expected)
        member = self._promotable(command.node)
        self._check_nothing_under_way()
        self._set_voter(replace(member, replaces=NOBODY))
        self._new_version()

    def _swap(self, command: Swap) -> None:
        self._check_expected(command.expected)
        member = self._promotable(command.node)
        if member.replaces == NOBODY:
            raise NotAllowed(f"node {member.node} replaces nobody: promote it")
        self._check_nothing_under_way()
        self._leave(self.members[member.replaces])
        # `replaces` stays until every group has followed: until then it can be taken back.
        self._set_voter(member)
        self._new_version()

    def _remove(self, command: Remove) -> None:
        self._check_expected(command.expected)
        member = self._known(command.node)
        taken_back = self.promotion_is_under_way(member.node)
        returning = self.leaving.get(member.replaces) if taken_back else None
        if member.voter:
            if self.voters == [member.node] and returning is None:
                raise NotAllowed(f"node {member.node} is the last voter: without it nothing could ever be decided")
            if not taken_back:
                self._check_nothing_under_way()
        self._leave(member)
        if returning is not None:
            self._return(returning)
        self._new_version()

    # --- what nodes say of themselves --------------------------------------------------------

    def _bind(self, command: Bind) -> None:
        member = self._known(command.node)
        if member.voter:
            raise NotAllowed(f"node {member.node} votes: with another folder it must be refilled first")
        self._check_folder(command)
        self.members[member.node] = replace(
            member, incarnation=command.incarnation, address=command.address, admin=command.admin
        )
        if command.incarnation != member.incarnation:
            if member.incarnation:
                # Nothing counts what a folder says that no configuration names: it must not come in again either.
                self.removed[member.incarnation] = member.node
            self._new_version()

    def _refill(self, command: Refill) -> None:
        member = self._known(command.node)
        if command.incarnation == member.incarnation:
            return
        if not member.voter:
            raise NotAllowed(f"node {member.node} does not vote: its new folder needs no refill")
        self._check_folder(command)
        taken_back = self.promotion_is_under_way(member.node)
        returning = self.leaving.get(member.replaces) if taken_back else None
        if self.voters == [member.node] and returning is None:
            raise NotAllowed(f"node {member.node} is the last voter: there is nobody to refill it from")
        if not taken_back:
            # A promotion under way waits for the folder that is lost: it would wait for ever.
            self._check_nothing_under_way()
        self.removed[member.incarnation] = member.node
        self.members[member.node] = Member(
            member.node,
            command.address,
            command.admin,
            command.incarnation,
            voter=False,
            refilling=returning is None,
            replaces=NOBODY if returning is None else returning.node,
        )
        if returning is not None:
            # Without it the rest may be no quorum; the swap begins anew.
            self._return(returning)
        self._new_version()

    def _moved(self, command: Moved) -> None:
        member = self._known(command.node)
        if command.incarnation != member.incarnation:
            raise NotAllowed(f"node {member.node} is known under another data folder")
        self._check_folder(command)
        self.members[member.node] = replace(member, address=command.address, admin=command.admin)

    def _reached(self, command: Reached) -> None:
        self._check_formed()
        reached = self.reached.get(command.group)
        if reached is None:
            raise NotAllowed(f"there is no group {command.group}; there are {_listed(self.groups)}")
        if command.version > self.version:
            raise NotAllowed(f"group {command.group} cannot have reached version {command.version} of {self.version}")
        if command.version > reached:
            self.reached[command.group] = command.version
            self._end_if_settled()

    # --- the whole cluster -------------------------------------------------------------------

    def _form(self, command: Form) -> None:
        if self.version:
            if command.cluster_id != self.cluster_id:
                raise NotAllowed(f"this is cluster {self.cluster_id}, not {command.cluster_id}")
            return
        self._begin(command.cluster_id, command.members, command.groups, 1)

    def _recover(self, command: Recover) -> None:
        survivor = replace(command.member, voter=True, refilling=False, replaces=NOBODY)
        if self.version and command.cluster_id == self.cluster_id:
            raise NotAllowed("a recovered cluster needs a new id, so that its former members cannot come back to life")
        if survivor.incarnation in self.removed:
            raise NotAllowed(f"the data folder of node {survivor.node} was removed from the cluster")
        removed = {
            member.incarnation: member.node
            for member in self.members.values()
            if member.incarnation and member.incarnation != survivor.incarnation
        }
        version = max(self.version + 1, command.version)
        self._begin(command.cluster_id, [survivor], command.groups, version)
        self.removed |= removed

    def _begin(self, cluster_id: str, members: Sequence[Member], groups: Sequence[int], version: int) -> None:
        """Have these members, and nobody else."""
        if not cluster_id:
            raise NotAllowed("a cluster needs an id")
        if not groups:
            raise NotAllowed("a cluster needs at least one group")
        if not any(member.voter for member in members) or len(members) > MAX_MEMBERS:
            raise NotAllowed(f"a cluster needs from 1 to {MAX_MEMBERS} members, and one of them must vote")
        if wrong := [member.node for member in members if not 0 <= member.node <= MAX_NODE_ID]:
            raise NotAllowed(f"a node's id must be a whole number from 0 to {MAX_NODE_ID}, not {wrong[0]}")
        if strangers := [member.node for member in members if not member.incarnation]:
            raise NotAllowed(f"nodes {_listed(strangers)} have no incarnation")
        try:
            addresses = {normalise(member.address) for member in members}
        except ValueError as error:
            raise NotAllowed(str(error)) from error
        for what, seen in (
            ("id", {member.node for member in members}),
            ("address", addresses),
            ("incarnation", {member.incarnation for member in members}),
        ):
            if len(seen) != len(members):
                raise NotAllowed(f"two members have the same {what}")
        self.cluster_id, self.version = cluster_id, version
        self.members = {
            member.node: replace(member, refilling=False, replaces=NOBODY, voting_since=version if member.voter else 0)
            for member in sorted(members, key=lambda member: member.node)
        }
        self.leaving = {}
        self.reached = dict.fromkeys(sorted(groups), version)

    # --- changes of the state ----------------------------------------------------------------

    def _set_voter(self, member: Member) -> None:
        self.members[member.node] = replace(member, voter=True, refilling=False, voting_since=self.version + 1)

    def _leave(self, member: Member) -> None:
        del self.members[member.node]
        if member.incarnation:
            self.leaving[member.node] = member
            self.removed[member.incarnation] = member.node
        for other in list(self.members.values()):
            # The id may come to mean another node.
            if other.replaces == member.node and not other.voter:
                self.members[other.node] = replace(other, replaces=NOBODY)

    def _return(self, member: Member) -> None:
        """A member that was leaving stays a voter after all."""
        del self.leaving[member.node]
        del self.removed[member.incarnation]
        self._set_voter(member)

    def _new_version(self) -> None:
        self.version += 1

    def _end_if_settled(self) -> None:
        """When every group has reached the version nobody is needed any more who is leaving."""
        if self.under_way():
            return
        self.leaving = {}
        for member in list(self.members.values()):
            if member.voter and member.replaces != NOBODY:
                self.members[member.node] = replace(member, replaces=NOBODY)

    # --- checks ------------------------------------------------------------------------------

    def _check_formed(self) -> None:
        if not self.version:
            raise NotAllowed("the cluster is not formed yet: its first members have not all met")

    def _check_expected(self, expected: int) -> None:
        self._check_formed()
        if expected not in (0, self.version):
            raise NotAllowed(
                f"the members have changed meanwhile: they are at version {self.version}, not {expected}; look again"
            )

    def _known(self, node: int) -> Member:
        self._check_formed()
        member = self.members.get(node)
        if member is None:
            if node in self.leaving:
                raise NotAllowed(f"node {node} is leaving already: {self._behind()}")
            raise NotAllowed(f"there is no node {node}; the members are {_listed(sorted(self.members))}")
        return member

    def _promotable(self, node: int) -> Member:
        member = self._known(node)
        if member.voter:
            raise NotAllowed(f"node {node} votes already")
        if not member.incarnation:
            raise NotAllowed(f"node {node} has not come yet: start it at {member.address} first")
        return member

    def _check_nothing_under_way(self) -> None:
        if self.under_way():
            raise NotAllowed(f"another change is under way: {self._behind()}")

    def _behind(self) -> str:
        """Says which groups are behind; some are."""
        groups = ", ".join(f"group {group} is at version {version}" for group, version in self.under_way().items())
        return f"{groups}, and the members are at version {self.version}"

    def _check_address(self, node: int, address: str) -> None:
        try:
            wanted = normalise(address)
        except ValueError as error:
            raise NotAllowed(str(error)) from error
        for other in (*self.members.values(), *self.leaving.values()):
            if other.node != node and normalise(other.address) == wanted:
                raise NotAllowed(f"{address} is the address of node {other.node} already")

    def _check_folder(self, command: Bind | Refill | Moved) -> None:
        """May the node come with this folder and these addresses?"""
        if not command.incarnation:
            raise NotAllowed(f"node {command.node} came without an incarnation")
        if command.incarnation in self.removed:
            raise NotAllowed(
                f"node {command.node} came with a data folder that was removed from the cluster: it needs an empty one"
            )
        for other in self.members.values():
            if other.node != command.node and other.incarnation == command.incarnation:
                raise NotAllowed(f"node {command.node} came with the data folder of node {other.node}")
        self._check_address(command.node, command.address)


def _listed(nodes: Sequence[int]) -> str:
    return ", ".join(map(str, nodes)) or "none"


class _Slices:
    """`services.interface.SnapshotSlices`: the bytes are there already, in one slice."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content

    def close(self) -> None:
        """Nothing is kept."""


class _Loader:
    """`services.interface.StoreLoader`."""

    def __init__(self, store: ClusterStore) -> None:
        self._store = store
        self._content = b""

    def feed(self, slice_: bytes) -> None:
        if self._content:
            raise ValueError("a snapshot of the cluster group has one slice, and a second came")
        self._content = slice_

    def finish(self) -> None:
        if not self._content:
            raise ValueError("a snapshot of the cluster group has one slice, and none came")
        self._store.install(self._content)
