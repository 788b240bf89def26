"""What a change of the members would do, judged before anybody asks for it.  Pure.

The store refuses what is wrong whoever asks.  What is *dangerous* depends on which nodes
can be reached just now, which is no business of a replicated state machine: two replicas
would judge differently.  So the node that is asked judges it here, says what would come of
it, and refuses it unless it is forced.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from quorate.services.cluster.commands import NOBODY, Add, Member, Promote, Remove
from quorate.services.cluster.store import ClusterStore

MAX_LAG: Final = 1_000
"""Entries behind at which a node still counts as caught up: under full load some are always on their way."""


class Transfer(msgspec.Struct, frozen=True):
    """Hand the leadership to that node.  It is no command to the cluster group: the leader's replica does it."""

    target: int


Change: TypeAlias = Add | Promote | Remove | Transfer
"""An Add with `replaces` is the whole replacement, to its end."""


class Side(msgspec.Struct, frozen=True):
    """Who decides, before or after.  All lists are in order."""

    voters: list[int]
    learners: list[int]
    quorum: int
    """How many voters must agree."""
    tolerated: int
    """How many voters may fail when all are there."""
    unreachable: list[int]
    """Voters that cannot be reached now."""
    spare: int
    """How many more voters may fail as things are now; below 0: how many are missing to decide anything."""


class Verdict(msgspec.Struct, frozen=True):
    """What a change would do."""

    before: Side
    after: Side
    problem: str | None
    """Why it cannot be done at all."""
    danger: str | None
    """What it would cost: it is done only where that is forced."""
    lines: list[str]
    """All of it, for people."""

    def refusal(self, forced: bool) -> str | None:
        """Why the change must not be made now, else None."""
        if self.problem is not None or forced:
            return self.problem
        return self.danger


def judge(state: ClusterStore, change: Change, alive: Collection[int], lag: Mapping[int, int | None]) -> Verdict:
    """Judge a change of the members in `state`, which stays as it is.

    `alive` are the nodes that can be reached, the judging one included.  `lag` says how
    many entries a node is behind in the group where it is furthest behind, None (or
    nothing) where that is unknown.
    """
    before = _side(state.voters, _learners(state), alive)
    if isinstance(change, Transfer):
        problem = _undecidable(before) or _transfer_problem(state, change.target, alive, lag)
        lines = [f"node {change.target} would lead; the members stay as they are", _line("members", before)]
        return _verdict(before, before, problem, None, lines)
    copy = ClusterStore.of(state.content())
    problem = copy.execute(change).problem or _undecidable(before)
    lines = _what_happens(state, copy, change) if problem is None else []
    voters, learners, present = copy.voters, _learners(copy), set(alive)
    if problem is None and isinstance(change, Add) and change.replaces != NOBODY:
        # It votes only once it has caught up, so by then it is there.
        present.add(change.node)
        voters = sorted({change.node, *voters} - {change.replaces})
        learners.remove(change.node)
    after = _side(voters, learners, present)
    danger = None
    if problem is None:
        danger = _danger(before, after, present)
        if danger is None and isinstance(change, Promote):
            danger = _waiting(change.node, alive, lag)
        lines += [_line("before", before), _line("after", after), *_notes(before, after)]
    return _verdict(before, after, problem, danger, lines)


def _verdict(before: Side, after: Side, problem: str | None, danger: str | None, lines: list[str]) -> Verdict:
    if problem is not None:
        lines = [f"refused: {problem}"]
    elif danger is not None:
        lines = [*lines, f"DANGER: {danger}"]
    return Verdict(before, after, problem, danger, lines)


def _side(voters: Sequence[int], learners: Sequence[int], alive: Collection[int]) -> Side:
    quorum = len(voters) // 2 + 1 if voters else 0
    unreachable = [node for node in voters if node not in alive]
    tolerated = len(voters) - quorum
    return Side(list(voters), list(learners), quorum, tolerated, unreachable, tolerated - len(unreachable))


def _learners(state: ClusterStore) -> list[int]:
    return sorted(node for node, member in state.members.items() if not member.voter)


# --- what is wrong ---------------------------------------------------------------------------


def _undecidable(before: Side) -> str | None:
    """A change is decided by the quorum that is there before it."""
    if before.spare >= 0:
        return None
    return (
        f"{_nodes(before.unreachable)} cannot be reached, and without {before.quorum} of {len(before.voters)} voters "
        f"nothing can be decided: bring one back, or, where they are lost for good, see `quorate recover`"
    )


