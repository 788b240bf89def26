"""What Multi-Paxos owes beyond the invariants of every protocol: the papers' own, seen in the step that breaks them.

    promise                 a promise never goes back; a slot is accepted only under the ballot that is promised, which
                            is never below the one under which that slot was accepted before; who promises tells all
                            values that it accepted, and the ballots (P1b), but for those that it knows to be chosen
    one value a ballot      in a slot, all that accept under one ballot accept the same value
    chosen value            once a phase 2 quorum has accepted a value durably under one ballot, nobody accepts another
                            one there under a later ballot (Paxos Made Simple, section 2.2, P2b and P2a)
    chosen by a quorum      what is taken for chosen was accepted, durably and under one ballot, by a phase 2 quorum
    election by promises    who leads under a ballot was promised it, durably, by a phase 1 quorum
    durable before spoken   no message leaves that speaks of a promise or of acceptances that are not durable
    durable quorum          what a leader tells others to be chosen is durable on a quorum, whoever applies it first
    read barrier            see `leader_reads`
    hand-over               whoever is told to stand holds the leader's last entry durably, and votes

That promises and acceptances outlive a restart, the group's "durability" sees to: these checks go on from what was
recovered, which that one has held against what was durable before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quorate.consensus.membership import Configuration
from quorate.consensus.paxos.ballots import owner_of
from quorate.consensus.paxos.hard_state import HardState, decode_hard_state
from quorate.consensus.paxos.messages import (
    Accept,
    Accepted,
    Chosen,
    PaxosMessage,
    PreVote,
    PreVoted,
    Promise,
    TimeoutNow,
)
from quorate.consensus.records import CompactedThrough, Entry, Record, SaveEntry, SaveState
from quorate.consensus.replica import Effects, Event, NodeId, Persisted, Role, Send, Status
from quorate.simulation.durable_records import DurableRecords
from quorate.simulation.invariants import Life, NodeView, brief
from quorate.simulation.leader_reads import LeaderReads
from quorate.simulation.paxos_group import PaxosGroup
from quorate.simulation.violation import Violation

EXERCISED = (
    *("phase 1 with open slots", "values proposed again", "gaps filled", "slots accepted out of order"),
    *("void entries", "hand-overs"),
)
"""What is counted of a run."""

POSITIONS_CHECKED = 20
"""Of an `Accepted`, the last ones: it may speak of all that there is, and did so before."""


@dataclass(slots=True)
class _Acceptor:
    """One node in one life of its process: what it accepted, as written and as durable."""

    view: NodeView
    state: HardState
    """As written."""
    ballots: dict[int, int]
    """Slot to the ballot under which what is written there was accepted."""
    held: dict[int, int]
    """Slot to the generation of what is written there."""
    durable_state: HardState
    durable_held: dict[int, int]
    unsynced: deque[tuple[int, Sequence[Record]]] = field(default_factory=deque)


class PaxosInvariants:
    """Watches a group whose every step `group` has been shown before."""

    def __init__(self, group: PaxosGroup) -> None:
        self.counts = dict.fromkeys(EXERCISED, 0)
        self._group = group
        self._committed_position = 0
        """Checked so far."""
        self._states: dict[bytes | None, HardState] = {}
        self._acceptors: dict[NodeId, _Acceptor] = {}
        self._promises: dict[int, set[Life]] = {}
        """Ballot to those that promised it durably."""
        self._values: dict[tuple[int, int], int] = {}
        """(slot, ballot) to the generation of the value."""
        self._votes: dict[tuple[int, int], set[Life]] = {}
        """(slot, ballot) to those that accepted under it, durably."""
        self._deciders: dict[int, Configuration] = {}
        """Ballot to the configuration by which its leader counts."""
        self._reads: dict[NodeId, LeaderReads] = {}
        """Of the last leadership of each node."""
        self._chosen: dict[int, tuple[int, int]] = {}
        """Slot to (generation of the value, ballot)."""

    def stepped(self, node: NodeId, event: Event, effects: Effects, status: Callable[[], Status]) -> None:
        """What a step sends at once must be durable by now; what it holds back is its node's to hold back."""
        view = self._group.views[node]
        acceptor = self._acceptors.get(node)
        if acceptor is None or acceptor.view is not view:
            acceptor = self._begin(view)
        if type(event) is Persisted:
            self._persist(acceptor, event.ticket)
        if effects.records:
            self._write(acceptor, effects.records)
            acceptor.unsynced.append((effects.ticket, effects.records))
        if view.leadership.role is Role.LEADER:
            self._lead(acceptor, effects)
            self._reads[node].stepped(view, event, effects, status)
        for sends in (effects.messages, effects.messages_after_persist):
            for send in sends:
                if type(send.message) is Promise:
                    _check_told(acceptor, send.message)
        for send in effects.messages:
            message = send.message
            if type(message) is Accept and message.ballot <= acceptor.durable_state.promised:
                continue  # the most frequent one, and it says nothing but its ballot
            self.check_spoken(node, send, view.durable)
        if len(self._group.committed) != self._committed_position:
            self._check_chosen(view)

    def _state(self, data: bytes | None) -> HardState:
        known = self._states.get(data)
        if known is None:
            known = self._states[data] = decode_hard_state(data)
        return known

    # --- acceptors ---------------------------------------------------------------------------

    def _begin(self, view: NodeView) -> _Acceptor:
        """A node has started.  What of the unsynced outlived a crash counts from now on, like all that is durable."""
        durable = view.durable
        state = self._state(durable.state)
        held = {position: entry.generation for position, entry in durable.entries.items()}
        ballots = {position: _ballot(state, position, generation) for position, generation in held.items()}
        acceptor = self._acceptors[view.node] = _Acceptor(view, state, ballots, held, state, dict(held))
        self._promise(acceptor, state)
        for position, generation in held.items():
            self._vote(acceptor, position, generation)
        return acceptor

    def _write(self, acceptor: _Acceptor, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, SaveEntry):
                position, generation = record.entry.position, record.entry.generation
                in_order = position == 1 or position - 1 in acceptor.held
                self.counts["slots accepted out of order"] += not (
                    in_order or position == acceptor.view.written.compacted.position + 1
                )
                acceptor.held[position] = generation
                self._accept(acceptor, position, generation)
            elif isinstance(record, SaveState):
                former, state = acceptor.state, self._state(record.data)
                if state.promised < former.promised:
                    raise Violation(
                        "promise", f"node {acceptor.view.node} promises {state.promised} after {former.promised}"
                    )
                acceptor.state = state
                for position, generation in {**former.reaccepted, **state.reaccepted}:
                    if acceptor.held.get(position) == generation and position > state.chosen_position:
                        self._accept(acceptor, position, generation)
            elif isinstance(record, CompactedThrough):
                _forget(acceptor.held, record.position)
                _forget(acceptor.ballots, record.position)

    def _accept(self, acceptor: _Acceptor, position: int, generation: int) -> None:
        """The node writes that it has accepted the value in the slot."""
        node, state = acceptor.view.node, acceptor.state
        ballot = _ballot(state, position, generation)
        former = acceptor.ballots.get(position, 0)
        if ballot == former:
            return
        if ballot < former or ballot != state.promised:
            raise Violation(
                "promise",
                f"node {node} accepts {position}/{generation} under {ballot}, where it had accepted under {former} "
                f"and has promised {state.promised}",
            )
        acceptor.ballots[position] = ballot
        known = self._values.setdefault((position, ballot), generation)
        if known != generation:
            raise Violation(
                "one value a ballot",
                f"node {node} accepts {position}/{generation} under {ballot}, under which {known} was accepted before",
            )
        chosen = self._chosen.get(position)
        if chosen is not None and ballot > chosen[1] and generation != chosen[0]:
            raise Violation(
                "chosen value",
                f"node {node} accepts {position}/{generation} under {ballot}, but {chosen[0]} was chosen under "
                f"{chosen[1]}",
            )

    def _persist(self, acceptor: _Acceptor, ticket: int) -> None:
        unsynced, held = acceptor.unsynced, acceptor.durable_held
        while unsynced and unsynced[0][0] <= ticket:
            for record in unsynced.popleft()[1]:
                if isinstance(record, SaveEntry):
                    held[record.entry.position] = record.entry.generation
                    self._vote(acceptor, record.entry.position, record.entry.generation)
                elif isinstance(record, SaveState):
                    former, state = acceptor.durable_state, self._state(record.data)
                    acceptor.durable_state = state
                    if state.promised > former.promised:
                        self._promise(acceptor, state)
                    for (position, generation), ballot in state.reaccepted.items():
                        is_news = former.reaccepted.get((position, generation)) != ballot
                        if is_news and held.get(position) == generation:
                            self._vote(acceptor, position, generation)
                elif isinstance(record, CompactedThrough):
                    _forget(held, record.position)

    def _promise(self, acceptor: _Acceptor, state: HardState) -> None:
        view = acceptor.view
        self._promises.setdefault(state.promised, set()).add((view.node, view.incarnation))

    def _vote(self, acceptor: _Acceptor, position: int, generation: int) -> None:
        """The node has accepted the value durably; of what it knows to be chosen it forgets under which ballot."""
        view, state = acceptor.view, acceptor.durable_state
        if position <= state.chosen_position:
            return
        ballot = _ballot(state, position, generation)
        votes = self._votes.setdefault((position, ballot), set())
        votes.add((view.node, view.incarnation))
        chosen = self._chosen.get(position)
        if chosen is None or chosen[0] != generation:
            deciders = self._deciders.get(ballot)
            if deciders is not None and self._is_phase_2_quorum(deciders, votes):
                self._choose(position, generation, ballot)

    def _choose(self, position: int, generation: int, ballot: int) -> None:
        former = self._chosen.setdefault(position, (generation, ballot))
        if former[0] != generation:
            raise Violation(
                "chosen value",
                f"in slot {position}, {generation} is chosen under {ballot}, and {former[0]} under {former[1]}",
            )

    def _is_phase_2_quorum(self, configuration: Configuration, votes: set[Life]) -> bool:
        return self._group.quorum_of(configuration).phase_2.is_quorum(_counted(configuration, votes))

    # --- leaders -----------------------------------------------------------------------------

    def _lead(self, acceptor: _Acceptor, effects: Effects) -> None:
        view = acceptor.view
        ballot, configuration = view.leadership.generation, view.configuration
        if ballot not in self._deciders:
            self._check_election(view, ballot, configuration)
            self._reads[view.node] = LeaderReads(ballot, view.written.end_position)
            self._count_found(acceptor, ballot, effects)
        # Behind this step: a configuration that was proposed in it decides about itself and what follows,
        # since all before it had been chosen.
        self._deciders[ballot] = configuration
        for sends in (effects.messages, effects.messages_after_persist):
            for send in sends:
                message = send.message
                if type(message) is Accept or type(message) is Chosen:
                    if message.commit_position > len(self._group.committed):
                        self._group.learn_commit(view.node, message.commit_position)
                elif type(message) is TimeoutNow:
                    self._check_hand_over(view, send.to)

    def _check_election(self, view: NodeView, ballot: int, configuration: Configuration) -> None:
        promised = self._promises.get(ballot, set())
        if not self._group.quorum_of(configuration).phase_1.is_quorum(_counted(configuration, promised)):
            raise Violation(
                "election by promises",
                f"node {view.node} leads {ballot}, which only {sorted(promised)} have promised, of {configuration}",
            )

    def _count_found(self, acceptor: _Acceptor, ballot: int, effects: Effects) -> None:
        """In its first step a leader proposes a value for every open slot, and behind them its opening entry."""
        saved = [record.entry for record in effects.records if isinstance(record, SaveEntry)]
        gaps = sum(entry.generation == ballot for entry in saved) - 1
        again = sum(found == ballot for found in acceptor.state.reaccepted.values())
        self.counts["gaps filled"] += gaps
        self.counts["values proposed again"] += again
        self.counts["phase 1 with open slots"] += gaps + again > 0

    def _check_hand_over(self, view: NodeView, target: NodeId) -> None:
        self.counts["hand-overs"] += 1
        written, incarnation = view.written, view.configuration.voters.get(target)
        # The folder that voted: it may be lost by now, of which the leader cannot know.
        life = None if incarnation is None else self._group.lives.get((target, incarnation))
        last = written.entries.get(written.end_position)
        if life is None or not (last is None or life.durable.holds(last)):
            raise Violation(
                "hand-over", f"node {view.node} hands over to {target}, of {view.configuration}, without its last entry"
            )

    def _check_chosen(self, view: NodeView) -> None:
        """The node of this view is the first to take entries for chosen."""
        committed = self._group.committed
        self.counts["void entries"] = self._group.void_entries
        for entry in committed[self._committed_position :]:
            chosen = self._chosen.get(entry.position)
            if chosen is None:
                raise Violation(
                    "chosen by a quorum",
                    f"node {view.node} takes {brief(entry)} for chosen; it was accepted by "
                    f"{self._describe_votes(entry.position)}",
                )
            if chosen[0] != entry.generation:
                raise Violation(
                    "chosen value", f"node {view.node} takes {brief(entry)} for chosen, but {chosen[0]} was"
                )
        self._committed_position = len(committed)

    def _describe_votes(self, position: int) -> str:
        found = [(ballot, sorted(votes)) for (slot, ballot), votes in self._votes.items() if slot == position]
        return "; ".join(f"{votes} under {ballot}" for ballot, votes in sorted(found)) or "nobody"

    # --- what is said ------------------------------------------------------------------------

    def check_spoken(self, node: NodeId, send: Send, durable: DurableRecords) -> None:
        """A message leaves the node while `durable` is durable there."""
        message = send.message
        assert isinstance(message, PaxosMessage), message
        if isinstance(message, PreVote) or (isinstance(message, PreVoted) and message.granted):
            return  # it speaks of a ballot that nobody has promised
        state = self._state(durable.state)
        if state.promised < message.ballot:
            raise _spoken(node, send, f"with durable promise {state.promised}")
        if isinstance(message, Accepted) and owner_of(message.ballot) == send.to:
            last = message.last_position
            for position in range(max(message.first_position, last - POSITIONS_CHECKED), last + 1):
                if position > durable.compacted.position:
                    self._check_vouched(node, send, durable.entries.get(position), position, state)

    def _check_vouched(self, node: NodeId, send: Send, entry: Entry | None, position: int, state: HardState) -> None:
        if entry is None:
            raise _spoken(node, send, f"and slot {position} is not durable")
        message, committed = send.message, self._group.committed
        assert isinstance(message, Accepted)
        known = position <= len(committed) and committed[position - 1] == entry
        ballot = _ballot(state, position, entry.generation)
        if ballot < message.ballot and not known:
            raise _spoken(node, send, f"with {brief(entry)} accepted under {ballot}")


