"""What each agent answers, message by message."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from quorate.consensus.replica import Send
from quorate.consensus.single_decree import Acceptor, Learner, Proposer
from quorate.consensus.single_decree.hard_state import (
    InvalidHardState,
    decode_acceptor,
    decode_proposer,
    encode_acceptor,
    encode_proposer,
)
from quorate.consensus.single_decree.messages import (
    NO_BALLOT,
    Accept,
    Accepted,
    AnyMessage,
    Ballot,
    Effects,
    Prepare,
    Promise,
    Proposal,
    Rejected,
)
from quorate.consensus.single_decree.proposer import Phase
from quorate.quorums import Majority

LOW, MIDDLE, HIGH = Ballot(1, 4), Ballot(2, 1), Ballot(2, 5)
ACCEPTORS = Majority((1, 2, 3))


# --- acceptor --------------------------------------------------------------------------------


def test_a_promise_is_saved_and_tells_of_what_was_accepted() -> None:
    acceptor = Acceptor(learners=(7,))
    assert acceptor.receive(4, Prepare(LOW)) == Effects(encode_acceptor(LOW, None), (Send(4, Promise(LOW, None)),))
    acceptor.receive(4, Accept(LOW, b"x"))
    effects = acceptor.receive(5, Prepare(HIGH))
    assert effects.messages == (Send(5, Promise(HIGH, Proposal(LOW, b"x"))),)
    assert effects.state == encode_acceptor(HIGH, Proposal(LOW, b"x"))


def test_what_is_accepted_is_saved_and_told_to_every_learner() -> None:
    acceptor = Acceptor(learners=(7, 8))
    answer = Accepted(LOW, b"x")
    effects = acceptor.receive(4, Accept(LOW, b"x"))
    assert effects == Effects(encode_acceptor(LOW, Proposal(LOW, b"x")), (Send(7, answer), Send(8, answer)))


def test_nothing_below_a_promise_is_promised_or_accepted() -> None:
    acceptor = Acceptor(learners=(7,))
    acceptor.receive(5, Prepare(HIGH))
    for message in (Prepare(MIDDLE), Accept(MIDDLE, b"x")):
        assert acceptor.receive(1, message) == Effects(messages=(Send(1, Rejected(MIDDLE, HIGH)),))
    assert acceptor.receive(5, Accept(HIGH, b"y")).messages == (Send(7, Accepted(HIGH, b"y")),)


def test_accepting_unprepared_is_a_promise_too() -> None:
    acceptor = Acceptor(learners=(7,))
    acceptor.receive(5, Accept(HIGH, b"y"))
    assert acceptor.receive(1, Accept(MIDDLE, b"x")).messages == (Send(1, Rejected(MIDDLE, HIGH)),)


def test_a_repeated_request_is_answered_again_and_saves_nothing() -> None:
    acceptor = Acceptor(learners=(7,))
    for message in (Prepare(LOW), Accept(LOW, b"x")):
        first, second = acceptor.receive(4, message), acceptor.receive(4, message)
        assert second == Effects(None, first.messages)


def test_promise_and_acceptance_outlive_a_crash() -> None:
    former = Acceptor(learners=(7,))
    former.receive(4, Accept(LOW, b"x"))
    state = former.receive(5, Prepare(HIGH)).state
    acceptor = Acceptor(learners=(7,), recovered=state)
    assert acceptor.receive(1, Accept(MIDDLE, b"y")).messages == (Send(1, Rejected(MIDDLE, HIGH)),)
    assert acceptor.receive(5, Prepare(Ballot(3, 5))).messages == (Send(5, Promise(Ballot(3, 5), Proposal(LOW, b"x"))),)


# --- proposer --------------------------------------------------------------------------------


def proposer(recovered: bytes | None = None) -> Proposer:
    return Proposer(4, ACCEPTORS, Random(0), recovered, timeout_ms=100)


def to_all(message: Prepare | Accept) -> tuple[Send, ...]:
    return tuple(Send(node, message) for node in ACCEPTORS.members)


def test_without_other_proposals_its_own_value_goes_out_once_a_majority_has_promised() -> None:
    agent = proposer()
    assert agent.propose(b"mine", 0) == Effects(encode_proposer(1), to_all(Prepare(Ballot(1, 4))))
    assert agent.receive(2, Promise(LOW, None), 10) == Effects()
    assert agent.receive(2, Promise(LOW, None), 11) == Effects(), "the same acceptor twice is no majority"
    assert agent.receive(9, Promise(LOW, None), 12) == Effects(), "9 is no acceptor"
    assert agent.receive(3, Promise(LOW, None), 13) == Effects(None, to_all(Accept(LOW, b"mine")))
    assert agent.receive(1, Promise(LOW, Proposal(Ballot(0, 1), b"late")), 14) == Effects()


def test_the_value_of_the_highest_numbered_proposal_that_it_hears_of_takes_the_place_of_its_own() -> None:
    agent = Proposer(4, Majority((1, 2, 3, 5, 6)), Random(0), encode_proposer(8))
    agent.propose(b"mine", 0)
    ballot = Ballot(9, 4)
    agent.receive(1, Promise(ballot, Proposal(MIDDLE, b"older")), 10)
    agent.receive(2, Promise(ballot, Proposal(HIGH, b"newer")), 10)
    effects = agent.receive(3, Promise(ballot, None), 10)
    assert effects.messages[0] == Send(1, Accept(ballot, b"newer"))


def test_one_who_is_overtaken_waits_and_then_goes_above_its_rival() -> None:
    agent = proposer()
    agent.propose(b"mine", 0)
    assert agent.receive(1, Rejected(LOW, Ballot(6, 5)), 10) == Effects()
    assert agent.phase is Phase.BACK_OFF
    assert agent.receive(2, Promise(LOW, None), 11) == Effects(), "a ballot that was given up stays so"
    assert agent.receive(3, Promise(LOW, None), 11) == Effects()
    assert agent.deadline_ms is not None and 10 <= agent.deadline_ms < 110
    assert agent.tick(agent.deadline_ms - 1) == Effects()
    assert agent.tick(agent.deadline_ms) == Effects(encode_proposer(7), to_all(Prepare(Ballot(7, 4))))


def test_waits_grow_with_each_failure_and_are_bounded() -> None:
    class Longest:
        def randrange(self, start: int, stop: int) -> int:
            return stop - 1

    agent = Proposer(4, ACCEPTORS, Longest(), timeout_ms=100)
    agent.propose(b"mine", 0)
    waits = []
    now_ms = 0
    for _ in range(8):
        now_ms += 100
        agent.tick(now_ms)  # nobody answered
        assert agent.deadline_ms is not None
        waits.append(agent.deadline_ms - now_ms + 1)
        now_ms = agent.deadline_ms
        agent.tick(now_ms)
    assert waits == [100, 200, 400, 800, 1600, 3200, 3200, 3200]


def test_a_round_that_was_used_before_a_crash_is_not_used_again() -> None:
    state = proposer(encode_proposer(5)).propose(b"before", 0).state
    assert proposer(state).propose(b"after", 0).messages[0] == Send(1, Prepare(Ballot(7, 4)))


def test_one_who_is_told_that_a_value_is_chosen_is_silent() -> None:
    agent = proposer()
    agent.propose(b"mine", 0)
    agent.stop()
    assert agent.deadline_ms is None
    assert [agent.receive(node, Promise(LOW, None), 10) for node in (1, 2, 3)] == [Effects()] * 3
    assert agent.tick(10_000) == Effects()


# --- learner ---------------------------------------------------------------------------------


def test_a_value_is_chosen_when_a_majority_has_accepted_it_in_one_ballot() -> None:
    learner = Learner(ACCEPTORS)
    learner.receive(1, Accepted(LOW, b"x"))
    learner.receive(1, Accepted(LOW, b"x"))
    learner.receive(9, Accepted(LOW, b"x"))
    assert learner.chosen is None
    learner.receive(2, Accepted(HIGH, b"x"))
    assert learner.chosen is None, "1 and 2 agree on the value, and not on the ballot"
    learner.receive(3, Accepted(HIGH, b"x"))
    assert learner.chosen == b"x"


def test_an_overtaken_message_takes_nothing_back() -> None:
    learner = Learner(ACCEPTORS)
    learner.receive(1, Accepted(HIGH, b"x"))
    learner.receive(1, Accepted(LOW, b"w"))
    learner.receive(2, Accepted(HIGH, b"x"))
    assert learner.chosen == b"x"
    learner.receive(3, Accepted(Ballot(9, 9), b"y"))
    assert learner.chosen == b"x"


# --- bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Prepare(LOW),
        Promise(HIGH, None),
        Promise(HIGH, Proposal(LOW, b"x")),
        Accept(LOW, b""),
        Accepted(LOW, b"x"),
        Rejected(LOW, HIGH),
    ],
)
def test_messages_travel_as_messagepack(message: AnyMessage) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=AnyMessage) == message


@pytest.mark.parametrize("round_", [-1, 1 << 62])
def test_a_round_that_no_proposer_reaches_is_not_decoded(round_: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(Prepare(Ballot(round_, 1))), type=AnyMessage)


def test_hard_state_is_read_back_as_it_was() -> None:
    assert decode_acceptor(None) == (NO_BALLOT, None)
    assert decode_acceptor(encode_acceptor(HIGH, Proposal(LOW, b"x"))) == (HIGH, Proposal(LOW, b"x"))
    assert decode_proposer(None) == 0
    assert decode_proposer(encode_proposer(3)) == 3


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (b"", "cannot be read"),
        (b"\xff\x00", "cannot be read"),
        (encode_proposer(1), "cannot be read"),
        (msgspec.msgpack.encode((2, LOW, None)), "format 2, expected 1"),
        (encode_acceptor(LOW, Proposal(HIGH, b"x")), "above its promise"),
    ],
)
def test_an_acceptor_does_not_start_on_what_none_saved(state: bytes, reason: str) -> None:
    with pytest.raises(InvalidHardState, match=reason):
        Acceptor((1,), state)


@pytest.mark.parametrize("state", [b"", encode_acceptor(LOW, None), encode_proposer(0), msgspec.msgpack.encode((2, 1))])
def test_a_proposer_does_not_start_on_what_none_saved(state: bytes) -> None:
    with pytest.raises(InvalidHardState):
        proposer(state)
