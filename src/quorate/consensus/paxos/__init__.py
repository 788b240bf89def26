"""Multi-Paxos, after Paxos Made Simple (Lamport, 2001) and Paxos Made Live (Chandra, Griesemer, Redstone, PODC 2007).

The protocol
------------
A log is a row of *slots* (the papers' instances; the interface's word is position), and each slot
is decided by Paxos on its own.  A *ballot* is a pair (round, node), and with it the right to
propose, which its node alone has (the interface's word is generation).  *Phase 1*: a candidate asks
acceptors to *promise* its ballot, that is to accept nothing under lower ones any more, and to tell
what they accepted so far.  *Phase 2*: once a quorum has promised, it proposes in each slot the
value that was told with the highest ballot, and in a slot of which nobody told any, what it likes.
A value that a quorum has accepted under one ballot is *chosen*.  Every quorum of phase 1 meets
every quorum of phase 2, so whoever proposes later was told of what was chosen, or of what may be,
and proposes the same: a chosen value never changes.

The ballot holds for all slots at once (Paxos Made Simple, section 3).  So a stable leader goes
through phase 1 once, for every slot that is not known to be chosen, and then only through phase 2,
in many slots at a time; slots are accepted and chosen in any order, and applied in order.

The package
-----------
Read it in this order:

- `ballots`    pairs as integers
- `messages`   what servers say to one another, and which numbers are nonsense
- `hard_state` the promise, and under which ballots was accepted, as bytes
- `slots`      the tail of the log in memory, with holes
- `core`       what a server is in every role: acceptor and learner; **durable before spoken** is decided in `Core.send`
- `follower`, `candidate`, `leader`   the roles: a candidate is the papers' proposer in phase 1, a leader in phase 2
- `progress`   what a leader believes of one peer's slots
- `replica`    events to roles, and the changes of role

The classes extend those of `quorate.consensus`, where stands, once, what the protocols do alike:
heartbeats and barriers, how much a leader sends to a peer, members, handing over (`stable_leader`),
elections with pre-vote (`pre_vote`, with Raft), and the way of an event to a role (`base_replica`).

A role never changes the role: it tells `replica`, where the changes stand side by side.

Values, and the order of one leader's proposals
-----------------------------------------------
An entry's generation is the ballot under which its value was *first* proposed.  With its position
that names the value: a leader that finds it in phase 1 and proposes it again leaves it as it is,
and every replica hands it out alike.  The ballot under which it was *accepted* is another number,
which is mostly the same; `hard_state` keeps it where it is not.

Slots are decided one by one, so a leader's second proposal may be chosen where its first was lost,
though it was made in the belief that it comes after it (Junqueira, Reed, Serafini: Zab, DSN 2011,
section 2).  So each entry names its predecessor from the same leadership: a leader proposes in
consecutive slots, from its opening entry on, so the predecessor of slot p is what the same ballot
proposed in p - 1, and needs no field.  An entry whose predecessor was not chosen, or is void
itself, is *void*: every replica finds so alike, from what is chosen, and hands an empty entry out,
with generation 0.  A leader's client hears of no void entry as done: a leader applies in order, so
it has seen the predecessor chosen before.

Durability
----------
A message leaves when what it reveals is durable.  Every message reveals the sender's promise (a
candidate's its own ballot, which it must not use twice), an `Accepted` also entries; `Core.send`
compares that with what `Persisted` has reported and holds the message back for the ticket of this
step if needed.  A leader's proposals promise nothing about its own disk, so they go out while it
writes them itself, and it counts itself only when its own write is durable. The hard state is
written before the entries of its step, and names entries by position and generation, so that
whatever a crash leaves of a step is a state in which the server could have been. It also says
through where the log is known to be chosen, as of a while ago, so that a restart need not learn all
of that again.  Entries are handed out to be applied when they are chosen *and* durable here.

Where this differs from the papers, and why
-------------------------------------------
1. *Acceptors, learners and proposers are one server*, and messages concern many slots.  An
    `Accepted` goes to the leader alone; it counts, and tells the others in what it sends next, or
    with `Chosen` where there is nothing to send.  A follower believes it as far as it accepted,
    without a gap, under that leader's ballot: what a leader proposes in a slot is what is chosen
    there.
2. *Catching up is accepting.*  What a server missed its leader proposes to it again under its own
    ballot, also where that is chosen long since, which is safe by the very argument above.  There
    is one way in which values come to a server, and one in which it learns that they are chosen;
    what is gone from memory comes as a snapshot.
3. *A candidate that is too far behind is refused*, where an acceptor does not hold any more what it
    would have to tell.  Somebody in every quorum knows most, and whoever does is refused by nobody.
4. *A promise may come in parts*, since what it tells is bounded by memory only.  Of slots that its
    sender knows to be chosen it need not remember the ballot: their values hold against any other.
5. *Pre-vote always*, and with it check-quorum (both from Raft, where `quorate.consensus.raft` has
    the reasons): a candidate first asks whether it would be promised its ballot; a leader steps
    down when no quorum was heard from for an election timeout; no server answers a candidate while
    it leads or has heard from a leader within that time. (Paxos Made Live has leases instead, which
    rest on clocks.)  A server whose ballot is ahead all the same is freed by its `Rejected`.
6. *A closed connection is a hint*, as in Raft: who follows the peer that is gone stands within a
    quarter of the election timeout.
7. *Losses are reported.*  A leader says in each `Accept` how far it has sent; who lacks a slot up
    to there says `Missing`. Slots after a gap are kept, and not sent again once they are
    acknowledged.  A heartbeat is an `Accept` without entries, and is answered at once with what is
    durable by then: a slow disk holds acknowledgements back, not signs of life.
8. *Barriers* ride on heartbeat rounds, which a phase 2 quorum must answer: it meets every phase 1
    quorum, so nobody else was elected when the round began.  They take the commit position of then.
    A follower's barrier goes to the leader and comes back with a position; an answer is matched by
    a number drawn when the replica was built.
9. *A leader that starts writes an opening entry*, behind what it found and the no-ops that fill the
    gaps.  It is ready when that is handed out.
10. *Members change by joint consensus, behind a drained window.*  The papers let a configuration
    count from a fixed number of slots later.  Here it counts from its own slot on, and from when it
    is accepted, as Raft's do, so that the shared steps (learners first, then both sets jointly,
    then the final one) and their arguments hold: any two configurations that may count at once have
    quorums that meet. For that nobody may count by a configuration without holding what was chosen
    before it.  So a leader proposes one only when all before it is chosen (proposals wait
    meanwhile), and an acceptor takes it only behind slots that are chosen or accepted under the
    same ballot. Two things follow: no configuration is ever void; and a log that holds one, read
    back after a crash, is chosen up to there. A candidate wins with promises of a quorum of the
    latest configuration that it has *or is told of*.
11. *Flexible quorums* (Howard, Malkhi, Spiegelman, OPODIS 2016): phase 1 and phase 2 ask for a
    quorum separately, and `flexible` makes a protocol with sizes of one's own.  They are those of
    one set of voters, so changes of members are refused.
12. *Everybody is heard, members are counted*, under the incarnation that the configuration names; a
    server outside of its latest configuration stands while that may not be chosen; a removed leader
    hands over; a transfer says `TimeoutNow` to a voter that acknowledged all that was proposed;
    election timeouts follow round trips; heartbeats are due at multiples of the interval; snapshots
    travel beside the protocol; messages are checked before they count.  All this is as in
    `quorate.consensus.raft`.
13. *Ballots are integers*, with the node in the low nine decimal digits: 4000000002 is node 2's ballot
    of round 4.
"""

