"""The cluster group: which nodes there are, who of them votes, and how far every group has followed.

`commands` and `store` are the replicated state machine, pure; `door` is what its node asks
it with; `plan` says what a change would do before anybody asks for it.
"""
