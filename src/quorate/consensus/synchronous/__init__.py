"""Consensus in synchronous rounds: FloodSet, after Nancy Lynch (Distributed Algorithms, 1996, section 6.2).

The model
---------
All processes run in lockstep.  In each *round* every process sends a message to every other
one, then hears all that was sent to it in this round.  No message is lost, and none is late:
who is not heard of in a round has stopped.  At most *f* processes stop.  One that stops in a
round may have reached some of the others with its message, and not the rest.

The protocol
------------
Each process begins with a value.  It keeps the set of all values that it has seen, at first
its own.  In each of f + 1 rounds it sends the set, and adds the sets that it hears.  After
the last round it decides by a rule that depends on the set alone.

*Agreement*: nobody who decides decides otherwise than another.  There are f + 1 rounds and
at most f processes that stop, so in at least one round nobody does.  After that round all
have the same set, and nobody can bring anything new any more.

*Validity*: the smallest value seen is somebody's.  *Termination*: after f + 1 rounds.

f rounds are not enough for any protocol, as soon as there are two processes more than may
stop (section 6.7; shown first by Fischer and Lynch, 1982, for processes that lie).  For
FloodSet the run is plain: one process after another stops, each of them in its round
reaching nobody but the next with what it has just learned.

What it costs to believe in rounds
----------------------------------
A real network has no bound on delay, only habits.  A process that waits for one round's
messages must stop waiting at some time, and to it a late message is one that was not sent;
but the sender is alive, counts itself in, and decides.  So a late message costs what a
crash costs: with l messages late and c processes stopped, l + c <= f, some round is still
without either and all agree; one more, and two processes may decide differently.  `late`
has the smallest such run, and nothing in it tells anybody that it happened.

Without any bound on delay no deterministic protocol always decides (Fischer, Lynch and
Paterson, 1985).  What the other protocols of `quorate.consensus` make of that: agreement
never depends on time, since a quorum's word stays true however late it comes; only
progress does.

The package
-----------
Read it in this order:

- `rounds`    runs processes round by round, with a schedule of crashes and late messages
- `floodset`  the process, and a run of it
- `late`      one late message

Where this differs from the book, and why
-----------------------------------------
1. *The smallest value is decided*, where the book takes a default value if the set has more
   than one.  So the decision is always a value that somebody had (the book's stronger
   validity, for values that have an order).
2. *The runner knows late messages*, which the model excludes: to show why it is not ours.
"""
