"""The same work over Raft, Multi-Paxos, ZAB and Paxos with quorums of other sizes, measured on simulated networks.

Whole nodes with etcd's door and clients, as in `quorate.simulation`, on networks that a profile describes.  Read:

- `profiles`    the named networks, and what is compared on them
- `ledger`      what replicas say and who leads, noted without their knowing
- `stage`       one cluster on one network, with clients beside its nodes
- `commits`     a trial: messages, bytes and time that a write costs
- `crashes`     a trial: how long there is no leader after a crash, and the candidacies that led nowhere
- `partitions`  a trial: who can write and who can read what while the nodes are parted
- `jobs`        all trials of a comparison, as tasks for worker processes

Every figure follows from the seed.  `quorate compare` prints them and measures real processes beside them.
"""
