"""The node: one event loop that hosts groups, each a replica with its store and its door.

`driver` is the one place where effects are carried out in their order (persist, send,
apply); `group` joins a replica to its service; `node` puts the parts together; `process`
is the operating system's side of it.
"""
