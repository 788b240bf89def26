"""What nodes say to one another, in a few words: those of the protocol that the group runs on."""

from __future__ import annotations

from collections.abc import Sequence

from quorate.consensus.paxos import messages as paxos
from quorate.consensus.paxos.ballots import owner_of, round_of
from quorate.consensus.raft import messages as raft
from quorate.consensus.records import Entry
from quorate.consensus.replica import Message
from quorate.consensus.zab import messages as zab
from quorate.node.wire import Forward


def message_label(message: Message) -> str:
    """A message between nodes."""
    match message:
        case raft.RaftMessage():
            return _raft_label(message)
        case paxos.PaxosMessage():
            return _paxos_label(message)
        case zab.ZabMessage():
            return _zab_label(message)
        case Forward():
            return f"Forward {len(message.batch.commands)} commands"
        case _:
            return type(message).__name__


def generation_label(protocol_name: str, generation: int) -> str:
    """A generation under the protocol's own name; of a void entry, which has none, "void"."""
    match protocol_name.partition(":")[0]:
        case "raft":
            return f"term {generation}"
        case "zab":
            return f"epoch {generation}"
        case "paxos":
            return f"ballot {_ballot(generation)}" if generation else "void"
        case _:
            return f"generation {generation}"


def _positions(entries: Sequence[Entry]) -> str:
    first, last = entries[0].position, entries[-1].position
    return f"{first}" if first == last else f"{first}..{last}"


# --- Raft ----------------------------------------------------------------------------------------


def _raft_label(message: raft.RaftMessage) -> str:
    term = f"term {message.term}"
    match message:
        case raft.Append(entries=()):
            return f"heartbeat {term} round {message.round}"
        case raft.Append():
            return f"Append {_positions(message.entries)} {term} commit {message.commit_position}"
        case raft.Appended():
            return f"Appended {message.match_position} {term}"
        case raft.AppendRejected():
            return f"AppendRejected {message.rejected_position} {term}"
        case raft.Commit():
            return f"Commit {message.commit_position} {term}"
        case raft.RequestVote():
            kind = "RequestPreVote" if message.pre_vote else "RequestVote"
            return f"{kind} {term} last {message.last_position}/{message.last_term}"
        case raft.Vote():
            kind = "PreVote" if message.pre_vote else "Vote"
            return f"{kind} {'yes' if message.granted else 'no'} {term}"
        case raft.BarrierRequest():
            return f"BarrierRequest {message.barrier_id}"
        case raft.BarrierAnswer():
            return f"BarrierAnswer {message.barrier_id} position {message.position}"
        case _:
            return type(message).__name__


# --- Multi-Paxos ---------------------------------------------------------------------------------


def _ballot(ballot: int) -> str:
    """As round.node."""
    return f"{round_of(ballot)}.{owner_of(ballot)}"


def _paxos_label(message: paxos.PaxosMessage) -> str:
    ballot = f"ballot {_ballot(message.ballot)}"
    match message:
        case paxos.PreVote():
            return f"PreVote {ballot}"
        case paxos.PreVoted():
            return f"PreVoted {'yes' if message.granted else 'no'} {ballot}"
        case paxos.Prepare():
            return f"Prepare {ballot} from {message.first_position}"
        case paxos.Promise():
            return f"Promise {ballot}, {len(message.accepted)} accepted, chosen {message.commit_position}"
        case paxos.Rejected():
            return f"Rejected {_ballot(message.rejected_ballot)}, promised {_ballot(message.ballot)}"
        case paxos.Accept(entries=()):
            return f"heartbeat {ballot} round {message.round}"
        case paxos.Accept():
            return f"Accept {_positions(message.entries)} {ballot} chosen {message.commit_position}"
        case paxos.Accepted():
            return f"Accepted {message.first_position}..{message.last_position} {ballot}"
        case paxos.Missing():
            return f"Missing {message.first_position} {ballot}"
        case paxos.Chosen():
            return f"Chosen {message.commit_position} {ballot}"
        case paxos.BarrierRequest():
            return f"BarrierRequest {message.barrier_id}"
        case paxos.BarrierAnswer():
            return f"BarrierAnswer {message.barrier_id} position {message.position}"
        case _:
            return f"{type(message).__name__} {ballot}"


# --- ZAB -----------------------------------------------------------------------------------------


def _zab_label(message: zab.ZabMessage) -> str:
    """In capitals: the paper's words, and ZooKeeper's."""
    epoch = f"epoch {message.epoch}"
    match message:
        case zab.Notification():
            vote = message.vote
            state = "" if message.looking else ", follows it"
            return f"vote for {vote.node} at {vote.current_epoch}, {vote.generation}/{vote.position}{state}"
        case zab.FollowerInfo():
            return f"CEPOCH {message.epoch}"
        case zab.NewEpoch():
            return f"NEWEPOCH {message.epoch}{' established' if message.established else ''}"
        case zab.AckEpoch():
            return f"ACK-E {message.epoch} with {message.current_epoch}, {message.generation}/{message.position}"
        case zab.AckLeader():
            return f"ACK-LD {message.position} {epoch}"
        case zab.Ack():
            return f"ACK {message.position} {epoch}"
        case zab.Commit():
            return f"COMMIT {message.commit_position} {epoch}"
        case zab.UpToDate():
            return f"UPTODATE {message.commit_position} {epoch}"
        case zab.OutOfSync():
            return f"OutOfSync {message.rejected_position} {epoch}, back to {message.hint_position}"
        case zab.BarrierRequest():
            return f"BarrierRequest {message.barrier_id}"
        case zab.BarrierAnswer():
            return f"BarrierAnswer {message.barrier_id} position {message.position}"
        case zab.FromLeader():
            return _zab_stream_label(message, epoch)
        case _:
            return f"{type(message).__name__} {epoch}"


def _zab_stream_label(message: zab.FromLeader, epoch: str) -> str:
    match message:
        case zab.Truncate():
            return f"TRUNC behind {message.previous_generation}/{message.previous_position} {epoch}"
        case zab.Diff():
            return f"DIFF {_positions(message.entries)} {epoch}"
        case zab.NewLeader():
            return f"NEWLEADER {_positions(message.entries)} {epoch}"
        case zab.Propose():
            return f"PROPOSE {_positions(message.entries)} {epoch} commit {message.commit_position}"
        case zab.Ping():
            return f"ping {epoch} round {message.round}"
        case _:
            return f"{type(message).__name__} {epoch}"
