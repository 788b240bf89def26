"""A cluster group's store, with short words for what is done to it."""

from __future__ import annotations

from quorate.services.cluster.commands import AnyCommand, Bind, Form, Member, Reached, encode
from quorate.services.cluster.store import ClusterStore, Outcome

GROUPS = [0, 1]


def address(node: int) -> str:
    return f"10.0.0.{node}:3181"


def voter(node: int) -> Member:
    return Member(node, address(node), f"10.0.0.{node}:4181", folder(node), voter=True)


def folder(node: int, number: int = 1) -> str:
    """The incarnation of a node's n-th data folder."""
    return f"{node:016x}{number:016x}"


class Story:
    """One store, and what is told to it."""

    def __init__(self, voters: int = 3) -> None:
        """Formed of the nodes 1 to `voters`; 0 for one that is not formed."""
        self.store = ClusterStore()
        if voters:
            self.do(Form("c" * 32, [voter(node) for node in range(1, voters + 1)], GROUPS))

    def tell(self, command: AnyCommand) -> Outcome:
        """Through bytes, as in a log.  A command that is refused changes nothing."""
        before = self.store.content()
        (outcome,) = self.store.apply([encode(command)], 0)
        assert outcome.version == self.store.version
        assert outcome.changed is (self.store.content() != before)
        assert not (outcome.problem and outcome.changed)
        return outcome

    def do(self, command: AnyCommand) -> int:
        """It must be done; the version after it."""
        outcome = self.tell(command)
        assert outcome.problem is None
        return outcome.version

    def refused(self, command: AnyCommand) -> str:
        """It must be refused; why."""
        problem = self.tell(command).problem
        assert problem is not None
        return problem

    def come(self, node: int, number: int = 1) -> int:
        return self.do(Bind(node, folder(node, number), address(node), f"10.0.0.{node}:4181"))

    def settle(self) -> None:
        """Every group reaches the version."""
        for group in self.store.groups:
            self.do(Reached(group, self.store.version))

    def step(self) -> AnyCommand:
        """What the leader submits by itself is done, and settles."""
        command = self.store.next_step()
        assert command is not None
        self.do(command)
        self.settle()
        return command
