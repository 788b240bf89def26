"""Sans-I/O consensus: replicas are values that turn events into effects.

Nothing here does I/O, logs, reads a clock or draws randomness of its own.
Three protocols stand behind one interface, `replica`.  Each has a package that reads beside
its paper and holds what is its own; what they do alike stands here, once.  `protocols` lists
them by name.

- `replica`, `records`   the interface: events, effects, and what is to be made durable
- `membership`           a configuration: voters, learners, and both sets of voters on the way to another
- `configurations`       which one holds where in a log, and the steps from one to the next

What is common to all three, for their classes to extend.  Roles are told apart at every step, so
these are plain classes, not `abc.ABC`, whose `isinstance` is slow.

- `core`           what a server is in every role: positions, tickets, configurations, snapshots
- `base_follower`  waits for its leader, forwards barriers to it
- `stable_leader`  heartbeats, barriers, check-quorum, members, handing over
- `base_replica`   events to roles, status, and who leads

What is common to two of them:

- `log_core`, `log`   a log without holes (Raft, ZAB)
- `pre_vote`          elections with pre-vote (Raft, Multi-Paxos)

And what these hold:

- `progress`   what a leader believes of one peer
- `barriers`   heartbeat rounds, and linearizable reads that ride on them
- `timing`     election timeouts that follow round trips
- `sanity`     which numbers off the network are nonsense

A protocol's package has the same modules in the same order: `messages`, `hard_state`, `core`,
`follower`, the roles of its election, `leader`, `replica`.

Beside them, to read and to learn from: `single_decree`, `synchronous`.
"""
