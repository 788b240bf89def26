"""A leader's read barriers, in the step that lets one pass (Raft thesis, section 6.4; the other protocols do the same).

    read barrier    a leader lets one pass at a position not before its opening entry, nor before what it knew to be
                    committed when the barrier was asked, and after a quorum answered a round that began after that

Without this a mistake shows only once a read has missed what somebody else committed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quorate.consensus.paxos import messages as paxos
from quorate.consensus.raft import messages as raft
from quorate.consensus.replica import Effects, Event, Message, NodeId, ReadBarrier, Receive, Status
from quorate.consensus.zab import messages as zab
from quorate.simulation.invariants import NodeView
from quorate.simulation.violation import Violation

ANSWERS: Final = (raft.Appended, raft.AppendRejected, paxos.Accepted, paxos.Missing, zab.Ack, zab.OutOfSync)
"""What says which of the leader's rounds its sender has heard."""
ROUNDS: Final = (raft.Append, paxos.Accept, zab.FromLeader)
"""What a leader's rounds travel in."""
REQUESTS: Final = (raft.BarrierRequest, paxos.BarrierRequest, zab.BarrierRequest)
PASSES: Final = (raft.BarrierAnswer, paxos.BarrierAnswer, zab.BarrierAnswer)


class LeaderReads:
    """Of one leadership.  `stepped` is to be shown every step of it, its first one included."""

    def __init__(self, generation: int, opening_position: int) -> None:
        self._generation = generation
        self._opening_position = opening_position
        self._round = 0
        """The newest that the leader has sent."""
        self._heard_rounds: dict[NodeId, int] = {}
        """By peer, the newest round that it answered."""
        self._asked: dict[tuple[int | None, int], tuple[int, int]] = {}
        """(asker, barrier id), no asker for its own, to (round, commit position) when the barrier first came."""

    def stepped(self, view: NodeView, event: Event, effects: Effects, status: Callable[[], Status]) -> None:
        if type(event) is ReadBarrier:
            self._asked.setdefault((None, event.barrier_id), (self._round, status().commit_position))
        elif type(event) is Receive:
            message = event.message
            if isinstance(message, ANSWERS):
                if _generation(message) == self._generation and message.round > self._heard_rounds.get(event.sender, 0):
                    self._heard_rounds[event.sender] = message.round
            elif isinstance(message, REQUESTS):
                key = (message.asker, message.barrier_id)
                self._asked.setdefault(key, (self._round, status().commit_position))
        for send in effects.messages:
            message = send.message
            if isinstance(message, ROUNDS):
                self._round = message.round
            elif isinstance(message, PASSES) and message.position >= 0:
                self._check(view, (message.asker, message.barrier_id), message.position)
        for passed in effects.barriers_passed:
            self._check(view, (None, passed.barrier_id), passed.position)

    def _check(self, view: NodeView, key: tuple[int | None, int], position: int) -> None:
        """The leader lets a barrier pass.  One that it was asked for as a follower, by its own node, is not known."""
        asked = self._asked.get(key)
        if asked is None:
            return
        round_then, commit_then = asked
        if position < max(self._opening_position, commit_then):
            raise Violation(
                "read barrier",
                f"node {view.node}, leading {self._generation}, passes one at {position}: "
                f"its opening entry is {self._opening_position}, and {commit_then} was committed when it was asked",
            )
        contacts = [view.node, *(peer for peer, heard in self._heard_rounds.items() if heard > round_then)]
        if not view.quorum.is_quorum(contacts):
            raise Violation(
                "read barrier",
                f"node {view.node}, leading {self._generation}, passes one that was asked in round {round_then}, "
                f"and only {contacts} have been in touch since",
            )


def _generation(message: Message) -> int:
    if isinstance(message, raft.RaftMessage):
        return message.term
    if isinstance(message, paxos.PaxosMessage):
        return message.ballot
    assert isinstance(message, zab.ZabMessage), message
    return message.epoch
