"""Two-phase commit, one situation at a time: an order takes from the stock and from a customer's purse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorate.transactions.effects import Begin, Receive, Refusal
from quorate.transactions.messages import (
    Acknowledgement,
    Address,
    AnyMessage,
    Decision,
    Inquiry,
    Outcome,
    Prepare,
    TransactionId,
    Vote,
)
from quorate.transactions.records import InvalidRecord, Opened, decode_record, encode_record
from quorate.transactions.states import CoordinatorState, ParticipantState
from quorate.transactions.table import Add, Create, Delete, Read, decode_result, operation
from tests.transactions.world import CLIENT, COORDINATOR, MESSAGES, World

ORDERS, STOCK, PAYMENT = "orders", "stock", "payment"
EVERYBODY = (ORDERS, STOCK, PAYMENT)
TABLES: dict[Address, dict[str, int]] = {ORDERS: {}, STOCK: {"apples": 10}, PAYMENT: {"ann": 100, "till": 0}}


def order(number: int = 1, apples: int = 2, price: int = 30) -> dict[Address, bytes]:
    return {
        ORDERS: operation(Create(f"order-{number}", apples)),
        STOCK: operation(Add("apples", -apples)),
        PAYMENT: operation(Add("ann", -price), Add("till", price)),
    }


def shop(*groups: Address) -> World:
    world = World(TABLES, frozenset(groups))
    world.settle()
    return world


def tables(world: World) -> tuple[dict[str, int], ...]:
    return tuple(world.hosts[name].table.values for name in EVERYBODY)


BEFORE: tuple[dict[str, int], ...] = ({}, {"apples": 10}, {"ann": 100, "till": 0})
AFTER = ({"order-1": 2}, {"apples": 8}, {"ann": 70, "till": 30})


def running(world: World) -> list[Address]:
    return [name for name in EVERYBODY if world.hosts[name].lives]


def in_doubt(world: World) -> list[Address]:
    return [name for name in running(world) if world.participant(name).in_doubt]


def locked(world: World) -> list[Address]:
    return [name for name in running(world) if len(world.participant(name).locks)]


def stop(world: World, name: Address) -> None:
    """The newest life of a host ends; what it has not synced is lost."""
    world.crash(world.hosts[name], world.hosts[name].lives[-1])


def start(world: World, name: Address) -> None:
    world.start(world.hosts[name])


def say(world: World, sender: Address, to: Address, message: AnyMessage) -> None:
    host = world.hosts[to]
    world.step(host, host.lives[-1], Receive(sender, message))


def told(world: World) -> list[bool]:
    return [outcome.committed for outcome in world.outcomes]


# --- all or nothing --------------------------------------------------------------------------


def test_an_order_happens_at_all_three() -> None:
    world = shop()
    world.begin(order())
    world.settle()
    assert tables(world) == AFTER
    [outcome] = world.outcomes
    assert outcome.committed
    found = {name: decode_result(result) for name, result in outcome.results.items()}
    assert found == {ORDERS: [None], STOCK: [10], PAYMENT: [100, 0]}
    assert world.coordinator().unfinished == () and locked(world) == []


def test_one_no_and_it_happens_nowhere_with_the_reason() -> None:
    world = shop()
    world.begin(order(apples=11))
    world.settle()
    world.pass_time(1000)
    assert tables(world) == BEFORE and locked(world) == []
    [outcome] = world.outcomes
    assert not outcome.committed
    assert outcome.reason == "stock: apples is 10, and -11 would leave it outside of 0 to 9223372036854775807"


def test_a_conflict_is_a_no_at_once_and_nobody_waits() -> None:
    world = shop()
    first, second = world.begin(order(1)), world.begin(order(2))
    world.settle()
    refused, done = world.outcomes
    assert (refused.transaction.number, refused.committed) == (second, False)
    assert refused.reason == "payment: ann is locked by another transaction"
    assert (done.transaction.number, done.committed) == (first, True)
    assert tables(world) == AFTER


def test_transactions_that_only_read_the_same_run_at_once() -> None:
    world = shop()
    for number in range(5):
        world.begin({ORDERS: operation(Create(f"order-{number}", 1)), STOCK: operation(Read("apples"))})
    world.settle()
    assert told(world) == [True] * 5


def test_a_value_that_is_read_does_not_change_before_the_decision() -> None:
    """Which a participant that leaves early because it only reads would allow: see the head of the package."""
    world = shop()
    audit = world.begin({STOCK: operation(Read("apples")), PAYMENT: operation(Read("till"))})
    world.settle(lost_to=[PAYMENT])
    world.begin(order())
    world.settle()
    assert told(world) == [False]
    world.pass_time(200)  # the audit's Prepare comes once more
    assert world.outcomes[-1].transaction.number == audit and told(world) == [False, True]
    results = world.outcomes[-1].results
    assert [decode_result(results[name]) for name in (STOCK, PAYMENT)] == [[10], [0]]


def test_a_participant_that_never_answers_is_given_up_and_named() -> None:
    world = shop()
    stop(world, STOCK)
    world.begin(order())
    world.settle()
    assert in_doubt(world) == locked(world) == [ORDERS, PAYMENT]
    world.pass_time(1200)
    [outcome] = world.outcomes
    assert (outcome.committed, outcome.reason) == (False, "no vote from stock within 1000 ms")
    start(world, STOCK)
    world.settle()
    assert tables(world) == BEFORE and locked(world) == []


def test_a_lost_prepare_and_a_lost_vote_are_asked_for_again() -> None:
    world = shop()
    world.begin(order())
    world.settle(lost_to=[STOCK, COORDINATOR])
    assert in_doubt(world) == [ORDERS, PAYMENT]
    world.pass_time(300)
    assert told(world) == [True] and tables(world) == AFTER


def test_a_yes_and_an_acknowledgement_wait_for_the_disk() -> None:
    world = shop()
    stock = world.hosts[STOCK]
    world.begin(order())
    world.settle(stuck=[STOCK])
    assert locked(world) == list(EVERYBODY) and told(world) == []
    world.sync(stock, stock.lives[-1])
    world.settle(stuck=[STOCK])
    assert locked(world) == [] and told(world) == [True]
    assert len(world.coordinator().unfinished) == 1 and tables(world) == (AFTER[0], BEFORE[1], AFTER[2])
    world.settle()
    assert world.coordinator().unfinished == () and tables(world) == AFTER


# --- a process or a group --------------------------------------------------------------------


def vote_and_lose_the_coordinator(world: World) -> None:
    """Everybody has promised; the coordinator has heard it, and crashes before its decision is durable."""
    world.begin(order())
    world.settle(stuck=[COORDINATOR])
    assert in_doubt(world) == list(EVERYBODY)
    stop(world, COORDINATOR)


def decide_and_lose_the_coordinator(world: World) -> None:
    """The decision is durable, and nobody has heard it."""
    world.begin(order())
    world.settle(stuck=[COORDINATOR])
    host = world.hosts[COORDINATOR]
    world.crash(host, host.lives[-1], kept=1)
    assert in_doubt(world) == list(EVERYBODY)


@pytest.mark.parametrize("lose", [vote_and_lose_the_coordinator, decide_and_lose_the_coordinator])
def test_a_coordinator_that_is_one_process_blocks_the_others_until_it_is_back(lose: Callable[[World], None]) -> None:
    world = shop()
    lose(world)
    world.pass_time(60_000)
    assert in_doubt(world) == locked(world) == list(EVERYBODY)
    assert told(world) == []
    start(world, COORDINATOR)
    world.pass_time(500)
    assert in_doubt(world) == locked(world) == []
    assert tables(world) == (AFTER if lose is decide_and_lose_the_coordinator else BEFORE)


@pytest.mark.parametrize("lose", [vote_and_lose_the_coordinator, decide_and_lose_the_coordinator])
def test_with_a_coordinator_that_is_a_group_they_go_on(lose: Callable[[World], None]) -> None:
    world = shop(COORDINATOR)
    lose(world)
    start(world, COORDINATOR)  # another replica, with the same records: the one that stopped is never back
    world.pass_time(500)
    assert in_doubt(world) == locked(world) == []
    assert tables(world) == (AFTER if lose is decide_and_lose_the_coordinator else BEFORE)


def test_a_participant_that_is_one_process_is_waited_for_after_the_decision() -> None:
    world = shop()
    world.begin(order())
    world.settle(stuck=[COORDINATOR])
    stop(world, STOCK)
    world.settle()
    world.pass_time(60_000)
    # The client knows, the others have it, and the coordinator cannot forget.
    assert told(world) == [True] and len(world.coordinator().unfinished) == 1
    assert tables(world) == (AFTER[0], BEFORE[1], AFTER[2])
    start(world, STOCK)
    assert locked(world) == [STOCK]
    world.settle()
    assert tables(world) == AFTER and world.coordinator().unfinished == ()


def test_in_a_participant_that_is_a_group_the_next_leader_keeps_the_promise() -> None:
    world = shop(STOCK)
    world.begin(order())
    world.settle(stuck=[COORDINATOR])
    start(world, STOCK)
    world.settle()
    world.pass_time(300)
    assert told(world) == [True] and tables(world) == AFTER and locked(world) == []


def test_a_deposed_coordinator_cannot_commit_what_its_successor_aborts() -> None:
    world = shop(COORDINATOR)
    host = world.hosts[COORDINATOR]
    world.begin(order())
    world.settle(stuck=[COORDINATOR])
    [deposed] = host.lives
    successor = world.start(host)
    world.sync(host, successor)
    world.sync(host, deposed)  # its Committed comes after the successor's opening
    assert host.lives == [successor] and world.fenced == 1
    world.pass_time(500)
    assert tables(world) == BEFORE and locked(world) == [] and told(world) == []


def test_a_successor_that_missed_the_last_decision_does_not_open() -> None:
    world = shop(COORDINATOR)
    host = world.hosts[COORDINATOR]
    world.begin(order())
    world.settle(stuck=[COORDINATOR])
    [deposed] = host.lives
    hasty = world.start(host)
    world.sync(host, deposed)
    world.sync(host, hasty)
    assert host.lives == [deposed]
    world.settle()
    assert tables(world) == AFTER and told(world) == [True]


def test_a_replica_whose_opening_is_not_durable_says_nothing() -> None:
    world = shop(COORDINATOR)
    host = world.hosts[COORDINATOR]
    world.begin(order())
    world.settle(stuck=[COORDINATOR])
    [transaction] = world.participant(STOCK).in_doubt
    hasty = world.start(host)
    # It would presume an abort, and the leader's commit becomes durable before it opens.
    world.step(host, hasty, Receive(STOCK, Inquiry(transaction)))
    assert world.packets == []


def test_a_deposed_coordinator_does_not_presume_of_what_it_has_not_heard() -> None:
    world = shop(COORDINATOR)
    host = world.hosts[COORDINATOR]
    [deposed] = host.lives
    successor = world.start(host)
    world.settle()
    world.begin(order(), successor)
    world.settle(stuck=[COORDINATOR])
    [transaction] = world.participant(STOCK).in_doubt
    world.step(host, deposed, Receive(STOCK, Inquiry(transaction)))
    assert world.packets == []
    world.settle()
    assert told(world) == [True] and tables(world) == AFTER


def test_a_deposed_participant_does_not_acknowledge_what_it_has_not_heard() -> None:
    world = shop(STOCK)
    host = world.hosts[STOCK]
    [deposed] = host.lives
    world.start(host)
    world.settle()
    world.begin(order())
    world.settle(stuck=[COORDINATOR])
    [transaction] = world.participant(STOCK).in_doubt
    world.step(host, deposed, Receive(COORDINATOR, Decision(transaction, True)))
    assert world.packets == []


# --- in doubt --------------------------------------------------------------------------------


def test_who_is_in_doubt_learns_from_a_peer_what_was_decided() -> None:
    world = shop()
    world.begin(order())
    world.settle(lost_to=[STOCK], stuck=[COORDINATOR])
    world.pass_time(200, stuck=[COORDINATOR])  # STOCK is asked again, and promises
    assert in_doubt(world) == list(EVERYBODY)
    world.settle(lost_to=[STOCK])
    stop(world, COORDINATOR)
    assert in_doubt(world) == [STOCK]
    world.pass_time(1000)
    assert in_doubt(world) == [] and tables(world) == AFTER


def test_a_peer_that_has_not_promised_ends_it() -> None:
    world = shop()
    world.begin(order())
    world.settle(lost_to=[STOCK, COORDINATOR])
    stop(world, COORDINATOR)
    assert in_doubt(world) == [ORDERS, PAYMENT]
    [transaction] = world.participant(ORDERS).in_doubt
    world.pass_time(1000)
    assert in_doubt(world) == locked(world) == [] and tables(world) == BEFORE
    # The Prepare that it had not seen comes late.
    say(world, COORDINATOR, STOCK, Prepare(transaction, EVERYBODY, 0, order()[STOCK]))
    [packet] = world.packets
    assert MESSAGES.decode(packet.data) == Vote(transaction, False, reason="was aborted before")


def test_a_peer_says_that_it_ended_it_only_when_that_is_durable() -> None:
    world = shop()
    transaction = TransactionId(COORDINATOR, 1 << 32)
    say(world, ORDERS, STOCK, Inquiry(transaction))
    assert world.packets == []
    world.sync(world.hosts[STOCK], world.hosts[STOCK].lives[-1])
    assert [MESSAGES.decode(packet.data) for packet in world.packets] == [Decision(transaction, False)]


def test_locks_and_promises_outlive_a_crash_of_all_participants() -> None:
    world = shop()
    vote_and_lose_the_coordinator(world)
    for name in EVERYBODY:
        stop(world, name)
        start(world, name)
    world.settle()
    assert in_doubt(world) == locked(world) == list(EVERYBODY)
    start(world, COORDINATOR)
    world.pass_time(500)
    world.begin(order(2))
    world.settle()
    assert told(world) == [True] and tables(world)[0] == {"order-2": 2}


# --- repeated, late, unknown -----------------------------------------------------------------


def prepares_of(world: World) -> list[tuple[Address, AnyMessage]]:
    return [(packet.to, MESSAGES.decode(packet.data)) for packet in world.packets]


def test_a_prepare_that_comes_after_the_commit_is_not_carried_out_again() -> None:
    world = shop()
    world.begin(order())
    late = prepares_of(world)
    world.settle()
    for name, message in late:
        say(world, COORDINATOR, name, message)
    assert locked(world) == []
    world.settle()
    # And when nobody remembers the transaction any more, because a later one said that it is finished.
    world.begin(order(2))
    world.settle()
    for name, message in late:
        say(world, COORDINATOR, name, message)
    assert locked(world) == [] and world.packets == []
    assert tables(world) == ({"order-1": 2, "order-2": 2}, {"apples": 6}, {"ann": 40, "till": 60})


def test_what_others_have_not_heard_of_yet_is_remembered_and_not_carried_out_again() -> None:
    world = shop()
    world.begin({ORDERS: operation(Create("order-0", 1))})
    world.packets.clear()  # so that it is not finished when the next one begins
    world.begin(order())
    late = prepares_of(world)
    world.settle(stuck=[COORDINATOR])
    world.settle(lost_to=[PAYMENT])
    world.pass_time(300, lost_to=[PAYMENT])
    assert told(world) == [True, True] and locked(world) == [PAYMENT]
    # The participants forget what was before the order; PAYMENT is still to hear of that.
    world.begin({ORDERS: operation(Create("order-2", 1)), STOCK: operation(Add("apples", -1))})
    world.settle(lost_to=[PAYMENT])
    assert told(world) == [True, True, True]
    for name, message in late:
        say(world, COORDINATOR, name, message)
    assert locked(world) == [PAYMENT]


def test_what_is_finished_is_not_remembered_for_ever() -> None:
    world = shop()
    for number in range(20):
        world.begin({STOCK: operation(Add("apples", -1), Add("apples", 1)), ORDERS: operation(Create(f"{number}", 1))})
        world.settle()
    assert told(world) == [True] * 20
    for name in (STOCK, ORDERS):
        state = world.hosts[name].state
        assert isinstance(state, ParticipantState) and len(state.resolved) == 1
    state = world.hosts[COORDINATOR].state
    assert isinstance(state, CoordinatorState) and not state.committed


def test_a_vote_that_comes_after_the_abort_is_answered() -> None:
    world = shop()
    say(world, STOCK, COORDINATOR, Vote(TransactionId(COORDINATOR, 5), True))
    [packet] = world.packets
    assert (packet.to, MESSAGES.decode(packet.data)) == (STOCK, Decision(TransactionId(COORDINATOR, 5), False))


def test_a_late_presumed_abort_does_not_undo_a_commit() -> None:
    world = shop()
    number = world.begin(order())
    world.settle()
    say(world, COORDINATOR, STOCK, Decision(TransactionId(COORDINATOR, number), False))
    world.settle()
    assert tables(world) == AFTER


# --- bad input -------------------------------------------------------------------------------


def refusal(world: World, number: int, operations: dict[Address, bytes]) -> tuple[Refusal, str]:
    host = world.hosts[COORDINATOR]
    refused = world.step(host, host.lives[-1], Begin(number, CLIENT, operations))
    assert refused is not None and world.packets == []
    return refused.refusal, refused.text


def test_a_number_that_is_not_new_is_refused_after_the_end_and_after_a_restart_too() -> None:
    world = shop()
    number = world.begin(order())
    for _ in range(2):
        text = f"transaction {number} is not new: the next number of coordinator is {number + 1}"
        world.settle()
        assert refusal(world, number, order(2)) == (Refusal.NOT_NEW, text)
    stop(world, COORDINATOR)
    start(world, COORDINATOR)
    assert refusal(world, number, order(2))[0] is Refusal.NOT_OPEN
    world.settle()
    assert refusal(world, number, order(2))[0] is Refusal.NOT_NEW
    assert tables(world) == AFTER


def test_a_number_of_a_later_life_and_a_transaction_of_nobody_are_refused() -> None:
    world = shop()
    assert refusal(world, 2 << 32, order())[0] is Refusal.NOT_OURS
    assert refusal(world, world.coordinator().next_number, {})[0] is Refusal.NO_PARTICIPANTS


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (b"\x00nonsense", "the operation is not a list of steps on a table"),
        (operation(Create("apples", 1)), "apples exists already"),
        (operation(Add("pears", 1)), "pears does not exist"),
        (operation(Delete("apples"), Add("apples", 1)), "apples does not exist"),
        (operation(Add("apples", 1 << 62), Add("apples", 1 << 62)), "would leave it outside"),
        (operation(Create("plums", (1 << 63) + 5)), "plums cannot be"),
    ],
)
def test_an_operation_that_cannot_be_done_is_a_no(steps: bytes, reason: str) -> None:
    world = shop()
    world.begin({STOCK: steps, PAYMENT: operation(Add("ann", 1))})
    world.settle()
    assert told(world) == [False] and reason in world.outcomes[0].reason
    assert tables(world) == BEFORE and locked(world) == []


def test_messages_that_nobody_would_send_change_nothing() -> None:
    world = shop()
    world.begin(order())
    world.settle(stuck=[COORDINATOR])
    [transaction] = world.participant(STOCK).in_doubt
    other = TransactionId("elsewhere", 7)
    before = [world.participant(name).locks for name in EVERYBODY]
    for number in (-1, 1 << 70, transaction.number):
        unknown = TransactionId(COORDINATOR, number)
        for to in (COORDINATOR, *EVERYBODY):
            say(world, "stranger", to, Prepare(unknown, EVERYBODY, number, b""))
            say(world, "stranger", to, Vote(unknown, True))
            say(world, "stranger", to, Decision(unknown, False))
            say(world, "stranger", to, Acknowledgement(unknown))
            say(world, "stranger", to, Outcome(unknown, False))
            say(world, "elsewhere", to, Prepare(other, ("nobody",), 0, order()[STOCK]))
            later = TransactionId(COORDINATOR, transaction.number + 1)
            say(world, COORDINATOR, to, Prepare(later, EVERYBODY, later.number + 1, operation(Read("pears"))))
    assert in_doubt(world) == locked(world) == list(EVERYBODY)
    assert all(len(world.participant(name).in_doubt) == 1 for name in EVERYBODY)
    assert [world.participant(name).locks for name in EVERYBODY] == before
    world.settle(lost_to=["stranger"])
    assert told(world) == [True] and tables(world) == AFTER


@pytest.mark.parametrize("data", [b"", b"\xc1", encode_record(Opened(1, 2))[:-1], b"\x91\xa9Committed", b"\xff" * 20])
def test_bytes_that_are_no_record_are_told_apart(data: bytes) -> None:
    with pytest.raises(InvalidRecord, match="not a record of a transaction"):
        decode_record(data)
