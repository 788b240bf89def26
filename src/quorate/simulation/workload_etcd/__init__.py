"""Clients of a simulated etcd service that do a bit of everything, and record what they saw.

`workload` has the whole, `client` one client's life, `recorder` a client of etcd's API that records every call; what
the clients do is in `values`, `watching`, `leases`, `locks` and `connections`.  Nothing here knows of faults.  The
records and the checks on them are `quorate.checking.etcd`.
"""
