"""Clients of a simulated ZooKeeper service that do a bit of everything, and record what they saw.

`workload` has the whole, `client` one client's life, `session` a session that records every call; what the clients do
is in `values`, `locks`, `ephemerals` and `connections`.  Nothing here knows of faults.  The records and the checks on
them are `quorate.checking.zookeeper`.
"""
