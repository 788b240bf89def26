"""Classes in the simulator: a right one under all faults on each protocol, and bugs that users write."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence

import pytest

import quorate
from quorate.checking.history import Operation
from quorate.simulation.own import ClientWorld, CommandClient, Simulate
from tests.simulation.own_code import Failed
from tests.simulation.own_code import simulate as simulate_to_fail
from tests.statemachine.shop import SoldOut, Stock


async def shop(world: ClientWorld) -> None:
    async with CommandClient(Stock, world) as stock:
        while not world.stopping:
            try:
                if world.random.random() < 0.5:
                    with world.history.operation("add", 2) as operation:
                        operation.ok(await stock.submit(Stock.add, "apples", 2))
                else:
                    with world.history.operation("take", 3) as operation:
                        try:
                            operation.ok(await stock.submit(Stock.take, "apples", 3))
                        except SoldOut as error:
                            assert error.args == ("apples", 3)
                            world.coverage["sold out"] += 1
                            operation.fail()
            except (quorate.Refused, quorate.OutcomeUnknown):
                pass
            await asyncio.sleep(world.random.uniform(0.0, 0.1))


async def count(world: ClientWorld) -> None:
    async with CommandClient(Stock, world) as stock:
        with world.history.operation("count") as operation:
            operation.ok(await stock.query(Stock.count, "apples"))


def nothing_is_made_or_lost(operations: Sequence[Operation]) -> Iterator[str]:
    change = {"add": 2, "take": -3, "count": 0}
    known = sum(change[each.f] for each in operations if each.returned_at is not None)
    in_doubt = [change[each.f] for each in operations if each.returned_at is None]
    least, most = known + sum(min(it, 0) for it in in_doubt), known + sum(max(it, 0) for it in in_doubt)
    (counted,) = (each.result for each in operations if each.f == "count")
    if not (isinstance(counted, int) and max(least, 0) <= counted <= most):
        yield f"there are {counted} apples: there should be {least} to {most}"


@pytest.mark.parametrize("protocol", ["raft", "paxos", "zab"])
def test_a_class_passes_under_all_faults(simulate: Simulate, protocol: str) -> None:
    coverage = simulate(
        client=shop,
        finish=count,
        check=nothing_is_made_or_lost,
        state_machine=Stock,
        protocol=protocol,
        seeds=1,
        duration_s=4,
    )
    assert coverage["add"] and coverage["take"] and coverage["sold out"]


class Moody(Stock):
    @quorate.command
    def add(self, item: str, count: int = 1) -> int:
        return super().add(item, random.choice([count, count + 1]))


class Breaking(Stock):
    @quorate.command
    def take(self, item: str, count: int) -> int:
        return 1 // 0


@pytest.mark.parametrize(
    ("machine", "check", "seen"),
    [
        (Moody, "state machine agreement", "gives b'"),
        (Breaking, "state machine failed", r"Breaking.take('apples', 3) raised ZeroDivisionError"),
    ],
)
def test_a_wrong_class_is_caught(machine: type[Stock], check: str, seen: str) -> None:
    with pytest.raises(Failed) as failed:
        simulate_to_fail()(shop, state_machine=machine, seeds=1, duration_s=3, faults="none", shrink_tries=0)
    assert f"check    {check}" in str(failed.value)
    assert seen in str(failed.value)
