"""How the parts of the door (keys, watches, leases) have commands replicated.

    proposer.propose(commands.grant(lease, ttl_s), call)     # the call is answered with the command's result
    proposer.propose(commands.expire(lease, generation), Expiry(...))

Commands of one turn of the loop reach the group together.  Outcomes come from the loop's thread and exactly once, from
inside of `propose` only where the command is not taken at all.  A call that has timed out is answered then, and what
comes later is dropped; a `Proposal` waits.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

from quorate.net.grpc.calls import Call
from quorate.services.etcd.errors import EtcdError
from quorate.services.etcd.results import Result


class Proposal:
    """A waiter that is no client's call, or that does more with the result than answering the call.

    No abstract class in Python's sense: asking whether a waiter is one of those costs as much as a small reply.
    """

    __slots__ = ()

    def applied(self, result: Result) -> None:
        """The store applied the command, maybe with an error as its result.

        Called in the very call in which the store applied the batch, as `Door.applied` is.
        """
        raise NotImplementedError

    def failed(self, error: EtcdError) -> None:
        """No result will come.

        Surely not applied where the error is one of `errors.REFUSED`; else it may have been, or may yet be.
        """
        raise NotImplementedError


Waiter: TypeAlias = Call | Proposal
"""A bare call is the cheapest waiter: it is answered with header and body of the result, or with its error."""


class Proposer(Protocol):
    def propose(self, command: bytes, waiter: Waiter) -> None:
        """Replicate a command (`commands`) that was checked.

        A call may be failed from inside, where too much waits already or the command is too large.
        """
        ...
