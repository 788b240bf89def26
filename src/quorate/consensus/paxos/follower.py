"""A follower: accepts what a leader proposes, and stands for election when it hears from none.

Learners, and servers that are no members, are followers that do not stand (but see `Core.may_stand`).  Asked to promise
they do: a server that does not know yet that it was promoted may be needed to elect
whoever knows, and the promises of others are counted by nobody.
"""

from __future__ import annotations

from quorate.consensus.membership import Configuration
from quorate.consensus.paxos.core import Core
from quorate.consensus.paxos.messages import (
    Accept,
    Accepted,
    AcceptedValue,
    BarrierRequest,
    Chosen,
    Missing,
    Prepare,
    Promise,
)
from quorate.consensus.pre_vote import WaitingFollower
from quorate.consensus.replica import NodeId, SnapshotArrived


class Follower(WaitingFollower[Core]):
    """Follows `leader` under the promised ballot, or waits to hear of one where it is None."""

    # --- entries -------------------------------------------------------------------------

    def receive_accept(self, message: Accept) -> None:
        """Phase 2b for each slot; the caller has seen to the ballot and the leader."""
        core, entries = self.core, message.entries
        if core.timing.told(message.round_trip_ms):
            self.redraw_election_timeout()
        taken = 0
        for entry in entries:
            if not core.accept(entry):
                break
            taken += 1
        core.commit(message.commit_position)
        assert self.leader is not None
        if taken:
            last_position = entries[taken - 1].position
            # Said from the first slot on where nothing is missing before: it makes up for lost answers.
            first_position = 1 if last_position <= core.agreed_position else entries[0].position
            core.send(self.leader, Accepted(core.promised, message.round, first_position, last_position))
        if core.agreed_position < message.sent_position:
            core.send(self.leader, Missing(core.promised, message.round, core.agreed_position + 1))
        elif not entries:
            # Nothing to wait for: a heartbeat is answered at once, with what is durable
            # by now, so that a slow disk does not make its leader give up.
            last_position = min(core.agreed_position, core.durable_position)
            core.send(self.leader, Accepted(core.promised, message.round, 1, last_position))

    def receive_chosen(self, message: Chosen) -> None:
        self.core.commit(message.commit_position)

    def take_snapshot(self, event: SnapshotArrived, configuration: Configuration) -> None:
        core = self.core
        if event.position > core.commit_position:
            core.install(event.position, event.position_generation, configuration)
        assert self.leader is not None
        core.send(self.leader, Accepted(core.promised, 0, 1, core.commit_position))

    def _request_barrier(self, leader: NodeId, barrier_id: int) -> None:
        self.core.send(leader, BarrierRequest(self.core.promised, self.asker, barrier_id))


def answer_prepare(core: Core, sender: NodeId, message: Prepare) -> None:
    """Phase 1b: tell the candidate all that was accepted here, in parts of `max_message_bytes`."""
    assert message.ballot == core.promised and message.first_position > core.log.base_position
    first_position, end_position = message.first_position, core.log.last_position
    part: list[AcceptedValue] = []
    size = 0
    for entry in core.log.between(first_position, end_position):
        if part and size + len(entry.payload) > core.config.max_message_bytes:
            last_position = entry.position - 1
            core.send(
                sender,
                Promise(core.promised, core.commit_position, first_position, last_position, False, tuple(part)),
            )
            first_position, part, size = entry.position, [], 0
        part.append(AcceptedValue(entry, core.accepted_ballot(entry)))
        size += len(entry.payload)
    last_position = max(end_position, first_position - 1)
    core.send(sender, Promise(core.promised, core.commit_position, first_position, last_position, True, tuple(part)))
