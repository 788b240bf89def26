"""What a message between nodes says of its sender's disk, protocol by protocol: `durability` holds it against that.

    Raft    the term of every message, but for pre-votes, which speak of a term nobody is in; the vote that a granted
            `Vote` gives, and the candidate's own behind its `RequestVote`; every entry through the position that
            an `Appended` vouches for
    ZAB     the accepted epoch of every message; to whom it is promised, in an `AckEpoch`, and in one's own `NewEpoch`;
            every entry through the position of an `Ack`, and the current epoch too in an `AckLeader`
    Paxos   the promise of the ballot of every message, but for pre-votes; every entry that an `Accepted` names

A leader's entries may leave before its own sync: it counts itself only after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from quorate.consensus.paxos import messages as paxos
from quorate.consensus.paxos.hard_state import decode_hard_state as paxos_state
from quorate.consensus.raft import messages as raft
from quorate.consensus.raft.hard_state import decode_hard_state as raft_state
from quorate.consensus.replica import Message
from quorate.consensus.zab import messages as zab
from quorate.consensus.zab.hard_state import decode_hard_state as zab_state

KINDS: Mapping[str, tuple[str, ...]] = {
    "raft": ("votes", "requests for votes", "acknowledgements"),
    "zab": ("epochs accepted", "epochs proposed", "acknowledgements"),
    "paxos": ("promises", "ballots of candidates", "acknowledgements"),
}
"""Of which a trace must show some, or it says little."""


@dataclass(slots=True)
class Disk:
    """What one node's disk holds of one group, durably."""

    state: bytes | None = None
    entries: dict[int, int] = field(default_factory=dict)
    """Position -> generation."""
    compacted: int = 0

    def holds(self, positions: Sequence[int]) -> bool:
        return all(at in self.entries for at in positions if at > self.compacted)

    def holds_through(self, position: int) -> bool:
        return self.holds(range(self.compacted + 1, position + 1))


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the sender's disk must hold."""

    holds: bool
    but: str
    """What it holds, where not."""
    kind: str = ""
    """One of KINDS, or another name to be counted."""


def claims(message: Message, sender: int, to_node: int, disk: Disk) -> Iterator[Claim]:
    """Of a message of any protocol; none where it is of the nodes' own."""
    if isinstance(message, raft.RaftMessage):
        yield from _raft(message, to_node, disk)
    elif isinstance(message, zab.ZabMessage):
        yield from _zab(message, sender, to_node, disk)
    elif isinstance(message, paxos.PaxosMessage):
        yield from _paxos(message, disk)


def _raft(message: raft.RaftMessage, to_node: int, disk: Disk) -> Iterator[Claim]:
    term, vote = raft_state(disk.state)
    if isinstance(message, raft.RequestVote | raft.Vote) and message.pre_vote:
        return
    yield Claim(term >= message.term, f"its term is durable through {term}")
    if isinstance(message, raft.Vote) and message.granted:
        held = term > message.term or (term, vote) == (message.term, to_node)
        yield Claim(held, f"durable is a vote for {vote} in term {term}", "votes")
    elif isinstance(message, raft.RequestVote):
        yield Claim(vote is not None, "no own vote is durable", "requests for votes")
    elif isinstance(message, raft.Appended):
        yield _through(message.match_position, disk)


def _zab(message: zab.ZabMessage, sender: int, to_node: int, disk: Disk) -> Iterator[Claim]:
    state = zab_state(disk.state)
    yield Claim(state.accepted_epoch >= message.epoch, f"accepted durably is epoch {state.accepted_epoch}")
    promised_to = {zab.AckEpoch: to_node, zab.NewEpoch: sender}.get(type(message))
    if promised_to is not None:
        held = state.accepted_epoch > message.epoch or state.promised_to == promised_to
        kind = "epochs accepted" if isinstance(message, zab.AckEpoch) else "epochs proposed"
        yield Claim(held, f"its epoch is promised durably to {state.promised_to}", kind)
    elif isinstance(message, zab.Ack):
        yield _through(message.position, disk)
        if isinstance(message, zab.AckLeader):
            held = state.current_epoch >= message.epoch
            yield Claim(held, f"its current epoch is durably {state.current_epoch}", "histories accepted")


def _paxos(message: paxos.PaxosMessage, disk: Disk) -> Iterator[Claim]:
    if isinstance(message, paxos.PreVote | paxos.PreVoted):
        return
    promised = paxos_state(disk.state).promised
    kind = {paxos.Promise: "promises", paxos.Prepare: "ballots of candidates"}.get(type(message), "")
    yield Claim(promised >= message.ballot, f"promised durably is ballot {promised}", kind)
    if isinstance(message, paxos.Accepted):
        positions = range(message.first_position, message.last_position + 1)
        missing = [at for at in positions if not disk.holds([at])]
        yield Claim(not missing, f"not durable are {missing[:5]}", "acknowledgements")


def _through(position: int, disk: Disk) -> Claim:
    through = max(disk.entries, default=0)
    return Claim(disk.holds_through(position), f"durable through {through}", "acknowledgements")
