"""Replicate a Python class of one's own over any of the protocols (docs/own_state_machine.md).

    machine      what a user writes: a class, and which of its methods are commands
    data         which types may stand in states and commands, and the bytes they become
    commands     calls of methods as bytes, and back
    store        the class as `services.interface.Store`: pure
    door         callers in this process, as `services.interface.Door`
    replicated   one node of it: a `node.Node` with that store and that door
    blocking     the same for programs without an event loop
    embedded     several nodes in one process

Users take the names from `quorate` itself.
"""
