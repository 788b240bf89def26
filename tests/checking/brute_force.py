"""A checker that tries every order, with a specification of its own: slow, and plain enough to be believed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from quorate.checking.history import JsonValue, Operation

Object = list[JsonValue]
"""What an object holds: of a register or key the value, of a lock the holder, of a queue everything in it."""


def linearizable(operations: list[Operation], model: str) -> bool:
    for key in dict.fromkeys(operation.key for operation in operations):
        part = [operation for operation in operations if operation.key == key]
        if not any(explains(order, model) for order in orders(part)):
            return False
    return True


def orders(operations: list[Operation]) -> Iterator[tuple[Operation, ...]]:
    """Every order of every choice of those whose outcome is unknown that agrees with time."""
    known = [operation for operation in operations if operation.returned_at is not None]
    unknown = [operation for operation in operations if operation.returned_at is None]
    for size in range(len(unknown) + 1):
        for happened in itertools.combinations(unknown, size):
            for order in itertools.permutations([*known, *happened]):
                if not any(before(late, early) for early, late in itertools.combinations(order, 2)):
                    yield order


def before(first: Operation, second: Operation) -> bool:
    if first.returned_at is None:
        return False
    same_process = first.process == second.process and first.line < second.line
    return first.returned_at < second.invoked_at or same_process


def explains(order: tuple[Operation, ...], model: str) -> bool:
    held: Object = [] if model == "queue" else [None]
    step = {"register": value_step, "kv": value_step, "queue": queue_step, "lock": lock_step}[model]
    for operation in order:
        answer = step(held, operation)
        if operation.returned_at is not None and not same(answer, operation.result):
            return False
    return True


def same(answer: JsonValue, result: JsonValue) -> bool:
    """A success may be recorded as null, too."""
    return (type(answer) is type(result) and answer == result) or (answer is True and result is None)


def value_step(held: Object, operation: Operation) -> JsonValue:
    argument = operation.argument
    match operation.f:
        case "read" | "get":
            # A value that is true would be taken for a success by `same`; tests use numbers and strings.
            return held[0]
        case "write" | "put":
            held[0] = argument
        case "append":
            assert isinstance(argument, str)
            held[0] = str(held[0] or "") + argument
        case "delete":
            was_there = held[0] is not None
            held[0] = None
            return was_there or (None if operation.result is None else False)
        case "cas":
            assert isinstance(argument, list)
            if held[0] != argument[0]:
                return False
            held[0] = argument[1]
    return True


def queue_step(held: Object, operation: Operation) -> JsonValue:
    if operation.f == "enqueue":
        held.append(operation.argument)
        return True
    return held.pop(0) if held else None


def lock_step(held: Object, operation: Operation) -> JsonValue:
    if operation.f == "acquire":
        if held[0] is not None:
            return False
        held[0] = operation.process
        return True
    if held[0] != operation.process:
        return False
    held[0] = None
    return True


def random_history(random_: random.Random, model: str, most: int) -> list[Operation]:
    """A small history: played by a real object with overlapping operations, and then perhaps spoilt."""
    operations: list[Operation] = []
    objects: dict[str | None, Object] = {}
    step: Callable[[Object, Operation], JsonValue]
    step = {"register": value_step, "kv": value_step, "queue": queue_step, "lock": lock_step}[model]
    keys: list[str | None] = (
        ["x", "y"] if model == "kv" and random_.random() < 0.3 else ["x" if model == "kv" else None]
    )
    process = 0
    last_return: dict[int, int] = {}
    count = random_.randint(1, most)
    spread = random_.choice((2, 4, 12))
    for number in range(count):
        process = random_.randint(0, 3)
        invoked = max(last_return.get(process, 0), number * 2 + random_.randint(-spread, spread))
        returned = invoked + random_.randint(0, spread * 2)
        last_return[process] = returned
        f, argument = random_call(random_, model, number)
        operations.append(Operation(process, f, random_.choice(keys), argument, None, invoked, returned, number + 1))
    # Each takes effect at a random moment while it runs, mostly.
    moments = [(random_.uniform(each.invoked_at, each.returned_at or 0), each.line) for each in operations]
    for _, line in sorted(moments):
        operation = operations[line - 1]
        if operation.f == "delete" and random_.random() < 0.5:
            operation = replace(operation, result=True)
        held = objects.setdefault(operation.key, [] if model == "queue" else [None])
        result = step(held, operation)
        if operation.f == "delete" and operation.result is None:
            result = None
        operations[line - 1] = replace(operation, result=result)
    for _ in range(random_.choice((0, 0, 1, 2))):
        spoil(random_, operations)
    return forget(random_, operations)


def random_call(random_: random.Random, model: str, number: int) -> tuple[str, JsonValue]:
    value = random_.choice((random_.randint(1, 2), number + 10))
    if model == "queue":
        return random_.choice((("enqueue", value), ("dequeue", None)))
    if model == "lock":
        return random_.choice((("acquire", None), ("release", None)))
    old = random_.choice((None, 1, 2, number + 9))
    if model == "register":
        return random_.choice((("read", None), ("read", None), ("write", value), ("cas", [old, value])))
    words = str(random_.randint(0, 1))
    return random_.choice(
        (
            *(("get", None), ("get", None), ("put", words), ("append", words), ("delete", None)),
            ("cas", [random_.choice((None, "0", "1", "01")), random_.choice((None, words))]),
        )
    )


def spoil(random_: random.Random, operations: list[Operation]) -> None:
    """Change a result to that of another operation, or shift one in time."""
    number = random_.randrange(len(operations))
    operation = operations[number]
    if operation.f in ("read", "get", "dequeue"):
        other = random_.choice(operations)
        value = other.result if other.f == operation.f else other.argument
        if not isinstance(value, list):
            operations[number] = replace(operation, result=value)
    elif operation.f in ("cas", "acquire", "release") or (operation.f == "delete" and operation.result is not None):
        operations[number] = replace(operation, result=not operation.result)


def forget(random_: random.Random, operations: list[Operation]) -> list[Operation]:
    """Make some outcomes unknown; the client goes on as another process, where the owner does not matter."""
    names: dict[int | str, int] = {}
    kept = []
    for operation in sorted(operations, key=lambda each: (each.invoked_at, each.line)):
        process = names.setdefault(operation.process, int(operation.process))
        operation = replace(operation, process=process)
        if random_.random() < 0.25:
            operation = replace(operation, returned_at=None, result=None)
            names[process % 4] = process + 4
        kept.append(operation)
    return kept
