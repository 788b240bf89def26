"""How long the linearizability checker takes.

    python bench/checking.py                    10,000 operations of 16 clients over 10 keys
    python bench/checking.py --operations 6000 --clients 20 --keys 1

The histories come from a simulated run of a linearizable store: every client does one operation after the other, each
takes effect at a random moment while it runs, and all run at the same time.  One history is valid, one is made
invalid by one read, in some the outcomes of writes are unknown and the clients are renewed.
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from quorate.checking.history import JsonValue, Operation
from quorate.checking.linearizability import Verdict, check
from quorate.checking.models import KV

TARGET_S = 3.0
"""For 10,000 operations of 16 clients over 10 keys."""
FEW_VALUES = 5
EVERYTHING = ("get", "get", "get", "put", "put", "append", "cas", "delete")


@dataclass(frozen=True)
class Shape:
    """What the clients of a simulated run do."""

    operations: int
    clients: int
    keys: int
    unknown: int
    """How many operations that are no reads get no answer; half of them happen nevertheless, perhaps much later."""
    values: int
    """From so many different ones."""
    f: tuple[str, ...] = ("get", "get", "put", "put", "cas")


def simulate(shape: Shape, seed: int) -> list[Operation]:
    """A history that some order explains, by construction."""
    random_ = random.Random(f"{seed}/{shape}")
    store: dict[str, JsonValue] = {}
    operations: list[Operation] = []
    unknown = set(random_.sample(range(shape.operations), shape.unknown))
    happenings: list[tuple[float, int, Callable[[float], None]]] = []
    order = 0

    def at(moment: float, what: Callable[[float], None]) -> None:
        nonlocal order
        order += 1
        heapq.heappush(happenings, (moment, order, what))

    def client(process: int) -> Callable[[float], None]:
        def invoke(now: float) -> None:
            number = len(operations)
            if number == shape.operations:
                return
            f = random_.choice(shape.f)
            while number in unknown and f == "get":
                f = random_.choice(shape.f)
            key = f"key-{random_.randrange(shape.keys)}"
            new = f"value-{random_.randrange(shape.values)}"
            arguments: dict[str, JsonValue] = {"put": new, "append": f"{number},", "cas": [store.get(key), new]}
            argument = arguments.get(f)
            operations.append(Operation(process, f, key, argument, None, now, None, number + 1))
            effect = now + random_.expovariate(1.0)
            if number not in unknown:
                at(effect, lambda now: take_effect(number))
                at(effect + random_.expovariate(1.0), lambda now: answer(number, now))
            else:
                if random_.random() < 0.5:
                    at(now + random_.expovariate(0.02), lambda now: take_effect(number))
                at(now + 10.0, client(process + shape.clients))

        return invoke

    def take_effect(number: int) -> None:
        operation = operations[number]
        key, argument = operation.key or "", operation.argument
        result: JsonValue = True
        if operation.f == "get":
            result = store.get(key)
        elif operation.f == "put":
            store[key] = argument
        elif operation.f == "delete":
            result = store.pop(key, None) is not None
        elif operation.f == "append":
            store[key] = f"{store.get(key) or ''}{argument}"
        elif isinstance(argument, list):
            result = store.get(key) == argument[0]
            if result:
                store[key] = argument[1]
        operations[number] = replace(operation, result=result)

    def answer(number: int, now: float) -> None:
        operations[number] = replace(operations[number], returned_at=now)
        at(now + random_.expovariate(4.0), client(int(operations[number].process)))

    for process in range(shape.clients):
        at(random_.random(), client(process))
    while happenings:
        now, _, what = heapq.heappop(happenings)
        what(now)
    return operations


def spoil(operations: list[Operation]) -> list[Operation]:
    """One read of the last tenth returns what the key held long before."""
    for number in range(len(operations) * 9 // 10, len(operations)):
        late = operations[number]
        for early in operations[len(operations) // 2 :]:
            if late.f == early.f == "get" and early.key == late.key and early.result not in (None, late.result):
                return [*operations[:number], replace(late, result=early.result), *operations[number + 1 :]]
    raise ValueError("too few operations to spoil one")


def measure(name: str, operations: list[Operation], expected: Verdict) -> None:
    begin = time.process_time()
    answer = check(operations, KV)
    taken = time.process_time() - begin
    verdict = "as it should be" if answer.verdict is expected else f"WRONG, it is {expected.value}"
    small = f", {len(answer.counterexample)} operations shown" if answer.counterexample else ""
    print(
        f"{name:<52} {taken:>7.2f} s  {'met' if taken < TARGET_S else 'MISSED'}  {answer.steps:>10,} steps  "
        f"{answer.verdict.value}: {verdict}{small}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--unknown", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    many = options.operations * 100
    base = Shape(options.operations, options.clients, options.keys, 0, many)
    shapes = {
        "every value once": base,
        "every value once, some unknown": replace(base, unknown=options.unknown),
        f"{FEW_VALUES} values": replace(base, values=FEW_VALUES),
        f"{FEW_VALUES} values, some unknown": replace(base, values=FEW_VALUES, unknown=options.unknown),
        "appends": replace(base, f=("get", "append")),
        "appends, some unknown": replace(base, f=("get", "append"), unknown=options.unknown),
        "everything, some unknown": replace(base, f=EVERYTHING, unknown=options.unknown),
        f"everything, {FEW_VALUES} values, some unknown": replace(
            base, f=EVERYTHING, unknown=options.unknown, values=FEW_VALUES
        ),
    }
    print(f"{options.operations:,} operations, {options.clients} clients, {options.keys} keys; target {TARGET_S:g} s")
    for name, shape in shapes.items():
        operations = simulate(shape, options.seed)
        measure(name, operations, Verdict.VALID)
        if shape.values == many and "append" not in shape.f:
            measure(f"{name}, one read wrong", spoil(operations), Verdict.INVALID)


if __name__ == "__main__":
    main()
