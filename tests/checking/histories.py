"""Small histories, written down as one would draw them."""

from __future__ import annotations

from quorate.checking.history import JsonValue, Operation


def op(
    process: int,
    f: str,
    argument: JsonValue,
    result: JsonValue,
    invoked: float,
    returned: float | None,
    key: str | None = None,
) -> Operation:
    """An operation whose number is that of its process, hundredfold, and its time."""
    return Operation(process, f, key, argument, result, invoked, returned, line=100 * process + int(invoked))


def keyed(operations: list[Operation], key: str = "x") -> list[Operation]:
    return [
        Operation(each.process, each.f, key, each.argument, each.result, each.invoked_at, each.returned_at, each.line)
        for each in operations
    ]
