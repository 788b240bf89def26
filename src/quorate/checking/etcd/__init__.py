"""The promise of etcd's API, checked on what clients saw: keys, transactions, watches, leases, locks.

Everything hangs on the revision.  Each change of the keyspace has one of its own, without gaps, and the header of every
answer says up to which revision the answering member had applied them.  So an answer is not "some recent state" but the
state as of one known revision, and it is either the right one or not: no search is needed.

The order of all changes is put together of what clients know: a write that was answered says at which revision it was
done, and a watch of the whole keyspace says what happened at every other one.  Each of those must have exactly one
cause: a write of unknown outcome, whose values nobody else writes, or the end of a lease, which takes all of its keys.
Then every answer is held against a plain model of the keyspace (`model`) as of its revision, field by field.

Times are true times: a client's clock plays no part.  `promise.findings` runs all checks.
"""
