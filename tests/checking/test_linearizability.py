"""The checker against histories made by hand, and against one that tries every order."""

from __future__ import annotations

import random

import pytest

from quorate.checking.history import HistoryError, JsonValue, Operation
from quorate.checking.linearizability import Answer, Verdict, check
from quorate.checking.models import KV, LOCK, MODELS, QUEUE, REGISTER, Model
from tests.checking.brute_force import linearizable, random_history
from tests.checking.histories import keyed, op

RANDOM_HISTORIES = 1500
"""For each model; a tenth of a millisecond each with five operations."""

WRITES = [op(1, "write", 1, None, 0, 10), op(2, "write", 2, None, 20, 30)]
LOST = op(2, "write", 2, None, 20, None)
"""A write whose outcome is unknown."""
ENQUEUES = [op(1, "enqueue", "a", None, 0, 10), op(1, "enqueue", "b", None, 20, 30)]

CASES: list[tuple[str, Model, list[Operation], bool]] = [
    ("an empty register", REGISTER, [op(1, "read", None, None, 0, 10)], True),
    ("a value from nowhere", REGISTER, [op(1, "read", None, 1, 0, 10)], False),
    ("the latest value", REGISTER, [*WRITES, op(3, "read", None, 2, 40, 50)], True),
    ("a stale value", REGISTER, [*WRITES, op(3, "read", None, 1, 40, 50)], False),
    ("the old value during a write", REGISTER, [*WRITES, op(3, "read", None, 1, 25, 50)], True),
    (
        "new and then old during a write",
        REGISTER,
        [*WRITES[:1], op(2, "write", 2, 2, 20, 90), op(3, "read", None, 2, 30, 40), op(3, "read", None, 1, 50, 60)],
        False,
    ),
    ("an unknown write that happened", REGISTER, [WRITES[0], LOST, op(3, "read", None, 2, 900, 910)], True),
    ("an unknown write that did not", REGISTER, [WRITES[0], LOST, op(3, "read", None, 1, 900, 910)], True),
    (
        "an unknown write that happened late",
        REGISTER,
        [WRITES[0], LOST, op(3, "read", None, 1, 40, 50), op(3, "read", None, 2, 60, 70)],
        True,
    ),
    (
        "an unknown write that happened twice",
        REGISTER,
        [
            *(WRITES[0], LOST, op(3, "read", None, 2, 40, 50), op(3, "write", 3, None, 60, 70)),
            op(3, "read", None, 2, 80, 90),
        ],
        False,
    ),
    ("an unknown write before its time", REGISTER, [LOST, op(3, "read", None, 2, 0, 10)], False),
    ("a cas that finds its value", REGISTER, [WRITES[0], op(3, "cas", [1, 5], True, 40, 50)], True),
    ("a cas that succeeds without its value", REGISTER, [WRITES[0], op(3, "cas", [2, 5], [2, 5], 40, 50)], False),
    ("a cas that rightly fails", REGISTER, [WRITES[0], op(3, "cas", [2, 5], False, 40, 50)], True),
    ("a cas that wrongly fails", REGISTER, [WRITES[0], op(3, "cas", [1, 5], False, 40, 50)], False),
    ("true is not 1", REGISTER, [WRITES[0], op(3, "read", None, True, 40, 50)], False),
    ("1.0 is 1", REGISTER, [WRITES[0], op(3, "read", None, 1.0, 40, 50)], True),
    (
        "objects are equal in any order of names",
        REGISTER,
        [op(1, "write", {"a": 1, "b": [2]}, None, 0, 10), op(1, "read", None, {"b": [2], "a": 1}, 20, 30)],
        True,
    ),
    ("a key that was created once", KV, keyed([op(1, "cas", [None, "a"], True, 0, 10)]), True),
    (
        "a key that was created twice",
        KV,
        keyed([op(1, "cas", [None, "a"], True, 0, 10), op(2, "cas", [None, "b"], True, 0, 10)]),
        False,
    ),
    (
        "created, deleted, created",
        KV,
        keyed(
            [
                op(1, "cas", [None, "a"], True, 0, 90),
                op(2, "cas", [None, "b"], True, 0, 90),
                op(3, "delete", None, True, 0, 90),
            ]
        ),
        True,
    ),
    (
        "appends in the order of time",
        KV,
        keyed(
            [op(1, "append", "a", None, 0, 10), op(1, "append", "b", None, 20, 30), op(1, "get", None, "ab", 40, 50)]
        ),
        True,
    ),
    (
        "appends against the order of time",
        KV,
        keyed(
            [op(1, "append", "a", None, 0, 10), op(1, "append", "b", None, 20, 30), op(1, "get", None, "ba", 40, 50)]
        ),
        False,
    ),
    ("deleted what was not there", KV, keyed([op(1, "delete", None, False, 0, 10)]), True),
    (
        "deleted what was there, and did not find it",
        KV,
        keyed([op(1, "put", 1, None, 0, 10), op(1, "delete", None, False, 20, 30)]),
        False,
    ),
    (
        "keys do not touch",
        KV,
        [*keyed([op(1, "put", 1, None, 0, 10)], "x"), *keyed([op(1, "get", None, None, 20, 30)], "y")],
        True,
    ),
    (
        "first in, first out",
        QUEUE,
        [*ENQUEUES, op(2, "dequeue", None, "a", 40, 50), op(2, "dequeue", None, "b", 60, 70)],
        True,
    ),
    (
        "last in, first out",
        QUEUE,
        [*ENQUEUES, op(2, "dequeue", None, "b", 40, 50), op(2, "dequeue", None, "a", 60, 70)],
        False,
    ),
    ("dequeued before it was enqueued", QUEUE, [*ENQUEUES, op(2, "dequeue", None, "b", 12, 18)], False),
    ("an empty queue", QUEUE, [op(1, "dequeue", None, None, 0, 5), op(2, "enqueue", 1, None, 4, 9)], True),
    ("a full queue that seems empty", QUEUE, [*ENQUEUES, op(2, "dequeue", None, None, 40, 50)], False),
    (
        "an unknown dequeue that happened",
        QUEUE,
        [*ENQUEUES, op(2, "dequeue", None, None, 40, None), op(3, "dequeue", None, "b", 60, 70)],
        True,
    ),
    (
        "one after the other",
        LOCK,
        [op(1, "acquire", None, None, 0, 10), op(1, "release", None, None, 20, 40), op(2, "acquire", None, 7, 5, 50)],
        True,
    ),
    ("two at once", LOCK, [op(1, "acquire", None, None, 0, 10), op(2, "acquire", None, None, 20, 30)], False),
    (
        "a lock of another released",
        LOCK,
        [op(1, "acquire", None, None, 0, 9), op(2, "release", None, True, 20, 30)],
        False,
    ),
    ("a lock that was taken", LOCK, [op(1, "acquire", None, None, 0, 9), op(2, "acquire", None, False, 20, 30)], True),
    ("a free lock that seems taken", LOCK, [op(2, "acquire", None, False, 20, 30)], False),
    (
        "a lock that ran out",
        LOCK,
        [
            *(op(1, "acquire", None, None, 0, 10), op(1, "release", None, None, 20, None)),
            op(2, "acquire", None, None, 40, 50),
        ],
        True,
    ),
    (
        "who perhaps holds it, perhaps not",
        LOCK,
        [op(1, "acquire", None, None, 0, None), op(2, "acquire", None, None, 20, 30)],
        True,
    ),
]


