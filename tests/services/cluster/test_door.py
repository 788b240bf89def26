"""The door between a node and its cluster group, on every loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from quorate.consensus.replica import Leadership, NodeId, RandomSource, Role
from quorate.services.cluster.commands import Add, Form, Member, Remove
from quorate.services.cluster.door import ChangeRefused, ClusterDoor, OutcomeUnknown, Waiter
from quorate.services.cluster.service import CLUSTER
from quorate.services.cluster.store import ClusterStore, Outcome
from quorate.services.interface import Door, DoorConfig, Group, Refused
from tests.services.cluster.stories import Story, address, voter
from tests.simulation.loops import BuildLoop, on_every_loop, run

FORM = Form("c" * 32, [voter(1), voter(2)], [0, 1])


class GroupOfOne:
    """`services.interface.Group` of one node: what is submitted is applied in the loop's next turn."""

    def __init__(self) -> None:
        self.node_id = 1
        self.leadership = Leadership(Role.LEADER, 1, 1, ready=True)
        self.random: RandomSource = Random(1)
        self.store: ClusterStore = CLUSTER.create_store()
        door = CLUSTER.create_door(self.store, self, DoorConfig("", 0))
        assert isinstance(door, ClusterDoor)
        self.door = door
        self.answer: Refused | str | None = None
        """What becomes of commands: None where they are applied."""

    def submit(self, commands: Sequence[bytes], waiters: Sequence[Waiter]) -> None:
        asyncio.get_running_loop().call_soon(self._end, list(commands), list(waiters))

    def _end(self, commands: list[bytes], waiters: list[Waiter]) -> None:
        if isinstance(self.answer, Refused):
            self.door.refused(waiters, self.answer)
        elif self.answer == "lost":
            self.door.lost(waiters)
        else:
            self.door.applied(self.store.apply(commands, 0), waiters)

    def barrier(self, done: Callable[[bool], None]) -> None:
        raise AssertionError("not asked for")

    def congested(self) -> bool:
        return False

    def tell(self, node: NodeId, note: bytes) -> None:
        raise AssertionError("not asked for")

    def quorum_contact_ms(self) -> int | None:
        return None

    def now_ms(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 0

    def describe(self) -> dict[str, Any]:
        return {}


@on_every_loop
def test_a_change_is_told_before_it_is_answered(build: BuildLoop) -> None:
    async def work() -> None:
        group = GroupOfOne()
        told: list[object] = []
        group.door.changed.append(lambda: told.append(group.store.version))
        future = group.door.submit(FORM)
        future.add_done_callback(lambda done: told.append(done.result()))
        assert group.door.summary() == {"outstanding": 1}
        assert await future == Outcome(1, None, True)
        assert await group.door.submit(FORM) == Outcome(1)
        refused = await group.door.submit(Remove(7, 1))
        assert refused.version == 1 and "changed meanwhile" in str(refused.problem)
        await group.door.submit(Add(0, 3, address(3)))
        assert told == [1, Outcome(1, None, True), 2], "only what changed is told"
        assert group.door.summary() == {"outstanding": 0}

    run(build, work())


@on_every_loop
def test_refused_and_lost(build: BuildLoop) -> None:
    async def work() -> None:
        group = GroupOfOne()
        group.answer = Refused.NO_LEADER
        with pytest.raises(ChangeRefused, match="the change was not made: no leader is known") as caught:
            await group.door.submit(FORM)
        assert caught.value.why is Refused.NO_LEADER
        group.answer = "lost"
        with pytest.raises(OutcomeUnknown, match="unknown"):
            await group.door.submit(FORM)
        assert group.store.version == 0 and group.door.summary() == {"outstanding": 0}

    run(build, work())


@on_every_loop
@pytest.mark.parametrize("answer", [None, Refused.STOPPING, "lost"])
def test_nobody_waits_any_more(build: BuildLoop, answer: Refused | str | None) -> None:
    """Cancelled, or never awaited: nothing breaks, and the loop has nothing to complain of."""

    async def work() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        group = GroupOfOne()
        group.answer = answer
        group.door.submit(FORM).cancel()
        group.door.submit(FORM)
        for _ in range(3):
            await asyncio.sleep(0)
        assert group.door.summary() == {"outstanding": 0}
        assert complaints == []

    run(build, work())


@on_every_loop
def test_what_is_told_may_ask_again(build: BuildLoop) -> None:
    async def work() -> None:
        group = GroupOfOne()
        asked: list[asyncio.Future[Outcome]] = []

        def go_on() -> None:
            if group.store.version == 1:
                asked.append(group.door.submit(Add(1, 3, address(3))))

        group.door.changed.append(go_on)
        await group.door.submit(FORM)
        assert (await asked[0]).version == 2

    run(build, work())


def test_batches_of_others_and_snapshots_are_told() -> None:
    group = GroupOfOne()
    told: list[int] = []
    group.door.changed.append(lambda: told.append(group.store.version))
    group.door.applied([Outcome(0, "no"), Outcome(0)], None)
    assert told == []
    group.door.applied([Outcome(0, "no"), Outcome(1, None, True), Outcome(1)], None)
    loader = group.store.restore()
    loader.feed(Story(3).store.content())
    loader.finish()
    group.door.restored()
    assert told == [0, 1]
    with pytest.raises(ValueError, match="no notes"):
        group.door.told(2, b"x")


def test_it_is_a_door_of_a_group() -> None:
    group = GroupOfOne()
    as_group: Group = group
    door: Door = ClusterDoor(group.store, as_group)
    leadership = Leadership(Role.FOLLOWER, 2, 3)
    door.leadership_changed(leadership)
    assert isinstance(door, ClusterDoor) and door.leadership == leadership
    assert CLUSTER.name == "cluster" and Member(1, "a:1", "", "", False).replaces == -1
