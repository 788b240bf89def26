"""JSON lines: what is read and written, and what is said of a line that is wrong."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.checking.history import HistoryError, Operation, read_json_lines, write_json_lines
from quorate.checking.linearizability import check
from quorate.checking.models import MODELS
from tests.checking.brute_force import random_history


def read(*events: str) -> list[Operation]:
    return read_json_lines(event.encode() for event in events)


INVOKE = '{"type": "invoke", "process": 0, "f": "read", "time": 1}'
OK = '{"type": "ok", "process": 0, "f": "read", "value": 5, "time": 2}'


def test_events_become_operations() -> None:
    assert read(
        '{"type": "invoke", "process": "a", "f": "put", "key": "x", "value": 1}',
        '{"type": "invoke", "process": 7, "f": "get", "key": 3}',
        "",
        '{"type": "ok", "process": "a"}',
        '{"type": "fail", "process": 7, "f": "get"}',
        '{"type": "invoke", "process": 7, "f": "get", "key": "x", "value": null, "comment": "again"}',
        '{"type": "info", "process": 7}',
        '{"type": "invoke", "process": "a", "f": "get", "key": "x"}',
        '{"type": "ok", "process": "a", "f": "get", "key": "x", "value": [1]}',
        '{"type": "invoke", "process": "b", "f": "delete", "key": "x"}',
    ) == [
        Operation("a", "put", "x", 1, None, 1, 4, 1),
        Operation(7, "get", "x", None, None, 6, None, 6),
        Operation("a", "get", "x", None, [1], 8, 9, 8),
        Operation("b", "delete", "x", None, None, 10, None, 10),
    ]


def test_times_are_those_of_the_events() -> None:
    assert read(INVOKE, OK) == [Operation(0, "read", None, None, 5, 1, 2, 1)]


@pytest.mark.parametrize(
    ("events", "line", "reason"),
    [
        ([], 1, "no events"),
        (["", "  "], 1, "no events"),
        ([INVOKE, "{"], 2, "not JSON"),
        ([INVOKE, '{"type": NaN}'], 2, "not JSON"),
        (["[" * 100_000], 1, "nested more than 100 deep"),
        (["[1]"], 1, r"an event is a JSON object, not \[1\]; write one object a line, with no array around them"),
        (["["], 1, "not JSON: .*; write one object a line, with no array around them"),
        ([INVOKE, OK.replace("5", "[" * 101 + "]" * 101)], 2, "nested more than 100 deep"),
        ([INVOKE, OK.replace("5", '{"a":' * 500 + "5" + "}" * 500)], 2, "nested more than 100 deep"),
        (
            [INVOKE, '{"type": "fail", "process": 0, "time": 1}'],
            1,
            "every operation failed, so there is nothing to check",
        ),
        (['{"process": 0, "f": "read"}'], 1, '"type" is missing'),
        (['{"type": "invoke", "f": "read"}'], 1, '"process" is missing'),
        (['{"type": "invoke", "process": 0}'], 1, '"f" is missing'),
        (
            [INVOKE, '{"type": "done", "process": 0, "time": 2}'],
            2,
            '"type" is "done", not one of invoke, ok, fail',
        ),
        (['{"type": [], "process": 0}'], 1, r'"type" is \[\], not one of'),
        (['{"type": "invoke", "process": true, "f": "read"}'], 1, '"process" is true, not a whole number or a string'),
        (['{"type": "invoke", "process": 1.5, "f": "read"}'], 1, '"process" is 1.5'),
        (['{"type": "invoke", "process": 0, "f": 5}'], 1, '"f" is 5, not a string'),
        (
            ['{"type": "invoke", "process": 0, "f": "get", "key": [1]}'],
            1,
            "a key is a string or a whole number",
        ),
        (['{"type": "invoke", "process": 0, "f": "get", "time": "9"}'], 1, '"time" is "9", not a number'),
        ([INVOKE, '{"type": "ok", "process": 0, "value": 5}'], 2, '"time" must be in all events or in none'),
        ([INVOKE, OK.replace("2", "0")], 2, "the time goes back, from 1 to 0"),
        ([OK], 1, "ok of process 0, which invoked nothing"),
        ([INVOKE, INVOKE], 2, "process 0 invokes read while its read of line 1 is still running"),
        ([INVOKE, OK.replace("read", "write")], 2, "ok of write, but line 1 invoked read"),
        ([INVOKE, OK.replace('"value"', '"key": "x", "value"')], 2, "ok for key 'x', but line 1 has key None"),
        ([INVOKE, OK.replace('"value": 5, ', "")], 2, '"value" is missing: what read found'),
        (
            [INVOKE, '{"type": "info", "process": 0, "time": 1}', INVOKE],
            3,
            "process 0 goes on although the outcome of its operation is unknown since line 2",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(events: list[str], line: int, reason: str) -> None:
    with pytest.raises(HistoryError, match=reason) as caught:
        read(*events)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"line {line}: ")


def test_values_may_be_nested_a_hundred_deep() -> None:
    value = "[" * 100 + "]" * 100
    (operation,) = read(INVOKE, OK.replace("5", value))
    assert json.dumps(operation.result) == value


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ('"f": "erase"', '"erase" is no operation of a kv'),
        ('"f": "cas", "key": "x", "value": 5', "needs a pair"),
        ('"f": "get"', "get needs a key"),
    ],
)
def test_a_failed_operation_that_does_not_exist_is_refused_too(event: str, reason: str) -> None:
    lines = [f'{{"type": "invoke", "process": 0, {event}}}', '{"type": "fail", "process": 0}']
    with pytest.raises(HistoryError, match=f"line 1: .*{reason}"):
        read_json_lines([line.encode() for line in lines], MODELS["kv"].action)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(HistoryError, match="line 2: not JSON"):
        read_json_lines([INVOKE.encode(), b'{"type": "\xff"}'])


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read_back(name: str) -> None:
    for seed in range(50):
        operations = random_history(random.Random(seed), name, 7)
        file = io.BytesIO()
        write_json_lines(operations, file)
        again = read_json_lines(file.getvalue().splitlines())
        unnumbered = [replace(each, line=0) for each in again]
        assert sorted(unnumbered, key=repr) == sorted((replace(each, line=0) for each in operations), key=repr)
        assert check(again, MODELS[name]).verdict is check(operations, MODELS[name]).verdict


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
OPERATIONS = ("read", "write", "cas", "get", "put", "append", "delete", "enqueue", "dequeue", "acquire", "release")
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["invoke", "invoke", "ok", "ok", "fail", "info"]) | JSON,
        "process": st.integers(0, 2) | JSON,
        "f": st.sampled_from(OPERATIONS) | JSON,
        "key": st.sampled_from(["x", "y"]) | JSON,
        "value": JSON,
    },
)


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(EVENTS, max_size=8), st.sampled_from(sorted(MODELS)))
def test_any_events_are_checked_or_refused(events: list[dict[str, object]], model: str) -> None:
    try:
        operations = read_json_lines(json.dumps(event).encode() for event in events)
        check(operations, MODELS[model], max_steps=10_000)
    except HistoryError as error:
        assert error.reason


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_bytes_are_refused_as_a_history(lines: list[bytes]) -> None:
    with pytest.raises(HistoryError):
        read_json_lines(lines)
