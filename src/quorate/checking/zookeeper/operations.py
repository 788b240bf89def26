"""The calls that are linearizable, as operations of a key-value store (`quorate.checking.models.KV`)."""

from __future__ import annotations

from collections.abc import Iterator

from quorate.checking.history import JsonValue, Operation
from quorate.checking.zookeeper.records import BAD_VERSION, NO_NODE, NODE_EXISTS, OK, Call, History, Kind, Part


def operations(history: History) -> list[Operation]:
    """Writes, and reads behind a sync, of the calls that belong to a process.

    A create is a compare-and-set from null, as a key that is absent reads null.  A set that found no node has read
    null.  A set with an expected version is a compare-and-set of the value that its caller had read there: on a node
    that is never deleted, with values that are never written twice, versions and values stand for one another.  The
    parts of a multi stand for themselves, each as a process of its own: one key at a time is looked at.  A failed multi
    did nothing, and a read without an answer says nothing: these are left out.
    """
    found: list[Operation] = []
    for line, call in enumerate(history.calls, 1):
        if call.process:
            found.extend(_operations(call, line))
    return found


def _operations(call: Call, line: int) -> Iterator[Operation]:
    if call.returned_at is not None and call.code not in (OK, NO_NODE, NODE_EXISTS, BAD_VERSION):
        return
    if call.kind is Kind.MULTI:
        if call.is_done() or call.is_unknown():
            for number, part in enumerate(call.parts):
                if part.kind is not Kind.CHECK:
                    yield _part(call, part, number, line)
    elif call.kind is Kind.GET:
        if call.synced and not call.is_unknown():
            yield _operation(call, line, "get", None, call.value if call.is_done() else None)
    elif call.kind is Kind.SET:
        if call.code == NO_NODE:
            yield _operation(call, line, "get", None, None)
        elif call.expected_value is not None:
            yield _operation(call, line, "cas", [call.expected_value, call.value], call.code == OK)
        elif call.code == OK:
            yield _operation(call, line, "put", call.value, None)
    elif call.kind is Kind.CREATE:
        if call.code in (OK, NODE_EXISTS):
            yield _operation(call, line, "cas", [None, call.value], call.code == OK)
    elif call.kind is Kind.DELETE and call.code in (OK, NO_NODE):
        yield _operation(call, line, "delete", None, call.code == OK)


def _part(call: Call, part: Part, number: int, line: int) -> Operation:
    process = f"{call.process}/{number}"
    argument: JsonValue
    if part.kind is Kind.SET:
        f, argument = "put", part.value
    elif part.kind is Kind.CREATE:
        f, argument = "cas", [None, part.value]
    else:
        f, argument = "delete", None
    result = None if part.kind is Kind.SET else True
    return Operation(process, f, part.path, argument, result, call.invoked_at, call.returned_at, line)


def _operation(call: Call, line: int, f: str, argument: JsonValue, result: JsonValue) -> Operation:
    return Operation(call.process, f, call.path, argument, result, call.invoked_at, call.returned_at, line)