from __future__ import annotations

from dataclasses import replace

from quorate.consensus.core import QuorumOf
from quorate.consensus.membership import Configuration
from quorate.consensus.paxos.ballots import describe
from quorate.consensus.paxos.hard_state import generation_of, state_at
from quorate.consensus.paxos.messages import AnyMessage
from quorate.consensus.paxos.replica import PaxosReplica
from quorate.consensus.records import Recovered
from quorate.consensus.replica import ConsensusProtocol, RandomSource, Replica, ReplicaConfig
from quorate.quorums import Flexible, Nobody, PhasedQuorum

PROTOCOL = ConsensusProtocol(
    name="paxos",
    message_type=AnyMessage,
    build=PaxosReplica,
    generation_of=generation_of,
    describe_generation=describe,
    leaves_holes=True,
    state_at=state_at,
)


def quorums_of_size(phase_1_size: int, phase_2_size: int) -> QuorumOf:
    """Of any such number of voters, instead of majorities."""

    def quorum_of(configuration: Configuration) -> PhasedQuorum:
        voters = tuple(configuration.voters)
        return Flexible(voters, phase_1_size, phase_2_size) if voters else Nobody()

    return quorum_of


def flexible(phase_1_size: int, phase_2_size: int) -> ConsensusProtocol:
    """Multi-Paxos with quorums of these sizes: small ones of phase 2 for fast writes, then large ones of phase 1.

    Building a replica raises ValueError (`quorums.Flexible`) where quorums of the two phases need not meet.
    """
    quorum_of = quorums_of_size(phase_1_size, phase_2_size)

    def build(config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> Replica:
        return PaxosReplica(config, recovered, random, now_ms, quorum_of)

    return replace(PROTOCOL, build=build)
