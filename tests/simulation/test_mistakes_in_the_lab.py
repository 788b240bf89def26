"""Multi-Paxos and ZAB with mistakes put in, walked through the lab: which invariant sees which within a few seeds.

As `test_invariants_in_the_lab` does it for Raft.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from quorate.consensus.barriers import Rounds
from quorate.consensus.core import ServerCore
from quorate.consensus.paxos import core as paxos_core
from quorate.consensus.paxos.candidate import Candidate
from quorate.consensus.paxos.hard_state import encode_hard_state
from quorate.consensus.paxos.messages import PreVoted, Promise
from quorate.consensus.replica import Message, NodeId, Send
from quorate.consensus.zab import core as zab_core
from quorate.consensus.zab.discovery import Discovery
from quorate.consensus.zab.leader import Leader as ZabLeader
from quorate.consensus.zab.messages import AckLeader
from quorate.simulation.violation import Violation
from tests.consensus import test_paxos_exploration, test_zab_exploration

STEPS = 2000
SEEDS = 24

Mistake = tuple[object, str, Callable[..., Any]]
"""(class or module, method or function, what to put in its place)."""


def ride_on_the_round_before() -> Callable[[Rounds, int, int | None], int]:
    begin = Rounds.begin

    def hasty(self: Rounds, now_ms: int, barrier_position: int | None) -> int:
        number = begin(self, now_ms, barrier_position)
        self._rides = deque([replace(ride, round=min(ride.round, number - 1)) for ride in self._rides])
        return number

    return hasty


def speaks_at_once(core: type[ServerCore], kind: type[Message]) -> Callable[[ServerCore, NodeId, Message], None]:
    send = core.send

    def speak(self: ServerCore, to: NodeId, message: Message) -> None:
        if isinstance(message, kind):
            self.effects.messages.append(Send(to, message))
        else:
            send(self, to, message)

    return speak


def take_every_answer(self: Candidate, sender: NodeId, message: PreVoted) -> None:
    self._answers.setdefault(sender, message.granted)


def stay_with_ones_own_value() -> Callable[[Candidate, NodeId, Promise], None]:
    receive = Candidate.receive_promise

    def stubborn(self: Candidate, sender: NodeId, message: Promise) -> None:
        held = self.core.log
        news = tuple(value for value in message.accepted if held.get(value.entry.position) is None)
        receive(self, sender, msgspec.structs.replace(message, accepted=news, commit_position=0))

    return stubborn


def forget_the_promise(promised: int, chosen_position: int, reaccepted: dict[tuple[int, int], int]) -> bytes:
    return encode_hard_state(0, chosen_position, reaccepted)


def lead_without_a_quorum(self: Discovery) -> bool:
    return self.epoch is not None and self.core.promise_is_durable()


def save_the_epoch_first() -> Callable[[zab_core.Core], None]:
    accept = zab_core.Core.accept_history

    def hasty(self: zab_core.Core) -> None:
        accept(self)
        self.effects.records.insert(0, self.effects.records.pop())

    return hasty


def commit_before_the_opening(self: ZabLeader) -> None:
    held_position = self.core.quorum.greatest_held(self._match_positions)
    if held_position > self.core.commit_position:
        self._commit(held_position)


PAXOS: dict[str, tuple[Mistake, str]] = {
    "count one's own acceptance before its ballot is durable": (
        (paxos_core.Core, "accepted_position", ServerCore.accepted_position),
        "chosen by a quorum",
    ),
    "count pre-votes as promises": ((Candidate, "receive_pre_voted", take_every_answer), "election by promises"),
    "propose one's own value though a promise carries another": (
        (Candidate, "receive_promise", stay_with_ones_own_value()),
        "chosen value",
    ),
    "do not save the promise": ((paxos_core, "encode_hard_state", forget_the_promise), "durable before spoken"),
    "promise before it is durable": (
        (paxos_core.Core, "send", speaks_at_once(paxos_core.Core, Promise)),
        "durable before spoken",
    ),
    "ride on the round before": ((Rounds, "begin", ride_on_the_round_before()), "read barrier"),
}
ZAB: dict[str, tuple[Mistake, str]] = {
    "lead before a quorum has promised": ((Discovery, "is_complete", lead_without_a_quorum), "discovery"),
    "save the current epoch before its history": (
        (zab_core.Core, "accept_history", save_the_epoch_first()),
        "initial history",
    ),
    "commit before the opening entry is on a quorum": (
        (ZabLeader, "_advance_commit", commit_before_the_opening),
        "commit after sync",
    ),
    "acknowledge the leader before it is durable": (
        (zab_core.Core, "send", speaks_at_once(zab_core.Core, AckLeader)),
        "durable before spoken",
    ),
    "ride on the round before": ((Rounds, "begin", ride_on_the_round_before()), "read barrier"),
}


def first_seen(explore: Callable[[int, int, int], object]) -> str | None:
    """The check that the first walk breaks which breaks any."""
    for seed in range(SEEDS):
        try:
            explore(3, seed, STEPS)
        except Violation as violation:
            return violation.check
    return None


@pytest.mark.parametrize("name", PAXOS)
def test_a_mistake_in_multi_paxos_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake, check = PAXOS[name]
    monkeypatch.setattr(*mistake)
    assert first_seen(test_paxos_exploration.explore) == check


@pytest.mark.parametrize("name", ZAB)
def test_a_mistake_in_zab_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake, check = ZAB[name]
    monkeypatch.setattr(*mistake)
    assert first_seen(test_zab_exploration.explore) == check
