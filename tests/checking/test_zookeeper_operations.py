"""Calls as operations of a key-value store, and what a checker of linearizability makes of them."""

from __future__ import annotations

from typing import Any

from quorate.checking.linearizability import Verdict, check
from quorate.checking.models import KV
from quorate.checking.zookeeper.operations import operations
from quorate.checking.zookeeper.records import BAD_VERSION, NO_NODE, NODE_EXISTS, Kind, Part
from quorate.services.zookeeper.errors import ErrorCode
from tests.checking.zookeeper_log import Log


def told(log: Log) -> list[tuple[Any, ...]]:
    return [(each.process, each.f, each.key, each.argument, each.result) for each in operations(log.history)]


def everything() -> Log:
    log = Log()
    first = log.session()
    log.create(first, "/k", "a", 1, process="p")
    log.create(first, "/k", "b", 2, process="p", code=NODE_EXISTS)
    log.get(first, "/k", "a", (1, 1, 0), 2).process = "p"
    log.set(first, "/k", "c", 3, 1, process="p")
    log.set(first, "/k", "d", 4, 2, process="p", expected_version=1, expected_value="c")
    log.set(first, "/k", "e", 5, process="p", code=BAD_VERSION, expected_version=1, expected_value="c")
    log.delete(first, "/k", 6, process="p")
    log.delete(first, "/k", 7, process="p", code=NO_NODE)
    log.set(first, "/k", "f", 8, process="p", code=NO_NODE)
    missing = log.get(first, "/k", "", (0, 0, 0), 8)
    missing.process, missing.code, missing.value = "p", NO_NODE, None
    log.multi(first, 9, Part(Kind.CREATE, "/k", "g"), Part(Kind.SET, "/r", "h"), Part(Kind.CHECK, "/r"), process="p")
    log.multi(first, 10, Part(Kind.DELETE, "/k"), process="p")
    return log


def test_each_call_becomes_what_it_is_in_the_model() -> None:
    assert told(everything()) == [
        ("p", "cas", "/k", [None, "a"], True),
        ("p", "cas", "/k", [None, "b"], False),
        ("p", "get", "/k", None, "a"),
        ("p", "put", "/k", "c", None),
        ("p", "cas", "/k", ["c", "d"], True),
        ("p", "cas", "/k", ["c", "e"], False),
        ("p", "delete", "/k", None, True),
        ("p", "delete", "/k", None, False),
        ("p", "get", "/k", None, None),
        ("p", "get", "/k", None, None),
        ("p/0", "cas", "/k", [None, "g"], True),
        ("p/1", "put", "/r", "h", None),
        ("p/0", "delete", "/k", None, True),
    ]


def test_the_checker_agrees_and_finds_one_wrong_record() -> None:
    log = everything()
    assert check(operations(log.history), KV).verdict is Verdict.VALID
    for call in log.history.calls:
        if call.kind is Kind.GET and call.code == NO_NODE:
            call.code, call.value = 0, "c"
    assert check(operations(log.history), KV).verdict is Verdict.INVALID


def test_unknown_outcomes_stay_unknown_and_what_says_nothing_is_left_out() -> None:
    log = Log()
    first = log.session()
    log.create(first, "/k", "a", None, process="p1")
    log.set(first, "/k", "b", None, process="p2")
    log.delete(first, "/k", None, process="p3")
    log.multi(first, None, Part(Kind.SET, "/k", "c"), process="p4")
    assert [each.returned_at for each in operations(log.history)] == [None] * 4
    assert [each.f for each in operations(log.history)] == ["cas", "put", "delete", "put"]
    empty = Log()
    first = empty.session()
    # A read without a sync, or without an answer; what surely did nothing; what belongs to no process.
    empty.get(first, "/k", "a", (1, 1, 0), 1, synced=False).process = "p"
    unanswered = empty.get(first, "/k", "a", (1, 1, 0), 1)
    unanswered.process, unanswered.returned_at = "p", None
    empty.set(first, "/k", "b", 1, process="p", code=int(ErrorCode.SYSTEM_ERROR))
    empty.multi(first, 1, Part(Kind.SET, "/k", "c"), process="p", code=NO_NODE)
    empty.set(first, "/own", "d", 2, 1)
    assert operations(empty.history) == []
