"""A follower: accepts what a leader proposes, and stands for election when it hears from none.

Learners, and servers that are no members, are followers that do not stand (but see `Core.may_stand`).  Asked to promise
they do: a server that does not know yet that it was promoted may be needed to elect
whoever knows, and the promises of others are counted by nobody.
"""

from __future__ import annotations

from quorate.consensus.barriers import ForwardedBarriers
from quorate.consensus.membership import Configuration
from quorate.consensus.paxos.core import Core
from quorate.consensus.paxos.messages import (
    Accept,
    Accepted,
    AcceptedValue,
    BarrierAnswer,
    BarrierRequest,
    Chosen,
    Missing,
    Prepare,
    Promise,
)
from quorate.consensus.replica import BarrierPassed, NodeId, SnapshotArrived


class Follower:
    """Follows `leader` under the promised ballot, or waits to hear of one where it is None."""

    def __init__(self, core: Core, leader: NodeId | None, asker: int) -> None:
        self.core = core
        self.leader: NodeId | None = None
        self.asker = asker
        self.barriers = ForwardedBarriers()
        self.heard_ms = core.now_ms
        """When the leader was last heard from; without meaning while there is none."""
        self.election_timeout_ms = core.draw_election_timeout_ms()
        self.election_ms = core.now_ms + self.election_timeout_ms
        """When this server stands for election."""
        if leader is not None:
            self.hear_from(leader)

    def hear_from(self, leader: NodeId) -> None:
        """The owner of the promised ballot leads, and lives."""
        assert self.leader is None or self.leader == leader, (self.core.promised, self.leader, leader)
        self.leader = leader
        self.heard_ms = self.core.now_ms
        self.election_ms = self.core.now_ms + self.election_timeout_ms

    def postpone_election(self) -> None:
        """A promise was given: let its candidate have its time."""
        self.election_ms = self.core.now_ms + self.election_timeout_ms

    def leader_is_alive(self) -> bool:
        """Whether candidates get no answer, so that a server that lost touch cannot depose a working leader."""
        return self.leader is not None and self.core.now_ms - self.heard_ms < self.core.timing.election_timeout_ms

    def deadline_ms(self) -> int:
        expiry_ms = self.barriers.next_expiry_ms
        return self.election_ms if expiry_ms is None else min(self.election_ms, expiry_ms)

    def tick(self) -> bool:
        """Whether it is time to stand for election."""
        core = self.core
        expiry_ms = self.barriers.next_expiry_ms
        if expiry_ms is not None and expiry_ms <= core.now_ms:
            core.effects.barriers_failed.extend(self.barriers.take_expired(core.now_ms))
        if core.now_ms < self.election_ms:
            return False
        if not core.may_stand():
            self.postpone_election()
            return False
        return True

    def leader_lost(self) -> None:
        """The connection to the leader closed: stand soon unless it is heard from again.

        Not at once, so that the others may notice too and grant their pre-votes.
        """
        core = self.core
        self.leader = None
        timeout_ms = core.timing.election_timeout_ms
        delay_ms = core.random.randrange(timeout_ms // 16, timeout_ms // 4 + 1)
        self.election_ms = min(self.election_ms, core.now_ms + delay_ms)
        self.fail_barriers()

    # --- entries -------------------------------------------------------------------------

    def receive_accept(self, message: Accept) -> None:
        """Phase 2b for each slot; the caller has seen to the ballot and the leader."""
        core, entries = self.core, message.entries
        if core.timing.told(message.round_trip_ms):
            self.election_timeout_ms = core.draw_election_timeout_ms()
            self.election_ms = core.now_ms + self.election_timeout_ms
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
        """The leader's snapshot is here: go on from it, and tell the leader once that is durable."""
        core = self.core
        if event.position > core.commit_position:
            core.install(event.position, event.position_generation, configuration)
        assert self.leader is not None
        core.send(self.leader, Accepted(core.promised, 0, 1, core.commit_position))

    # --- barriers ------------------------------------------------------------------------

    def forward_barrier(self, barrier_id: int) -> None:
        core = self.core
        if self.leader is None:
            core.effects.barriers_failed.append(barrier_id)
            return
        self.barriers.add(barrier_id, core.now_ms + core.timing.election_timeout_ms)
        core.send(self.leader, BarrierRequest(core.promised, self.asker, barrier_id))

    def receive_barrier_answer(self, message: BarrierAnswer) -> None:
        if message.asker != self.asker or not self.barriers.take(message.barrier_id):
            return
        if message.position < 0:
            self.core.effects.barriers_failed.append(message.barrier_id)
        else:
            self.core.effects.barriers_passed.append(BarrierPassed(message.barrier_id, message.position))

    def fail_barriers(self) -> None:
        self.core.effects.barriers_failed.extend(self.barriers.take_all())


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
