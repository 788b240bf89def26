"""Two-phase commit with presumed abort, sans-I/O, over participants that lock.

After Mohan, Lindsay and Obermarck (Transaction Management in the R* Distributed Database
Management System, TODS 11(4), 1986) for presumed abort, Bernstein, Hadzilacos and Goodman
(Concurrency Control and Recovery in Database Systems, 1987, chapters 3 and 7) for strict
two-phase locking and cooperative termination, Gray and Lamport (Consensus on Transaction
Commit, TODS 31(1), 2006) for why the parts should be groups.

The protocol
------------
A transaction is one operation at each of several *participants*, and happens at all of them
or at none.  The *coordinator* asks each to prepare.  A participant locks what its operation
reads and writes, makes its promise durable (writes, locks, coordinator, peers) and votes
yes; or it votes no and keeps nothing.  When every vote is yes the coordinator makes the
commit durable, which is the decision, and tells everybody; participants apply the writes,
release the locks and acknowledge; when all have, the coordinator forgets.  One no, or one
vote that does not come in time, and it is aborted.

*All or nothing*: a commit needs the yes of everybody, a yes outlives crashes, and whoever
said it does not decide alone.  *Serializable*: all locks of a committed transaction were
held, everywhere, at the moment when the last vote was given, so transactions can be put in
the order of those moments.  *Deadlock* there is none, because nobody waits for a lock.

*Presumed abort*: of an aborted transaction the coordinator writes nothing, and a
transaction that it does not know is aborted.  This is sound because a commit is forgotten
only when all have acknowledged it, each after making it durable.

*In doubt* is a participant between its yes and the decision.  It asks the coordinator and
its peers, again and again.  A peer that knows the outcome tells it; one that has not
promised makes durable that it never will, and tells that it is aborted; one that is in
doubt itself is silent.  If all are and the coordinator is gone they *block*, locks and all,
until it is back: that is the nature of two-phase commit, and no timeout can mend it.

A process or a group
--------------------
Coordinator and participant are deterministic machines whose durable half is a fold of
records (`states`).  What a record is written to makes the difference:

- **One process**: encoded records go to its disk; *durable* means synced.  After a crash the
  state is folded from the disk, and nobody does the work meanwhile: participants block.
- **A replicated group** (Raft, Multi-Paxos, ZAB): each record is a command of the group's
  log; *durable* means applied, and taken by the fold.  Every replica folds.  Whoever comes
  to lead begins a new life, `Coordinator(config, copy of the state, now_ms)`, under the same
  address, and in doubt nobody remains for longer than an election takes.

A deposed leader may not know that it is one.  Each life opens with a record of its own,
behind which the records of earlier lives are void, and nothing is said that rests on a record
which was not taken (`Fence`, `Core.send`).  A life whose record is void is over: drop it.
The only word of a coordinator that rests on no record is "aborted", and it does not say that
of numbers that a later life gave out.  The only such words of a participant are its no and
its question, which harm nobody.

The package
-----------
Read it in this order:

- `messages`    what they say to one another
- `records`     what they make durable
- `effects`     events in, effects out
- `states`      what records come to; which life may write them
- `core`        tickets; **durable before spoken** is decided in `Core.send`
- `coordinator`, `participant`   the roles
- `resource`, `locks`   what a participant guards; `table` is a small one in memory

Where this differs from the literature, and why
-----------------------------------------------
1. *Nobody waits for a lock*: a conflict is a no, and the client tries again.  Waiting would
   need deadlock detection across participants; and an order of waiters that is the same on
   all replicas.
2. *A participant that only reads does not leave early* (R*'s read-only optimisation).  There
   all work is done before the first Prepare, so every lock is held by then.  Here Prepare
   itself takes the locks: one that was released before the others have theirs breaks the
   two phases of locking, and a reader could see half of another transaction.
3. *Transactions are numbered by the coordinator*, generation << 32 | counter, so that an id
   is never used twice, a duplicate is known as one without remembering it, and late messages
   can be told from news.  Each Prepare says below which number all is finished; until then a
   participant remembers how a transaction ended, so that a late repetition of Prepare is not
   carried out again.
4. *A peer that has not promised aborts by itself when it is asked* (there an option).  So a
   vote that is lost together with the coordinator blocks nobody.
5. *Locks are recovered from the promise*: the record names keys read and written.
6. *Aborts are recorded by participants, but nobody waits for it*: should the record be lost,
   they are in doubt again, and are told again.
7. *The outcome is told to the client once.*  If it is lost, or the coordinator is, the client
   knows as little as with any lost answer, and a coordinator that has forgotten does not
   know either.  An operation that must happen once makes a key that must not exist.
"""

from __future__ import annotations

from quorate.transactions.coordinator import Coordinator, CoordinatorConfig
from quorate.transactions.participant import Participant, ParticipantConfig
from quorate.transactions.states import CoordinatorState, ParticipantState

__all__ = [
    "Coordinator",
    "CoordinatorConfig",
    "CoordinatorState",
    "Participant",
    "ParticipantConfig",
    "ParticipantState",
]
