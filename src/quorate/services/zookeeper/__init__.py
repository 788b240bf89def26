"""The ZooKeeper service: the wire protocol of ZooKeeper 3.8 over a replicated store.

`jute`, `protocol` and `errors` say what the bytes mean; `commands`, `tree` and `store` are
the replicated state machine, pure; `door` and what it uses talk to clients.
"""