def _transfer_problem(
    state: ClusterStore, target: int, alive: Collection[int], lag: Mapping[int, int | None]
) -> str | None:
    member = state.member(target)
    if member is None:
        return f"there is no node {target}; the members are {_list(sorted(state.members))}"
    if not member.voter:
        return f"node {target} is a learner: only a voter can lead"
    if target not in alive:
        return f"node {target} cannot be reached"
    behind = lag.get(target)
    if behind is None or behind > MAX_LAG:
        return f"node {target} has not caught up: {_lag(behind)}"
    return None


def _danger(before: Side, after: Side, alive: Collection[int]) -> str | None:
    """What is lost, where the change takes the quorum or the last voter that may fail."""
    reachable = [node for node in after.voters if node in alive]
    if after.spare < 0:
        return (
            f"the quorum would be lost: of the voters {_list(after.voters)} only {_list(reachable)} can be reached, "
            f"and {after.quorum} are needed.  Nothing could be written, no session kept and no member changed until "
            f"{_nodes(after.unreachable)} came back; this change itself could not be completed"
        )
    if after.spare == 0 and before.spare > 0:
        return (
            f"no failure would be tolerated any more: the voters would be {_list(after.voters)}, and "
            f"all that can be reached ({_list(reachable)}) would be needed.  If one of them stopped, nothing could be "
            f"written and no member changed until it came back (now {before.spare} may fail)"
        )
    return None


def _waiting(node: int, alive: Collection[int], lag: Mapping[int, int | None]) -> str | None:
    """A promotion waits for its node, and everything else waits for the promotion."""
    behind = lag.get(node)
    consequence = "no other member could be changed until then, or until this node is removed"
    if node not in alive:
        return f"node {node} cannot be reached: its promotion would wait until it has caught up, and {consequence}"
    if behind is None or behind > MAX_LAG:
        return (
            f"node {node} has not caught up ({_lag(behind)}): its promotion would wait until it has, and {consequence}"
        )
    return None


# --- what happens, in words ------------------------------------------------------------------


def _what_happens(state: ClusterStore, then: ClusterStore, change: Add | Promote | Remove) -> list[str]:
    node = change.node
    if isinstance(change, Add):
        if change.replaces != NOBODY:
            return [
                f"node {node} at {change.address} would get everything as a learner",
                f"once it has, it would vote, and node {change.replaces} would leave, in one change",
            ]
        return [f"node {node} at {change.address} would get everything as a learner, and not vote until it is promoted"]
    if isinstance(change, Promote):
        return [f"node {node} would vote, as soon as it has caught up in every group"]
    lines = [f"node {node} would leave for good: to come back it needs an empty folder and to be added again"]
    member: Member = state.members[node]
    if not member.voter:
        lines[0] = f"node {node}, a learner, would leave: it decides nothing, so the quorum stays"
    elif state.promotion_is_under_way(node):
        lines[0] = f"node {node} would leave: its promotion, which is under way, is taken back"
    lines += [
        f"node {returned}, which it was to replace, would stay a voter"
        for returned in then.voters
        if returned in state.leaving
    ]
    return lines


def _notes(before: Side, after: Side) -> list[str]:
    notes = []
    if len(after.voters) > len(before.voters) and after.tolerated == before.tolerated:
        notes.append(
            f"note: {len(after.voters)} voters tolerate no more failures than {len(before.voters)}; add one more"
        )
    if after.unreachable and after.spare >= 0:
        notes.append(f"note: {_nodes(after.unreachable)} cannot be reached now; {_may_fail(after.spare)}")
    return notes


def _line(name: str, side: Side) -> str:
    parts = [f"voters {_list(side.voters)}"]
    if side.learners:
        parts.append(f"learners {_list(side.learners)}")
    parts += [f"quorum {side.quorum} of {len(side.voters)}", f"tolerates {_count(side.tolerated, 'failure')}"]
    if side.unreachable:
        parts.append(f"not reachable: {_list(side.unreachable)}")
    return f"{name}: {'; '.join(parts)}"


def _may_fail(spare: int) -> str:
    return f"{spare} more may fail" if spare else "no more may fail"


def _lag(behind: int | None) -> str:
    return (
        "how far it is behind is not known" if behind is None else f"it is {_count(behind, 'entry', 'entries')} behind"
    )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _nodes(nodes: Sequence[int]) -> str:
    return f"node{'s' if len(nodes) > 1 else ''} {_list(nodes)}"


def _list(nodes: Sequence[int]) -> str:
    return ", ".join(map(str, nodes)) or "none"
