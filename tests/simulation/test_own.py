"""Users simulate their own state machines and clients: right ones pass, and wrong ones are caught."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from examples.simulate_counter import Counter, counts_each_increment_once, increment, read_at_the_end

from quorate.checking.history import Operation
from quorate.checking.models import IMPOSSIBLE, Action, Model, State
from quorate.simulation.own import ClientWorld, Simulate, StateMachineClient
from tests.simulation import own_code
from tests.simulation.own_code import Failed


def _increment(operation: Operation) -> Action:
    def apply(state: State) -> State:
        assert isinstance(state, int)
        return state + 1 if operation.result in (None, state + 1) else IMPOSSIBLE

    return Action(apply, None)


def _read(operation: Operation) -> Action:
    return Action(lambda state: state if operation.result == state else IMPOSSIBLE, None, changes=False)


COUNTER = Model("counter", 0, {"increment": _increment, "read": _read}, str)


def test_a_counter_passes_under_all_faults(simulate: Simulate) -> None:
    coverage = simulate(
        client=increment,
        finish=read_at_the_end,
        state_machine=Counter,
        model=COUNTER,
        check=counts_each_increment_once,
        seeds=2,
        duration_s=8,
    )
    assert coverage["increment"] and coverage["read"] == 2


def test_a_register_is_linearizable(simulate: Simulate) -> None:
    coverage = simulate(own_code.use_register, state_machine=own_code.Register, model="register", seeds=1, duration_s=6)
    assert coverage["read"] and coverage["write"] and coverage["cas"]


def test_the_same_seed_is_the_same_run() -> None:
    def once() -> dict[str, int]:
        return own_code.simulate()(increment, state_machine=Counter, seeds=[5], duration_s=4)

    assert once() == once()


@pytest.mark.parametrize(
    ("machine", "check", "seen"),
    [
        (own_code.OwnRandomness, "state machine agreement", "command 1, b'increment'"),
        (own_code.OwnClock, "state machine agreement", "commands the snapshot of node 0 is b'"),
        (own_code.Breaks, "state machine failed", "ZeroDivisionError: seven"),
        (own_code.Text, "state machine failed", "TypeError: the result is no bytes: 'no bytes'"),
    ],
)
def test_a_wrong_state_machine_is_caught(machine: type[Counter], check: str, seen: str) -> None:
    with pytest.raises(Failed) as failed:
        own_code.simulate()(increment, state_machine=machine, seeds=1, duration_s=3, faults="none", shrink_tries=2)
    assert f"check    {check}" in str(failed.value)
    assert seen in str(failed.value)


@pytest.mark.parametrize(
    ("machine", "seen"),
    [
        (own_code.ForgetsInSnapshot, "gives b'"),
        (own_code.RestoresOnTop, "was restored from the snapshot b'"),
        (own_code.KeepsWhatWasThere, "was restored from the snapshot b'"),
    ],
)
def test_a_wrong_snapshot_is_caught(machine: type[Counter], seen: str) -> None:
    with pytest.raises(Failed) as failed:
        own_code.simulate()(increment, state_machine=machine, seeds=1, duration_s=8, faults="none", shrink_tries=0)
    assert "check    state machine agreement" in str(failed.value)
    assert seen in str(failed.value)


def test_the_last_look_compares_whole_states() -> None:
    """Each replica has a number of its own, which shows in no result.

    Which number is nobody's promise: a node makes its store when it has become a member, in whatever order they met.
    """
    numbers = itertools.count()

    class Numbered(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.number = next(numbers)

        def snapshot(self) -> bytes:
            return b"%d of %d" % (self.value, self.number)

    async def once(world: ClientWorld) -> None:
        async with StateMachineClient(world.servers, world.random) as counter:
            await counter.call(b"increment")

    seen = r"after 4 commands the snapshot of node 0 is b'4 of (\d+)' and that of node 1 is b'4 of (?!\1')\d+'"
    with pytest.raises(Failed, match=seen):
        own_code.simulate()(once, state_machine=Numbered, seeds=1, duration_s=2, faults="none", shrink_tries=0)


def test_doing_again_what_may_be_done_is_caught() -> None:
    with pytest.raises(Failed) as failed:
        own_code.simulate()(
            own_code.increment_again_and_again,
            finish=read_at_the_end,
            state_machine=Counter,
            check=counts_each_increment_once,
            seeds=20,
            duration_s=6,
            faults=["crash", "partition-isolation"],
            shrink_tries=5,
        )
    text = str(failed.value)
    assert "check    own check" in text
    assert "0 perhaps" in text
    assert "repeat   pytest here --simulate-seed" in text
    assert "Shrunk by 5 runs:" in text
    assert "return: read: ok" in text, "the diagram shows what clients did"
    assert max(map(len, text.splitlines())) < 200
    assert "WARNING" not in text


def test_a_client_that_trusts_its_cache_is_caught_by_the_model() -> None:
    with pytest.raises(Failed, match=r"(?s)check    linearizability.*invalid as a register:.* read from "):
        own_code.simulate()(
            own_code.read_from_cache,
            state_machine=own_code.Register,
            model="register",
            seeds=1,
            duration_s=3,
            faults="none",
            shrink_tries=0,
        )


def test_own_randomness_is_told_of() -> None:
    with pytest.raises(Failed, match="WARNING: the same run came out differently"):
        own_code.simulate()(
            increment, state_machine=own_code.OwnRandomness, seeds=1, duration_s=1, faults="none", shrink_tries=0
        )


async def _stuck(world: ClientWorld) -> None:
    world.progress()
    await asyncio.get_running_loop().create_future()


async def _wrong(world: ClientWorld) -> None:
    assert world.servers == ["nowhere"], "a claim of the client's"


async def _gives_up(world: ClientWorld) -> None:
    pytest.fail("the client's own verdict")


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (_stuck, r"check    liveness\n  seen     no progress for all clients"),
        (_wrong, r"check    client failed\n  seen     client-\d: AssertionError: a claim of the client's"),
        (_gives_up, r"check    client failed\n  seen     client-\d: Failed: the client's own verdict"),
    ],
)
def test_a_client_that_fails_or_hangs_is_a_violation(client: own_code.AnyClient, text: str) -> None:
    with pytest.raises(Failed, match=text):
        own_code.simulate()(client, state_machine=Counter, seeds=1, duration_s=1, faults="none", shrink_tries=0)


def test_clients_may_end_early_and_finish_sees_what_they_did(simulate: Simulate) -> None:
    seen: list[bytes] = []

    async def once(world: ClientWorld) -> None:
        async with StateMachineClient(world.servers, world.random) as counter:
            await counter.call(b"increment")

    async def finish(world: ClientWorld) -> None:
        assert world.stopping and world.number == 4 and world.now_s() > 1
        async with StateMachineClient(world.servers, world.random) as counter:
            seen.append(await counter.call(b"read"))

    simulate(once, finish=finish, state_machine=Counter, seeds=1, duration_s=1, faults="none")
    assert seen == [b"4"]


def test_a_run_may_be_over_before_its_clients_begin(simulate: Simulate) -> None:
    """Shrinking makes such runs."""
    coverage = simulate(
        increment, finish=read_at_the_end, state_machine=Counter, seeds=1, duration_s=0.1, faults="none"
    )
    assert coverage["read"] == 1


def test_an_operation_that_never_ended_may_have_been_done() -> None:
    recorded: list[Operation] = []

    async def hang(world: ClientWorld) -> None:
        with world.history.operation("increment"):
            await asyncio.get_running_loop().create_future()

    async def client(world: ClientWorld) -> None:
        hanging = asyncio.get_running_loop().create_task(hang(world))
        await asyncio.sleep(0.1)
        with world.history.operation("read") as operation:
            operation.ok(5)
        assert not hanging.done()

    def check(operations: Sequence[Operation]) -> list[str]:
        recorded.extend(operations)
        return []

    own_code.simulate()(client, state_machine=Counter, check=check, seeds=1, duration_s=1, clients=1, faults="none")
    first, second = recorded
    assert (first.f, first.returned_at, first.process) == ("increment", None, "client-0")
    assert (second.f, second.result, second.process) == ("read", 5, "client-0/2")


def test_a_lock_of_ones_own_on_zookeeper(simulate: Simulate) -> None:
    coverage = simulate(
        own_code.count_under(own_code.acquire),
        finish=own_code.read_zookeeper,
        check=counts_each_increment_once,
        faults=["crash", "delay", "resets", "partition-isolation"],
        seeds=2,
        duration_s=6,
        clients=3,
    )
    assert coverage["locks released"] and coverage["lock was taken"]


def test_a_wrong_lock_on_zookeeper_is_caught() -> None:
    with pytest.raises(Failed, match=r"check    own check\n  seen     two increments came to the same value"):
        own_code.simulate()(
            own_code.count_under(own_code.acquire_after_a_look),
            finish=own_code.read_zookeeper,
            check=counts_each_increment_once,
            faults=["delay"],
            seeds=20,
            duration_s=6,
            clients=3,
            shrink_tries=0,
        )


@pytest.mark.parametrize(("name", "value"), [("model", "stack"), ("faults", "gremlins")])
def test_unknown_names_are_told(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"'{value}': expected"):
        own_code.simulate()(increment, state_machine=Counter, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"seeds": 0}, "seeds: 0; give how many there are, at least 1, or a list of them"),
        ({"seeds": -3}, "seeds: -3; "),
        ({"seeds": []}, r"seeds: \[\]; "),
        ({"clients": 0}, "clients is 0; there may be 1 to 250"),
        ({"clients": -1}, "clients is -1"),
        ({"nodes": 0}, "nodes is 0; there may be 1 to 9"),
        ({"nodes": 50}, "nodes is 50"),
        ({"protocol": "chubby"}, "protocol: 'chubby' is no protocol: there are raft"),
        ({"duration_s": 0}, "duration_s is 0; it must be more than 0"),
        ({"duration_s": -1}, "duration_s is -1"),
        ({"duration_s": float("nan")}, "duration_s is nan"),
    ],
)
def test_what_makes_no_run_does_not_pass(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        own_code.simulate()(increment, state_machine=Counter, **options)  # type: ignore[arg-type]


def test_no_seed_on_the_command_line_does_not_pass() -> None:
    with pytest.raises(ValueError, match="seeds: none, on the command line"):
        replace(own_code.simulate(), seeds=())(increment, state_machine=Counter)


def test_a_check_may_say_one_text() -> None:
    def says_one_text(_: object) -> str:
        return "wrong all over"

    with pytest.raises(Failed, match="  seen     wrong all over\n"):
        own_code.simulate()(
            increment, state_machine=Counter, check=says_one_text, seeds=1, duration_s=1, faults="none", shrink_tries=0
        )


def test_it_does_not_run_within_another_event_loop() -> None:
    async def test() -> None:
        own_code.simulate()(increment, state_machine=Counter, seeds=1)

    with pytest.raises(RuntimeError, match="not asynchronous"):
        asyncio.run(test())
