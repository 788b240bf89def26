"""ZAB, after Junqueira, Reed and Serafini (Zab: High-performance broadcast for primary-backup systems, DSN 2011).

The protocol
------------
Time is cut into *epochs* (the interface's word is generation), each with one *leader* at
most.  Who may become it is found out in an election that binds nobody: the best history
wins, compared as (current epoch, zxid, id).  Then come the paper's three phases:

1. *Discovery.*  Followers tell the prospective leader which epoch they have accepted
   (CEPOCH).  Having heard a quorum it proposes a later one (NEWEPOCH).  Whoever accepts it
   (ACK-E) acknowledges nothing in earlier epochs any more, and says how good its history
   is.  When a quorum accepted, and none of it has a better history than the leader, then
   the leader's has everything that can ever have been committed.
2. *Synchronisation.*  Each follower takes over that *initial history*: what it lacks is
   sent (DIFF), what the leader has not is cut off (TRUNC), and where the entries are gone
   it gets a snapshot (SNAP).  NEWLEADER ends it.  Who has accepted the initial history as
   a whole makes the epoch its current one and says so (ACK-LD); with a quorum of these the
   initial history is committed, and followers are told (UPTODATE).
3. *Broadcast.*  The leader proposes entries (PROPOSE), a quorum acknowledges them (ACK),
   and they are committed in order (COMMIT).

So all deliver one sequence of entries, epoch by epoch and in each as its leader proposed
them, and no leader proposes before it has what earlier ones got committed: *primary
order*, which Paxos does not give by itself (paper, section 2).

zxids.  ZooKeeper writes a zxid as epoch << 32 | counter, counting from 0 in each epoch.
Here an entry has a generation, its epoch, and a position, which counts over the whole log
without gaps.  Each epoch's first entry is at one position in every log that has it, so the
counter is the distance from there, and pairs (generation, position) compare exactly as
zxids do.  A position has 62 bits: no counter overflows, and no epoch need end for that.
(The zxids that ZooKeeper's clients see are counted by the store.)

The package
-----------
Read it in this order:

- `messages`   what servers say to one another, and which numbers are nonsense
- `hard_state` accepted epoch, to whom it is promised, and current epoch, as bytes
- `core`       what a server is in every role; **durable before spoken** is decided in `Core.send`
- `follower`, `looking`, `discovery`, `leader`   the roles
- `replica`    events to roles, and the changes of role

The classes extend those of `quorate.consensus`, where stands, once, what the protocols do alike:
heartbeats and barriers, what a leader believes of a peer, members, handing over (`stable_leader`),
the log (`log_core`, with Raft), and the way of an event to a role (`base_replica`).

A role never changes the role: it tells `replica`, where the changes stand side by side.

Durability
----------
A message leaves when what it reveals is durable.  Every message reveals the accepted
epoch, an ACK and an ACK-LD also log entries, an ACK-E all of the log; `Core.send` compares
that with what `Persisted` has reported and holds the message back for the ticket of this
step if needed.  A leader's entries promise nothing about its own disk, so they go to the
followers while it writes them itself, and it counts itself only when its own write is
durable.  A truncation takes back what an earlier, unfinished write would have vouched for.
Entries are handed out to be applied when they are committed *and* durable here.

Of one step's records a crash may keep the first and lose the rest.  So the current epoch is
saved behind the history that it vouches for, never before, and ACK-LD waits for both
(ZooKeeper had these the other way round: ZOOKEEPER-4643 and 4646); and a log that ends with an
epoch's entries counts as of that epoch.

Where this differs from the paper, and why
-------------------------------------------
1. *Messages instead of connections.*  They may be lost, repeated and reordered, where the
   paper's channels are FIFO.  So every DIFF, NEWLEADER and PROPOSE names the zxid before
   its entries, a follower takes them only where its history agrees, and else answers with
   `OutOfSync`; acknowledgements say how far they reach.  With each epoch's first entry at
   one place, one agreeing zxid means that all before it agrees.
2. *The leader has the best history already*, as in ZooKeeper; in the paper it fetches the
   best follower's.  The election finds such a server, and durable state decides: ACK-E from
   a voter with a better history does not count.
3. *The election* is ZooKeeper's fast leader election in short: rounds, votes that go over to
   better ones, a quorum of equal votes.  It is what pre-vote is to Raft: looking changes
   nobody's state, and who follows a living leader takes no part, so a server that lost
   touch neither raises the epoch nor deposes a leader; the leader answers it, and it comes
   back.  So nothing need be waited for either: a server whose leader's connection closed
   looks at once (`PeerLost`), and a false hint costs a round trip.  Votes are passed on, so
   where links are cut a server may be the best of all and out of touch with its voters:
   who found no quorum stands aside for the next elections (`Vote.aside`), behind all
   others, or those that reach a quorum would never be found.
4. *Check-quorum*: a leader that has not heard from a quorum for an election timeout looks
   again.  A server whose accepted epoch is ahead of the leader's (it accepted that of a
   discovery that failed) could not come back: its CEPOCH makes the leader look again, and
   the next epoch is beyond all that were seen.
5. *The accepted epoch is promised to one leader*, whose name is saved with it: NEWEPOCH may
   come twice and is answered twice, but two leaders that find the same number get no
   quorum both.  Who heard that a leader is established in the accepted epoch goes over to
   it, since then nobody else can be.
6. *The prospective leader's NEWEPOCH waits for its own disk*: it might find the same number
   again after a crash, and lead twice in one epoch.
7. *NEWLEADER is an entry*: the opening entry of the epoch, at the place of ZooKeeper's zxid
   epoch << 32.  Entries are counted from it on alone, so nothing is committed before the
   synchronisation of a quorum ended, and whoever holds it holds the initial history.  So
   NEWLEADER, lost, is repeated like any entry, and after it proposals follow at once.
8. *TRUNC* is said where ACK-E or `OutOfSync` shows that a history goes beyond the leader's.
   It may be lost or late, so a DIFF that finds another generation in its place cuts the log
   there itself, and a TRUNC that comes after the history was accepted is ignored.
9. *DIFF is what the leader's memory holds, SNAP travels beside the protocol* (`SendSnapshot`,
   `SnapshotArrived`), in chunks on a connection of its own.  Meanwhile the follower gets
   pings at position 0, where all histories agree.  A failed transfer is tried again when
   the peer next answers.  There is no fuzzy snapshot: one is of exactly one position.
10. *Pings test the pipeline*: one names the last entry that was sent, so it is answered with
    `OutOfSync` where anything before it was lost, and else with what is durable by then: a
    slow disk holds acknowledgements of entries back, not signs of life.
11. *Barriers* ride on rounds of pings, where ZooKeeper's `sync` goes through the log.  Whoever
    answers in an epoch has accepted no later one; so when a quorum has answered a round
    that began after the barrier was asked, in an epoch whose opening entry is committed, no
    later leader had got anything committed when it was asked.  A follower's barrier goes to the leader
    and comes back with a position, matched by a number drawn when the replica was built.
12. *Members change by joint configurations* that are entries of the log, by the same steps as
    in `raft`.  As in Shraer et al. (Dynamic reconfiguration of primary/backup clusters,
    ATC 2012) the old quorum and the new one must both have the change before the new one
    decides alone, proposals go on meanwhile, and a leader that leaves hands over.  There
    the change is one entry, which activates itself; here two, so that one rule counts
    quorums at every position.  The latest configuration in the log counts, committed or not.
13. *Everybody is heard, members are counted.*  A server follows leaders that its log does not
    know (it may lag), votes though its log calls it a learner, and quorums look only at ids of the
    latest configuration.  An id counts only under the incarnation that the configuration
    names: for its own vote a server sees to that itself (`Core.is_voter`), for what it hears
    its node does (`Message.vouches`).  A server outside of its latest configuration may be
    elected while that may be uncommitted and the one before names it: the entry that
    removes it may be in its log alone.
14. *Learners* are ZooKeeper's observers.  They do not look for a leader; its pings find them.
15. *Transfer*: the leader names its successor (`HandOver`) once that has acknowledged the end
    of its history, and takes no proposals meanwhile.  The successor begins a discovery and
    calls the followers (`TakeOver`), the former leader among them, so there is no
    election.  After an election timeout the leader takes proposals again.
16. *Messages are checked before they count* (`messages.is_sane`).  This is no defence
    against a server that lies, only against bytes that no server of ours would send: they
    are ignored and raise nothing.  What contradicts committed entries is never taken over.
17. *Election timeouts follow round trips*, and *heartbeats are due at multiples of the
    interval*, as in `raft`.

What ZooKeeper's specification notes leave open, and what holds here
---------------------------------------------------------------------
(zookeeper-specifications/protocol-spec/issues.md in its repository; it found them by model checking.)

1. *To whom is PROPOSE sent while a follower synchronises?*  Sent only to those that said
   ACK-LD, what is proposed between NEWLEADER and ACK-LD is lost to the follower; sent to all
   that said ACK-E it may overtake.  Here a follower's entries are one sequence, initial
   history, NEWLEADER and proposals, sent in that order from one place
   (`Progress.next_position`), so the set in question does not arise.
2. *A PROPOSE that the follower has already*, because NEWLEADER's history contained it: a
   repetition, of which only what is new is taken over.
3. *Which zxid has the COMMIT that answers ACK-LD?*  That of ACK-LD would leave out what was
   committed in between.  `UpToDate`, like every COMMIT, names the latest that is committed
   and that the follower is known to hold.
"""

from __future__ import annotations

from quorate.consensus.replica import ConsensusProtocol
from quorate.consensus.zab.hard_state import generation_of, state_at
from quorate.consensus.zab.messages import AnyMessage
from quorate.consensus.zab.replica import ZabReplica

PROTOCOL = ConsensusProtocol(
    name="zab",
    message_type=AnyMessage,
    build=ZabReplica,
    generation_of=generation_of,
    describe_generation="epoch {}".format,
    leaves_holes=False,
    state_at=state_at,
)
