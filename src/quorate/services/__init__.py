"""Services: each a pure store (a state machine) and a door (a wire protocol).

`interface` is all that a node knows of a service and all that a service knows of its node.
"""
