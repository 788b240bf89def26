"""ZooKeeper's promise, checked on what clients saw: linearizable writes, ordered sessions, watches, ephemerals, locks.

Everything hangs on the zxid.  The log gives each write (and each refusal of one) a zxid of its own, and the header of
every reply says up to which zxid the answering server had applied the log.  So a reply is not "some recent state" but
the state as of one known zxid, and it is either the right one or not: no search is needed.  What a client does not know
(writes of unknown outcome, the end of a session that was left to expire) is a *doubt*, bounded from both sides, and no
check holds anything against a server that a doubt explains.

Times are true times: a client's clock plays no part.  The checks are functions of a finished `History`; all together
take time in proportion to n log n.  `promise.findings` runs them all.
"""
