"""Processes in lockstep: who sends what in a round, who hears it, and who stops in the midst of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from quorate.consensus.replica import NodeId

M = TypeVar("M")


class Process(Protocol[M]):
    """What runs in rounds, which are counted from 1."""

    def speak(self, round_: int) -> M:
        """What it sends to everybody else in this round."""
        ...

    def hear(self, round_: int, messages: Sequence[M]) -> None:
        """The round is over, and this is all that came in it, in the order of the senders."""
        ...


class Crash(NamedTuple):
    """The process stops in this round: its message gets to `reached`, and it hears nothing any more."""

    process: NodeId
    round: int
    reached: frozenset[NodeId]


class Late(NamedTuple):
    """The message that `sender` sends to `receiver` in this round comes in the next one."""

    sender: NodeId
    receiver: NodeId
    round: int


class Delivery(NamedTuple, Generic[M]):
    """A message that was heard."""

    sender: NodeId
    receiver: NodeId
    sent_round: int
    heard_round: int
    message: M


def run_rounds(
    processes: Mapping[NodeId, Process[M]],
    rounds: int,
    crashes: Collection[Crash] = (),
    late: Collection[Late] = (),
) -> list[Delivery[M]]:
    """Let the processes go through this many rounds, each stopping at most once; what was heard, in order.

    What is still under way after the last round is heard in one more, in which nobody speaks.
    """
    stops = {crash.process: crash for crash in crashes}
    assert len(stops) == len(crashes), "a process stops once"
    heard: list[Delivery[M]] = []
    delayed: list[Delivery[M]] = []
    for round_ in range(1, rounds + 2):
        arriving, delayed = delayed, []
        if round_ <= rounds:
            for delivery in _sent(processes, round_, stops):
                is_late = Late(delivery.sender, delivery.receiver, round_) in late
                (delayed if is_late else arriving).append(delivery._replace(heard_round=round_ + is_late))
        for receiver, process in processes.items():
            if receiver not in stops or stops[receiver].round > round_:
                own = [delivery for delivery in arriving if delivery.receiver == receiver]
                process.hear(round_, [delivery.message for delivery in own])
                heard += own
    return heard


def _sent(processes: Mapping[NodeId, Process[M]], round_: int, stops: Mapping[NodeId, Crash]) -> list[Delivery[M]]:
    """What leaves its sender in this round; from one that stops in it, what goes to those whom it reaches."""
    sent: list[Delivery[M]] = []
    for sender, process in processes.items():
        stop = stops.get(sender)
        if stop is not None and stop.round < round_:
            continue
        message = process.speak(round_)
        sent += [
            Delivery(sender, receiver, round_, round_, message)
            for receiver in processes
            if receiver != sender and (stop is None or stop.round > round_ or receiver in stop.reached)
        ]
    return sent
