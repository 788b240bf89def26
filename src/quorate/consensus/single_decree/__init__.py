"""Single-decree Paxos, after Leslie Lamport (Paxos Made Simple, ACM SIGACT News 32(4), 2001).

The protocol
------------
A collection of processes chooses *one* value among those that were proposed.  They are
asynchronous, stop and restart; messages may be lost, repeated, delayed and reordered, but
not forged.  Three kinds of agents, which may share a process (section 2):

- a *proposer* has a value.  It gives its proposal a number, the *ballot*, that no other
  proposal has.  Phase 1: it sends `Prepare`, and each acceptor that answers promises to
  accept nothing with a lower number any more, and tells of the proposal with the highest
  number that it has accepted.  Phase 2: with promises from a majority it sends `Accept`
  with the value of the highest-numbered proposal among the answers, or with its own value
  where they told of none.
- an *acceptor* accepts a proposal unless it has promised not to.
- a *learner* hears what acceptors accepted.  A value is *chosen* when a majority of
  acceptors have accepted one and the same proposal.

(A *learner* is the paper's here.  In the other packages the word is for a member that gets
entries and has no vote.)

Once a proposal with value v is chosen, each higher-numbered one has value v (P2b): its
proposer heard from a majority, which shares an acceptor with the one that chose v, and the
highest-numbered proposal that was told of has, by induction, value v too.  The promise
keeps that true of acceptances that are still to come.  Nothing in this argument looks at a
clock.  Only progress does: two proposers that keep overtaking each other never get a value
chosen (section 2.4), so whoever was overtaken waits a random time, longer each time.

The package
-----------
Read it in this order:

- `messages`    what the agents say to one another; ballots and proposals; **durable before spoken**
- `hard_state`  what an acceptor and a proposer must never forget, as bytes
- `acceptor`, `proposer`, `learner`   the agents, one class each

They are values without I/O, clock or randomness of their own, as everything in
`quorate.consensus`, but no replica of a log: there is one decision, and nothing to apply.
A driver hands each message to the agent that it is for (`messages` says which), calls
`Proposer.tick` when its deadline has passed, carries out the `Effects`, and calls
`Proposer.stop` once the learner beside it has learned.  `docs/protocols/single_decree_paxos.md`
shows runs.

Durability
----------
An acceptor remembers its promise and the proposal that it accepted, a proposer the round of
its latest ballot (section 2.5).  `Effects.state` is made durable before `Effects.messages`
leave.  A learner remembers nothing: whoever asks again has a proposer issue a proposal.

Where this differs from the paper, and why
------------------------------------------
1. *Numbers are pairs (round, node)*, compared in this order, so that different proposers
   have different numbers without having to agree on who uses which.
2. *A refusal is answered.*  The paper's acceptor may ignore what it has promised not to
   accept, and notes that telling the proposer saves time (section 2.2, end).  `Rejected`
   carries the promise, so that the next round can be higher than it.
3. *Accepting is also a promise.*  The paper's acceptor that accepts a proposal which it had
   not been asked to prepare may still accept lower-numbered ones, and must remember the
   highest.  Ours refuses them, so that what it accepted last is the highest.
4. *A repeated request is answered again.*  The paper answers `Prepare` when its number is
   greater than every one before; ours also when it is equal.  Since a ballot has one
   proposer and one value this says nothing new, and a message that the network repeats does
   not look like a rival.
5. *`Accept` goes to all acceptors*, not only to those that promised (section 2.2 lets the
   proposer choose), so that the loss of one answer costs nothing.
6. *Nothing is sent twice.*  A ballot without an answer in time is given up for a higher one,
   as if it had been overtaken.
7. *Every acceptor tells every learner* (the first way of section 2.3).  There is no
   distinguished learner, and no distinguished proposer: see `timeout_ms` and the back-off in
   `proposer`.
"""

from __future__ import annotations

from quorate.consensus.single_decree.acceptor import Acceptor
from quorate.consensus.single_decree.learner import Learner
from quorate.consensus.single_decree.proposer import Proposer

__all__ = ["Acceptor", "Learner", "Proposer"]
