"""What Raft owes beyond the invariants of every protocol: they see its mistakes in the step that makes them.

    durable before spoken   no term, vote or acknowledgement leaves a server that could still forget it
    one vote                a server that voted in a term does not vote for another candidate in it
    commit by counting      a leader takes entries of earlier terms for committed only with one of its own
                            (section 5.4.2)
    election restriction    once an entry is taken for committed, no server without it could win an election
                            (Raft paper, section 5.4.1, and figure 8 for how it goes wrong)

Without them a mistake shows only once a crash, or an unlucky candidate, makes something of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quorate.consensus.raft.hard_state import decode_hard_state
from quorate.consensus.raft.messages import Append, Appended, RaftMessage, RequestVote, Vote
from quorate.consensus.records import Entry
from quorate.consensus.replica import Effects, NodeId, Role, Send, Status
from quorate.simulation.durable_records import DurableRecords
from quorate.simulation.invariants import GroupInvariants, NodeView, brief
from quorate.simulation.violation import Violation


@dataclass(frozen=True, slots=True)
class _Opening:
    """How a leadership began."""

    term: int
    position: int
    """Of the opening entry."""
    commit_position: int
    """What the leader had heard of as a follower."""


class RaftInvariants:
    """Watches a group whose every step `group` has been shown before."""

    def __init__(self, group: GroupInvariants) -> None:
        self._group = group
        self._committed_position = 0
        """Checked so far."""
        self._hard_states: dict[bytes | None, tuple[int, NodeId | None]] = {}
        """Every state that was saved, as (term, vote)."""
        self._saved: dict[NodeId, tuple[NodeView, bytes | None]] = {}
        """The state that each node saved last, in this life of it."""
        self._openings: dict[NodeId, _Opening] = {}

    def stepped(self, node: NodeId, effects: Effects, status: Callable[[], Status]) -> None:
        """What a step sends at once must be durable by now; what it holds back is its node's to hold back."""
        view = self._group.views[node]
        if effects.records:
            self._check_vote(view)
        for send in effects.messages:
            message = send.message
            if type(message) is Append and message.term <= self._state(view.durable.state)[0]:
                continue  # the most frequent one, and it says nothing but its term
            vouched = view.written.entries.get(message.match_position) if isinstance(message, Appended) else None
            self.check_spoken(node, send, view.durable, vouched)
        leadership = effects.leadership
        if leadership is not None and leadership.role is Role.LEADER and not leadership.ready:
            self._openings[node] = _Opening(leadership.generation, view.written.end_position, status().commit_position)
        if len(self._group.committed) != self._committed_position:
            self._committed_position = len(self._group.committed)
            last = self._group.committed[-1]
            if view.leadership.role is Role.LEADER and last.generation < view.leadership.generation:
                self._check_counted(view, last)
            self._check_rivals(last)

    def _state(self, data: bytes | None) -> tuple[int, NodeId | None]:
        known = self._hard_states.get(data)
        if known is None:
            known = self._hard_states[data] = decode_hard_state(data)
        return known

    def _check_vote(self, view: NodeView) -> None:
        state = view.written.state
        life, saved = self._saved.get(view.node, (None, None))
        if life is not view:
            saved = view.durable.state
        elif saved is state:
            return
        self._saved[view.node] = (view, state)
        (former_term, former_vote), (term, vote) = self._state(saved), self._state(state)
        if term < former_term or (term == former_term and former_vote not in (None, vote)):
            raise Violation(
                "one vote", f"node {view.node} votes for {vote} in {term}, after {former_vote} in {former_term}"
            )

    def _check_counted(self, view: NodeView, last: Entry) -> None:
        """A leader is the first to hand out an entry of an earlier term: it did not get there by counting that one."""
        opening = self._openings[view.node]
        if last.position <= opening.commit_position:
            return
        entry = view.written.entries.get(opening.position)
        if entry is not None and not self._group.quorum.is_quorum(self._group.holders(entry)):
            raise Violation(
                "commit by counting",
                f"node {view.node}, leading {opening.term}, takes {brief(last)} for committed before {brief(entry)} is",
            )

    def check_spoken(self, node: NodeId, send: Send, durable: DurableRecords, vouched: Entry | None) -> None:
        """A message leaves the node while `durable` is durable there.

        `vouched` is the entry at the position that it acknowledges, None where a snapshot stands for that.
        """
        message = send.message
        assert isinstance(message, RaftMessage), message
        term, voted_for = self._state(durable.state)
        if term < message.term and not (isinstance(message, RequestVote | Vote) and message.pre_vote):
            # A pre-vote speaks of a term that nobody is in.
            raise _spoken(node, send, f"in durable term {term}")
        if isinstance(message, Appended):
            if message.match_position > durable.compacted.position and term == message.term:
                entry = durable.entries.get(message.match_position)
                if entry is None or entry != (vouched or entry):
                    raise _spoken(node, send, f"with durable {None if entry is None else brief(entry)}")
        elif term == message.term:
            if isinstance(message, RequestVote) and not message.pre_vote and voted_for != node:
                raise _spoken(node, send, f"with a durable vote for {voted_for}")
            if isinstance(message, Vote) and message.granted and not message.pre_vote and voted_for != send.to:
                raise _spoken(node, send, f"with a durable vote for {voted_for}")

    def _check_rivals(self, last: Entry) -> None:
        """No node without the last committed entry has a log for which a quorum would vote."""
        views = self._group.views
        for rival in views.values():
            if rival.written.holds(last):
                continue
            claim = _up_to_date(rival.written)
            voters = [node for node, view in views.items() if view is rival or claim >= _up_to_date(view.durable)]
            if self._group.quorum.is_quorum(voters):
                raise Violation(
                    "election restriction",
                    f"{brief(last)} is taken for committed, but nodes {voters} would elect {rival.node} without it",
                )


def _up_to_date(records: DurableRecords) -> tuple[int, int]:
    """What Raft's voters compare: the last entry's term, then its position."""
    generation = records.generation_at(records.end_position)
    assert generation is not None, "Raft's logs have no holes"
    return generation, records.end_position


def _spoken(node: NodeId, send: Send, how: str) -> Violation:
    return Violation("durable before spoken", f"node {node} says {send.message} to {send.to} {how}")