def _ballot(state: HardState, position: int, generation: int) -> int:
    """Under which the value was accepted."""
    return state.reaccepted.get((position, generation), generation)


def _check_told(acceptor: _Acceptor, message: Promise) -> None:
    """A promise is made, of which this part tells what was accepted in some slots."""
    told = {value.entry.position: (value.entry.generation, value.ballot) for value in message.accepted}
    first, last = message.first_position, message.last_position
    for position, generation in acceptor.held.items():
        is_asked = first <= position and (position <= last or message.complete)
        accepted = generation, acceptor.ballots[position]
        if is_asked and position > message.commit_position and told.get(position) != accepted:
            raise Violation(
                "promise",
                f"node {acceptor.view.node}, which promises {message.ballot}, tells {told.get(position)} of slot "
                f"{position}, where it accepted (value, ballot) {accepted}",
            )


def _forget(by_slot: dict[int, int], through: int) -> None:
    for position in [position for position in by_slot if position <= through]:
        del by_slot[position]


def _counted(configuration: Configuration, lives: set[Life]) -> list[NodeId]:
    """Those of them that count in the configuration, under the incarnation that it names."""
    return sorted(node for node, incarnation in lives if configuration.incarnation(node) == incarnation)


def _spoken(node: NodeId, send: Send, how: str) -> Violation:
    return Violation("durable before spoken", f"node {node} says {send.message} to {send.to} {how}")
