"""Raft, after Diego Ongaro's thesis (Consensus: Bridging Theory and Practice, Stanford 2014).

The protocol
------------
Time is cut into *terms* (the interface's word is generation).  In each, at most one server
*leads*: it was given the votes of a majority, and every server votes once a term, only for
a candidate whose log is at least as up to date as its own, and remembers it through
crashes.  The leader alone appends.  Its entries go to the others with the position and term
of the entry before them, so that a server takes them only where its own log agrees (log
matching).  An entry is *committed* when a majority holds it durably and it is of the
leader's own term; what came before it is then committed too.  Any majority that elects a
later leader contains a server that holds it and votes for no log without it, so a committed
entry is in every later leader's log (leader completeness), and all stores apply the same.

The package
-----------
Read it in this order:

- `messages`   what servers say to one another, and which numbers are nonsense
- `hard_state` term and vote, as bytes
- `core`       what a server is in every role; **durable before spoken** is decided in `Core.send`
- `follower`, `candidate`, `leader`   the roles
- `replica`    events to roles, and the changes of role

The classes extend those of `quorate.consensus`, where stands, once, what the protocols do alike:
heartbeats and barriers, what a leader believes of a peer, members, handing over (`stable_leader`),
the log (`log_core`), elections with pre-vote (`pre_vote`, with Multi-Paxos), and the way of an
event to a role (`base_replica`).

A role never changes the role: it tells `replica`, where the changes stand side by side.

Durability
----------
A message leaves when what it reveals is durable.  Every message reveals the sender's term,
a vote also the vote, an `Appended` also log entries; `Core.send` compares that with what
`Persisted` has reported and holds the message back for the ticket of this step if needed.
A leader's entries promise nothing about its own disk, so they go to the peers while it
writes them itself (thesis 10.2.1), and it counts itself only when its own write is durable.
A truncation takes back what an earlier, unfinished write would have vouched for.  Entries
are handed out to be applied when they are committed *and* durable here.

Where this differs from the thesis, and why
-------------------------------------------
1. *Remote procedure calls are pairs of one-way messages* that may be lost, repeated and
   reordered.  So answers say what they are about: acknowledgements carry the position, and
   never move a leader's knowledge back; rejections carry the position rejected.
2. *Pre-vote always* (section 9.6, there an option), and with it check-quorum: a leader that
   has not heard from a majority for an election timeout steps down, and no server answers
   a request for a vote in a later term while it leads or has heard from a leader within
   the minimum election timeout (section 4.2.3).  A server that lost touch so neither
   raises the term nor deposes a working leader.  A server whose term is ahead all the same
   (it won a pre-vote and was cut off) is freed by its answer to the leader's append.
3. *A closed connection is a hint.*  A killed process' connections close at once, so a
   follower that loses its leader's forgets the leader and asks for pre-votes within a
   quarter of the election timeout, instead of waiting for all of it.  This is safe because
   silence towards candidates protects only against disturbance: two leaders in one term
   are prevented by votes, and reads by rounds, neither of which looks at a clock.  Nor does
   a false hint disturb: a majority must have lost the same leader for the pre-vote to be
   granted.  The delay has a lower bound too, so that the others notice before they are
   asked.
4. *Rejections carry a hint* (the optimisation that the Raft paper sketches at the end of
   section 5.3, in etcd's form): the last position where the follower has a term that is
   not above the leader's, which the leader bounds by the follower's term in turn.  One
   round trip per run of conflicting terms at most.
5. *Heartbeats test the pipeline.*  A heartbeat is an empty append behind the last entry
   that was sent, so it is rejected where anything before it was lost, and a lost
   acknowledgement is repeated by its answer.  It is answered at once with what is durable
   by then: a slow disk holds acknowledgements of entries back, not signs of life.
   A peer that answers heartbeats may lose entries all the same, for one because its disk
   is full; what that may cost is argued in `consensus.progress`.
6. *`Commit` is a message of its own.*  The thesis lets followers wait for the next append
   to learn the commit position; their clients wait with them.  When there is nothing to
   send, a peer is told as soon as the leader knows that it holds what is committed.  It
   needs no answer, and no check of the log, since it never exceeds what the peer
   acknowledged in this term; the next append repeats it if it is lost.
7. *Barriers* (section 6.4) take the commit position when their round begins instead of when
   they arrive, which is later and so safe, and lets one round serve all that wait.  A
   follower's barrier goes to the leader and comes back with a position; an answer is
   matched by a number drawn when the replica was built, because barrier ids begin anew
   after a restart and an old answer would let a read see the past.
8. *Snapshots travel beside the protocol* (`SendSnapshot`, `SnapshotArrived`), in chunks on
   a connection of their own.  Meanwhile the peer gets heartbeats at position 0, where all
   logs agree.  A failed transfer is tried again when the peer next answers.
9. *Messages are checked before they count* (`messages.is_sane`).  This is no defence
   against a server that lies, only against bytes that no server of ours would send: they
   are ignored and raise nothing.  What contradicts committed entries is never taken over.
10. *Members change by joint consensus* (section 4.3), never by single servers (4.1), so that
    one rule covers every change, a replaced server among them.  A configuration is an entry
    that begins with a byte of its own; the latest in the log counts, committed or not, and
    the next waits until it is.  `ChangeMembers` takes one step a call: who is new becomes a
    learner first; once each new voter holds what was committed at the leader's last
    heartbeat, the joint configuration is appended; and the final one by whoever leads when
    that is committed.  Where the same servers vote, one entry does.
11. *Everybody is heard, members are counted.*  A server follows leaders and answers
    candidates that its log does not know (4.1: it may lag), learners vote when asked, and
    quorums look only at ids of the latest configuration.  Removed servers are kept from
    disturbing by pre-vote and the silence towards candidates (4.2.3).  An id counts only
    under the incarnation that the configuration names: for its own vote a server sees to
    that itself (`Core.is_voter`), for what it hears its node does (`Message.vouches`).
12. *A server outside of its latest configuration stands* while that may be uncommitted and
    the one before names it (4.2.2): the entry that removes it may be in its log alone, which
    then refuses every other candidate.  It does not count itself, as candidate or as leader.
    A leader that is removed commits the final configuration, then hands over.
13. *Transfer* (3.10) says `TimeoutNow` only to a voter whose acknowledgements reach the end
    of the leader's log, once more at each heartbeat.  The target's request for votes says
    so, which lifts the silence.  After an election timeout the leader takes proposals again.
    Where the target is found to leave meanwhile, another is asked: should both stand, votes
    are split as between any two candidates.
14. *Election timeouts follow round trips*: twenty of them, between two bounds.  The leader
    measures its rounds, smooths, and says what it found in each `Append`.
15. *Heartbeats are due at multiples of the interval*, so that those of all groups on a node
    share a frame.
"""

from __future__ import annotations

from quorate.consensus.raft.hard_state import generation_of, state_at
from quorate.consensus.raft.messages import AnyMessage
from quorate.consensus.raft.replica import RaftReplica
from quorate.consensus.replica import ConsensusProtocol

PROTOCOL = ConsensusProtocol(
    name="raft",
    message_type=AnyMessage,
    build=RaftReplica,
    generation_of=generation_of,
    describe_generation="term {}".format,
    leaves_holes=False,
    state_at=state_at,
)