@pytest.mark.parametrize(
    ("model", "operations", "valid"), [case[1:] for case in CASES], ids=[f"{case[1].name}: {case[0]}" for case in CASES]
)
def test_histories_made_by_hand(model: Model, operations: list[Operation], valid: bool) -> None:
    answer = check(operations, model)
    assert answer.verdict is (Verdict.VALID if valid else Verdict.INVALID)
    assert bool(answer.counterexample) is not valid
    backwards = check(operations[::-1], model)
    assert backwards.verdict is answer.verdict


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("size", "histories"), [(5, RANDOM_HISTORIES), (7, RANDOM_HISTORIES // 5)])
def test_it_agrees_with_trying_every_order(name: str, size: int, histories: int) -> None:
    verdicts = set()
    for seed in range(histories):
        operations = random_history(random.Random(f"{size}/{seed}/{name}"), name, size)
        answer = check(operations, MODELS[name])
        expected = linearizable(operations, name)
        assert answer.verdict is (Verdict.VALID if expected else Verdict.INVALID), (seed, operations)
        if answer.verdict is Verdict.INVALID:
            assert not linearizable(list(answer.counterexample), name), (seed, operations)
        verdicts.add(expected)
    assert verdicts == {True, False}


# --- time --------------------------------------------------------------------------------------


def test_at_one_moment_nothing_is_before_another_client() -> None:
    """The write returned when the read began: who knows which was first?"""
    assert check([op(1, "write", 1, None, 0, 10), op(2, "read", None, None, 10, 20)], REGISTER).verdict is Verdict.VALID


def test_at_one_moment_a_client_knows_its_own_order() -> None:
    own = [op(1, "write", 1, None, 0, 10), op(1, "read", None, None, 10, 20)]
    assert check(own, REGISTER).verdict is Verdict.INVALID


def test_operations_that_take_no_time() -> None:
    instant = [op(1, "write", value, None, 0, 0) for value in (1, 2)]
    assert check([*instant, op(1, "read", None, 2, 0, 0)], REGISTER).verdict is Verdict.VALID
    assert check([*instant, op(1, "read", None, 1, 0, 0)], REGISTER).verdict is Verdict.INVALID


# --- the counterexample --------------------------------------------------------------------------


def sequence(count: int) -> list[Operation]:
    """Writes of 0, 1, 2, ... each read at once."""
    operations = []
    for number in range(count):
        operations += [
            op(1, "write", number, None, 100 * number, 100 * number + 10),
            op(2, "read", None, number, 100 * number + 20, 100 * number + 30),
        ]
    return operations


def described(operations: tuple[Operation, ...]) -> list[tuple[str, JsonValue]]:
    return [(each.f, each.argument if each.f == "write" else each.result) for each in operations]


def test_the_counterexample_is_small_and_has_what_a_person_needs() -> None:
    operations = [*sequence(30), op(3, "read", None, 17, 5000, 5010), *sequence(0)]
    answer = check([*operations, op(3, "read", None, 29, 6000, 6010)], REGISTER)
    assert answer.verdict is Verdict.INVALID
    # Where 17 comes from, something that was certainly later, and the stale read.
    assert described(answer.counterexample)[0] == ("write", 17)
    assert described(answer.counterexample)[-1] == ("read", 17)
    assert len(answer.counterexample) == 3
    assert answer.stuck == (answer.counterexample[-1],)
    assert answer.order == answer.counterexample[:2]
    assert answer.state.startswith("the value is ")


def test_a_release_is_not_left_out_of_a_counterexample_to_make_one() -> None:
    """Without the first release both acquires would be impossible, which they are not."""
    good = [
        *(op(1, "acquire", None, None, 0, 10), op(1, "release", None, None, 20, 30)),
        *(op(2, "acquire", None, None, 40, 50), op(2, "release", None, None, 60, 70)),
    ]
    answer = check([*good, op(3, "acquire", None, None, 80, 90), op(4, "acquire", None, None, 100, 110)], LOCK)
    assert [each.process for each in answer.counterexample] == [3, 4]


def test_the_invalid_key_is_named() -> None:
    answer = check([*keyed(WRITES_OF_KV, "fine"), *keyed([op(9, "get", None, 7, 0, 9)], "torn")], KV)
    assert (answer.verdict, answer.key, answer.keys, answer.operations) == (Verdict.INVALID, "torn", 2, 3)


WRITES_OF_KV = [op(1, "put", 1, None, 0, 10), op(2, "put", 2, None, 20, 30)]


# --- unknown outcomes and work ---------------------------------------------------------------------


def hard(letters: int = 7) -> list[Operation]:
    """Appends in any order, and a value that none of the orders gives."""
    appends = [op(number, "append", chr(ord("a") + number), None, 0, 10) for number in range(1, letters)]
    return keyed([op(0, "put", "", None, 0, 10), *appends, op(0, "get", None, "z", 20, 30)])


def test_running_out_of_steps_is_undecided() -> None:
    few: Answer = check(hard(), KV, max_steps=1_000)
    assert (few.verdict, few.key, few.counterexample) == (Verdict.UNDECIDED, "x", ())
    assert few.steps <= 1_000 + len(hard())
    assert check(hard(), KV).verdict is Verdict.INVALID


def test_an_undecided_key_does_not_hide_an_invalid_one() -> None:
    other = keyed([op(20, "get", None, 7, 0, 9)], "y")
    answer = check([*hard(), *other], KV, max_steps=1_000)
    assert (answer.verdict, answer.key) == (Verdict.INVALID, "y")


def test_many_unknown_outcomes_are_no_trouble() -> None:
    lost = [op(100 + number, "write", number % 5, None, number, None) for number in range(200)]
    history = [*sequence(50), *lost]
    assert check(history, REGISTER, max_steps=500_000).verdict is Verdict.VALID
    wrong = [*history, op(3, "read", None, "nobody wrote this", 99_000, 99_010)]
    assert check(wrong, REGISTER, max_steps=500_000).verdict is Verdict.INVALID


def test_enqueues_at_one_time_are_no_trouble() -> None:
    """The order of each pair shows only when everything is dequeued."""
    pairs = 40
    queue = [
        op(client, "enqueue", f"{pair}/{client}", None, 10 * pair, 10 * pair + 5)
        for pair in range(pairs)
        for client in (1, 2)
    ]
    out = [f"{pair}/{client}" for pair in range(pairs) for client in random.Random(pair).sample((1, 2), 2)]
    queue += [op(3, "dequeue", None, item, 1000 + 10 * number, 1005 + 10 * number) for number, item in enumerate(out)]
    assert check(queue, QUEUE, max_steps=20_000).verdict is Verdict.VALID
    last = queue.pop()
    wrong = [*queue, op(3, "dequeue", None, "0/1", last.invoked_at, last.returned_at)]
    assert check(wrong, QUEUE, max_steps=20_000).verdict is Verdict.INVALID


def test_the_same_history_takes_the_same_steps() -> None:
    assert check(hard(), KV).steps == check(hard(), KV).steps


# --- what the models refuse ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "operation", "reason"),
    [
        (REGISTER, op(1, "get", None, None, 7, 9), '"get" is no operation of a register: read, write, cas'),
        (KV, op(1, "get", None, None, 7, 9), "get needs a key"),
        (REGISTER, op(1, "read", ["x", None], None, 7, 9), r"the argument of read is \[\"x\",null\]; it takes none"),
        (REGISTER, op(1, "cas", "ab", None, 7, 9), r"it needs a pair, \[old, new\]"),
        (REGISTER, op(1, "cas", [1], None, 7, 9), r"it needs a pair, \[old, new\]"),
        (REGISTER, op(1, "write", 1, 2, 7, 9), "the result of write 1 is 2; a success says null or true"),
        (KV, keyed([op(1, "put", None, None, 7, 9)])[0], "needs a value"),
        (KV, keyed([op(1, "append", 5, None, 7, 9)])[0], "needs a string"),
        (QUEUE, op(1, "enqueue", None, None, 7, 9), "needs a value"),
        (LOCK, op(1, "acquire", 5, None, 7, 9), "takes none"),
        (REGISTER, op(1, "read", None, None, 7, 6), "read returned before it was invoked"),
    ],
)
def test_an_operation_that_makes_no_sense(model: Model, operation: Operation, reason: str) -> None:
    with pytest.raises(HistoryError, match=reason) as caught:
        check([operation], model)
    assert caught.value.line == 107


def test_a_process_does_one_thing_at_a_time() -> None:
    with pytest.raises(
        HistoryError, match="line 120: process 1 invokes read while its write of line 100 may still run"
    ):
        check([op(1, "write", 1, None, 0, None), op(1, "read", None, 1, 20, 30)], REGISTER)
