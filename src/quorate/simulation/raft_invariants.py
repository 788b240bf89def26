"""What Raft owes beyond the invariants of every protocol: they see its mistakes in the step that makes them.

    durable before spoken   no term, vote or acknowledgement leaves a server that could still forget it
    one vote                a server that voted in a term does not vote for another candidate in it
    election by votes       who leads a term was voted for by a quorum; what was granted as a pre-vote binds nobody
    election restriction    votes and pre-votes go to logs that are at least as up to date as the voter's own; and
                            once an entry is taken for committed, no server without it could win an election
                            (Raft paper, section 5.4.1, and figure 8 for how it goes wrong)
    commit by counting      a leader takes entries of earlier terms for committed only with one of its own
                            (section 5.4.2)
    durable quorum          what a leader tells others to commit is durable on a quorum, whoever applies it first
    read barrier            see `leader_reads`
    log matching            what a log has behind an entry that gave way to another one is cut off

Without them a mistake shows only once a crash, or an unlucky candidate, makes something of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quorate.consensus.raft.hard_state import decode_hard_state
from quorate.consensus.raft.messages import (
    Append,
    Appended,
    Commit,
    RaftMessage,
    RequestVote,
    Vote,
)
from quorate.consensus.records import Entry, Record, SaveEntry
from quorate.consensus.replica import Effects, Event, NodeId, Role, Send, Status
from quorate.simulation.durable_records import DurableRecords
from quorate.simulation.invariants import GroupInvariants, Life, NodeView, brief
from quorate.simulation.leader_reads import LeaderReads
from quorate.simulation.violation import Violation


@dataclass(slots=True)
class _Reign:
    """A leadership: how it began, and what its reads rest on."""

    term: int
    opening_position: int
    commit_position: int
    """What the leader had heard of as a follower."""
    reads: LeaderReads


class RaftInvariants:
    """Watches a group whose every step `group` has been shown before."""

    def __init__(self, group: GroupInvariants) -> None:
        self.counts: dict[str, int] = {}
        """All that Raft does, the group counts."""
        self._group = group
        self._committed_position = 0
        """Checked so far."""
        self._hard_states: dict[bytes | None, tuple[int, NodeId | None]] = {}
        """Every state that was saved, as (term, vote)."""
        self._saved: dict[NodeId, tuple[NodeView, bytes | None]] = {}
        """The state that each node saved last, in this life of it."""
        self._votes: dict[tuple[int, Life], NodeId | None] = {}
        """(term, voter) to the candidate, over all restarts; another incarnation is another voter."""
        self._claims: dict[tuple[int, NodeId, bool], tuple[int, int]] = {}
        """(term, candidate, whether for a pre-vote) to the most up-to-date log that it asked with."""
        self._reigns: dict[NodeId, _Reign] = {}
        """The last of each node."""

    def stepped(self, node: NodeId, event: Event, effects: Effects, status: Callable[[], Status]) -> None:
        """What a step sends at once must be durable by now; what it holds back is its node's to hold back."""
        view = self._group.views[node]
        if effects.records:
            self._check_vote(view)
            self._check_end(view, effects.records[-1])
        leadership = effects.leadership
        if leadership is not None and leadership.role is Role.LEADER:
            self._begin_reign(view, leadership.generation, status().commit_position)
        if view.leadership.role is Role.LEADER:
            self._lead(view, event, effects, status)
        for send in effects.messages:
            message = send.message
            if type(message) is Append and message.term <= self._state(view.durable.state)[0]:
                continue  # the most frequent one, and it says nothing but its term
            if type(message) is RequestVote or type(message) is Vote:
                self._check_ballot(view, send.to, message)
            vouched = view.written.entries.get(message.match_position) if isinstance(message, Appended) else None
            self.check_spoken(node, send, view.durable, vouched)
        for send in effects.messages_after_persist:
            message = send.message
            if type(message) is RequestVote or type(message) is Vote:
                self._check_ballot(view, send.to, message)
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
        self._votes[term, (view.node, view.incarnation)] = vote
        if term < former_term or (term == former_term and former_vote not in (None, vote)):
            raise Violation(
                "one vote", f"node {view.node} votes for {vote} in {term}, after {former_vote} in {former_term}"
            )

    def _check_end(self, view: NodeView, last: Record) -> None:
        """Raft appends, and cuts off before it appends anything else: the last entry written is the log's last."""
        if isinstance(last, SaveEntry) and last.entry.position != view.written.end_position:
            raise Violation(
                "log matching",
                f"node {view.node} writes {brief(last.entry)}, but its log goes on to {view.written.end_position}",
            )

    # --- elections ---------------------------------------------------------------------------

    def _begin_reign(self, view: NodeView, term: int, commit_position: int) -> None:
        node = view.node
        former = self._reigns.get(node)
        if former is not None and former.term == term:
            return  # it is ready now
        self._reigns[node] = _Reign(
            term, view.written.end_position, commit_position, LeaderReads(term, view.written.end_position)
        )
        voters = [voter[0] for voter in view.electors if self._votes.get((term, voter)) == node]
        if not view.quorum.is_quorum(voters):
            raise Violation("election by votes", f"node {node} leads {term}, for which only {voters} voted for it")

    def _check_ballot(self, view: NodeView, to: NodeId, message: RequestVote | Vote) -> None:
        """A vote is asked for or granted: now, or as soon as all that was written is durable."""
        node, term, pre_vote = view.node, message.term, message.pre_vote
        if isinstance(message, RequestVote):
            claim = (message.last_term, message.last_position)
            former = self._claims.get((term, node, pre_vote), claim)
            self._claims[term, node, pre_vote] = max(claim, former)
            candidate = node
        elif message.granted:
            claimed, own = self._claims.get((term, to, pre_vote)), _up_to_date(view.written)
            if claimed is not None and claimed < own:
                raise Violation(
                    "election restriction",
                    f"node {node}, whose log ends with (term, position) {own}, says {message} to {to}, "
                    f"whose log ends with {claimed}",
                )
            candidate = to
        else:
            return
        state = self._state(view.written.state)
        if not pre_vote and state != (term, candidate):
            raise _spoken(node, Send(to, message), f"with nothing on the way to its disk but (term, vote) {state}")

    # --- leading -----------------------------------------------------------------------------

    def _lead(self, view: NodeView, event: Event, effects: Effects, status: Callable[[], Status]) -> None:
        reign = self._reigns[view.node]
        if not view.leadership.ready:
            self._check_unopened(view, reign, status().commit_position)
        reign.reads.stepped(view, event, effects, status)
        for send in effects.messages:
            message = send.message
            if (type(message) is Append or type(message) is Commit) and message.commit_position > len(
                self._group.committed
            ):
                self._group.learn_commit(view.node, message.commit_position)

    def _check_unopened(self, view: NodeView, reign: _Reign, position: int) -> None:
        """A leader, not ready yet, takes everything through `position` for committed."""
        if reign.commit_position < position < reign.opening_position:
            raise Violation(
                "commit by counting",
                f"node {view.node}, leading {reign.term}, takes {position} for committed before its own "
                f"{reign.opening_position} is",
            )

    def _check_counted(self, view: NodeView, last: Entry) -> None:
        """A leader is the first to hand out an entry of an earlier term: it did not get there by counting that one."""
        reign = self._reigns[view.node]
        if last.position <= reign.commit_position:
            return
        entry = view.written.entries.get(reign.opening_position)
        if entry is not None and not view.quorum.is_quorum(self._group.holders(entry, view.electors)):
            raise Violation(
                "commit by counting",
                f"node {view.node}, leading {reign.term}, takes {brief(last)} for committed before {brief(entry)} is",
            )

    # --- what is said ------------------------------------------------------------------------

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
            configuration = rival.configuration
            if rival.written.holds(last):
                continue
            claim = _up_to_date(rival.written)
            voters = [
                node
                for node, view in views.items()
                if configuration.incarnation(node) == view.incarnation
                and (view is rival or claim >= _up_to_date(view.durable))
            ]
            if configuration.quorum().is_quorum(voters):
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
