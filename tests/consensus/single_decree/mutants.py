"""Deliberate bugs.  Each breaks one sentence of the paper, and the walks must find each."""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType
from typing import Final

from quorate.consensus.replica import NodeId, RandomSource
from quorate.consensus.single_decree import Acceptor, Learner, Proposer
from quorate.consensus.single_decree.messages import NO_BALLOT, Accept, Accepted, Ballot, Effects, ToAcceptor
from quorate.quorums import Majority
from tests.consensus.single_decree.world import Agents


class ChoosesItsOwnValue(Proposer):
    """Although a promise told of another one."""

    def _value_to_propose(self) -> bytes:
        assert self._value is not None
        return self._value


class ChoosesTheLowestBallotsValue(Proposer):
    """Of several that promises tell of, not the highest-numbered."""

    def _value_to_propose(self) -> bytes:
        told = [promise.accepted for promise in self._promises.values() if promise.accepted]
        return min(told).value if told else super()._value_to_propose()


class ReusesABallot(Proposer):
    """Comes back from a crash without its rounds."""

    def __init__(self, node_id: NodeId, acceptors: Majority, random: RandomSource, recovered: bytes | None) -> None:
        super().__init__(node_id, acceptors, random, recovered=None)


class Anybody(Majority):
    """A quorum is a single acceptor."""

    def is_quorum(self, nodes: Collection[NodeId]) -> bool:
        return bool(nodes)


class SettlesForOnePromise(Proposer):
    """Begins phase 2 on the word of a single acceptor."""

    def __init__(self, node_id: NodeId, acceptors: Majority, random: RandomSource, recovered: bytes | None) -> None:
        super().__init__(node_id, Anybody(acceptors.members), random, recovered)


class ForgetsItsPromise(Acceptor):
    """Comes back from a crash with what it accepted, and without what it promised."""

    def __init__(self, learners: tuple[NodeId, ...], recovered: bytes | None = None) -> None:
        super().__init__(learners, recovered)
        self.promised = NO_BALLOT if self.accepted is None else self.accepted.ballot


class ForgetsWhatItAccepted(Acceptor):
    """Comes back from a crash with its promise alone."""

    def __init__(self, learners: tuple[NodeId, ...], recovered: bytes | None = None) -> None:
        super().__init__(learners, recovered)
        self.accepted = None


class AcceptsBelowItsPromise(Acceptor):
    """A promise keeps it from other promises, not from accepting."""

    def receive(self, sender: NodeId, message: ToAcceptor) -> Effects:
        return self._accept(message) if isinstance(message, Accept) else super().receive(sender, message)


class CountsValues(Learner):
    """Takes a value for chosen that a majority accepted, in whatever ballots."""

    def receive(self, sender: NodeId, message: Accepted) -> None:
        of_this_value = Ballot(1, int.from_bytes(message.value))
        super().receive(sender, Accepted(of_this_value, message.value))


MUTANTS: Final = MappingProxyType(
    {
        "chooses its own value although a promise told of another": Agents(proposer=ChoosesItsOwnValue),
        "chooses the value of the lowest ballot that promises told of": Agents(proposer=ChoosesTheLowestBallotsValue),
        "uses a ballot again after a crash": Agents(proposer=ReusesABallot),
        "begins phase 2 with a single promise": Agents(proposer=SettlesForOnePromise),
        "forgets a promise at restart": Agents(acceptor=ForgetsItsPromise),
        "forgets at restart what it accepted": Agents(acceptor=ForgetsWhatItAccepted),
        "accepts below its promise": Agents(acceptor=AcceptsBelowItsPromise),
        "learns from acceptances of different ballots": Agents(learner=CountsValues),
        "speaks before its state is durable": Agents(speaks_when_durable=False),
    }
)
