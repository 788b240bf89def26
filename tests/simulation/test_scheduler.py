"""What only a simulation has: seeds, machines with clocks of their own, and their deaths."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from quorate.simulation.disk import SimulatedDisk
from quorate.simulation.machine import EPOCH_MS, MachineLost
from quorate.simulation.scheduler import Deadlock, Simulation, UnhandledError
from tests.simulation.loops import Recorder

SERVER, CLIENT = "10.0.0.1", "10.0.1.1"
PORT = 2181


# --- time ------------------------------------------------------------------------------------


def test_time_jumps_to_what_comes_next_and_nothing_sleeps() -> None:
    simulation = Simulation()
    machine = simulation.boot(SERVER)
    began_s = time.monotonic()
    simulation.run(machine, asyncio.sleep(3600))
    assert 3600 <= simulation.now_s < 3600.01
    assert time.monotonic() - began_s < 60


def test_what_is_put_on_the_agenda_happens_in_order_of_time_then_of_putting() -> None:
    simulation, order = Simulation(), list[tuple[str, float]]()

    def note(what: str) -> None:
        order.append((what, simulation.now_s))

    simulation.at(2.0, note, "late")
    simulation.after(1.0, note, "first")
    simulation.at(1.0, note, "second")
    simulation.at(3.0, note, "not yet")
    simulation.pass_until(2.5)
    assert order == [("first", 1.0), ("second", 1.0), ("late", 2.0)]
    assert simulation.now_s == 2.5


def test_a_machine_stops_where_the_world_is_to_stop() -> None:
    simulation = Simulation()
    machine = simulation.boot(SERVER)
    ticks = list[float]()

    async def spin() -> None:
        while True:
            ticks.append(simulation.now_s)
            await asyncio.sleep(0)

    task = simulation.start(machine, spin())
    simulation.pass_until(0.01)
    assert 100 < len(ticks) < 1000 and ticks[-1] <= 0.01
    simulation.pass_until(0.02)
    assert ticks[-1] > 0.019 and not task.done()


def test_work_takes_time_and_machines_work_at_the_same_time() -> None:
    simulation = Simulation()
    one, other = simulation.boot(SERVER), simulation.boot(CLIENT)
    done = dict[str, float]()

    async def work(name: str, duration_s: float) -> None:
        machine = simulation.machines[name]
        machine.spend(duration_s)
        before = machine.local_s()
        await asyncio.sleep(0)
        assert machine.local_s() >= before, "what the turn spent is over"
        done[name] = simulation.now_s

    simulation.start(one, work(SERVER, 5.0))
    simulation.start(other, work(CLIENT, 3.0))
    simulation.pass_until(4)
    assert list(done) == [CLIENT] and 3.0 <= done[CLIENT] < 3.001
    simulation.pass_until(6)
    assert 5.0 <= done[SERVER] < 5.001


def test_clocks_of_machines_differ_in_what_they_show_and_in_their_rates() -> None:
    simulation = Simulation()
    one, other = simulation.boot(SERVER), simulation.boot(CLIENT)
    assert one.local_s() != other.local_s()
    other.set_clock_rate(1.5)
    before = one.local_s(), other.local_s(), other.wall_ms()
    woken = list[float]()
    other.loop.call_later(3.0, lambda: woken.append(simulation.now_s))
    simulation.pass_until(10)
    assert one.local_s() - before[0] == pytest.approx(10)
    assert other.local_s() - before[1] == pytest.approx(15)
    assert other.wall_ms() - before[2] == pytest.approx(15_000, abs=1)
    assert woken == [pytest.approx(2.0, abs=0.001)], "three seconds on a fast clock are two"
    other.set_clock_rate(0.5)
    before = one.local_s(), other.local_s(), other.wall_ms()
    other.wall_jump_ms = -60_000
    simulation.pass_until(20)
    assert other.local_s() - before[1] == pytest.approx(5), "it never jumps"
    assert other.wall_ms() - before[2] == pytest.approx(5_000 - 60_000, abs=1)
    assert abs(one.wall_ms() - EPOCH_MS) < 2_000_000


def test_a_changed_rate_moves_timers_that_wait() -> None:
    simulation = Simulation()
    machine = simulation.boot(SERVER)
    woken = list[float]()
    machine.loop.call_later(10.0, lambda: woken.append(simulation.now_s))
    simulation.pass_until(2)
    machine.set_clock_rate(4.0)
    simulation.pass_until(20)
    assert woken == [pytest.approx(4.0, abs=0.001)]


def test_the_precise_clock_moves_within_a_turn() -> None:
    simulation = Simulation()
    machine = simulation.boot(SERVER)

    async def wait() -> int:
        looks, began_s = 0, machine.clock()
        while machine.clock() < began_s + 0.001:
            looks += 1
        return looks

    assert 100 < simulation.run(machine, wait()) < 1000


# --- errors ----------------------------------------------------------------------------------


def test_waiting_for_what_can_never_come_is_a_deadlock() -> None:
    simulation = Simulation()
    with pytest.raises(Deadlock, match="has anything left to do"):
        simulation.run(simulation.boot(SERVER), asyncio.Event().wait())
    simulation.pass_until(simulation.now_s + 1)


def test_an_error_that_nobody_handles_ends_the_run() -> None:
    simulation = Simulation()
    machine = simulation.boot(SERVER, "node-0")
    machine.loop.call_later(1, lambda: 1 // 0)
    with pytest.raises(UnhandledError, match=r"node-0 at 1\.0000") as caught:
        simulation.run(machine, asyncio.sleep(2))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert 1 <= simulation.now_s < 1.001


def test_errors_are_told_to_whom_the_machine_or_the_world_chose() -> None:
    simulation = Simulation()
    one, other = simulation.boot(SERVER), simulation.boot(CLIENT)
    seen = list[tuple[str, type[BaseException]]]()
    one.loop.set_exception_handler(lambda _, context: seen.append(("own", type(context["exception"]))))
    simulation.on_unhandled = lambda machine, context: seen.append((machine.host, type(context["exception"])))
    for machine in (one, other):
        machine.loop.call_later(1, lambda: 1 // 0)
    simulation.pass_until(2)
    assert sorted(seen) == [(CLIENT, ZeroDivisionError), ("own", ZeroDivisionError)]


def test_whoever_watches_may_stop_the_run_and_the_first_error_counts() -> None:
    simulation = Simulation()

    def watch() -> None:
        simulation.stop(LookupError("first"))
        simulation.stop(ValueError("second"))

    simulation.at(1.0, watch)
    with pytest.raises(LookupError, match="first"):
        simulation.pass_until(2.0)
    assert simulation.now_s == 1.0
    simulation.pass_until(3.0)


def test_what_is_not_simulated_says_so() -> None:
    loop: Any = Simulation().boot(SERVER).loop
    uses: list[Callable[[], object]] = [
        lambda: loop.add_signal_handler(15, print),
        lambda: loop.add_reader(0, print),
        lambda: loop.set_task_factory(print),
    ]
    for use in uses:
        with pytest.raises(NotImplementedError):
            use()
    works: list[Callable[[], Any]] = [
        lambda: loop.create_connection(Recorder, SERVER, PORT, ssl=True),
        lambda: loop.create_server(Recorder, [SERVER, CLIENT], PORT),
        lambda: loop.create_datagram_endpoint(Recorder),
        lambda: loop.subprocess_exec(Recorder, "true"),
        lambda: loop.getaddrinfo("example.org", 80),
    ]
    for begin in works:
        with pytest.raises(NotImplementedError):
            begin().send(None)


def test_the_executor_takes_simulated_time() -> None:
    simulation = Simulation()

    async def work() -> float:
        before_s = simulation.now_s
        await asyncio.to_thread(int)
        return simulation.now_s - before_s

    assert 1e-4 <= simulation.run(simulation.boot(SERVER), work()) < 1.2e-3


# --- death -----------------------------------------------------------------------------------


def test_a_killed_machine_runs_nothing_more_not_even_a_finally() -> None:
    simulation, ran = Simulation(), list[str]()
    machine = simulation.boot(SERVER)

    async def stubborn() -> None:
        try:
            while True:
                await asyncio.sleep(0.1)
                ran.append("beat")
        finally:
            ran.append("finally")

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ran.append("finally of one that waits")

    simulation.start(machine, stubborn())
    simulation.start(machine, wait())
    machine.loop.call_later(5, ran.append, "timer")
    simulation.pass_until(0.35)
    loop = machine.loop
    simulation.kill(SERVER)
    del machine
    gc.collect()
    loop.call_soon(ran.append, "of a ghost")
    loop.call_later(0.1, ran.append, "of a ghost")
    again = simulation.boot(SERVER)
    assert again.loop is not loop
    simulation.pass_until(20)
    gc.collect()
    assert ran == ["beat"] * 3


def test_a_machine_that_kills_itself_does_not_finish_its_turn() -> None:
    simulation, ran = Simulation(), list[str]()
    machine = simulation.boot(SERVER)
    machine.loop.call_soon(simulation.kill, SERVER)
    machine.loop.call_soon(ran.append, "same turn")
    simulation.pass_until(1)
    assert ran == [] and SERVER not in simulation.machines


def test_a_paused_machine_runs_nothing_and_makes_up_for_it_later() -> None:
    simulation, ran = Simulation(), list[tuple[str, float]]()
    machine = simulation.boot(SERVER)

    def note(name: str) -> None:
        ran.append((name, simulation.now_s))

    for number in range(1, 4):
        machine.loop.call_later(number, note, str(number))
    simulation.pass_until(1.5)
    machine.pause()
    machine.loop.call_soon(note, "soon")
    simulation.pass_until(10)
    assert [name for name, _ in ran] == ["1"]
    machine.resume()
    simulation.pass_until(11)
    assert [name for name, _ in ran] == ["1", "soon", "2", "3"]
    assert all(when_s == pytest.approx(10, abs=0.001) for _, when_s in ran[1:])


def test_a_paused_machine_may_be_killed_and_come_back() -> None:
    simulation = Simulation()
    simulation.boot(SERVER).pause()
    simulation.kill(SERVER)
    machine = simulation.boot(SERVER)
    assert simulation.run(machine, asyncio.sleep(1, "alive")) == "alive"


@pytest.mark.parametrize("operations", range(12))
def test_after_a_death_in_the_middle_nothing_reaches_disk_or_network(operations: int) -> None:
    """Whatever the code on its way up does."""
    simulation, disk = Simulation(), SimulatedDisk()
    machine = simulation.boot(SERVER)
    heard, went_on, deaths = list[bytes](), list[str](), list[str]()
    client = simulation.boot(CLIENT)

    async def serve() -> None:
        class Hearing(Recorder):
            def data_received(self, data: bytes) -> None:
                heard.append(data)

        await asyncio.get_running_loop().create_server(Hearing, CLIENT, PORT)

    async def work() -> None:
        transport, _ = await asyncio.get_running_loop().create_connection(Recorder, CLIENT, PORT)
        file = disk.open("first", create=True)
        try:
            for number in range(4):
                file.write_at(0, b"%d" % number)
                transport.write(b"%d" % number)
                file.sync()
            disk.rename("first", "second")
            disk.sync_folder("")
        except BaseException:
            went_on.append("except")
            transport.write(b"wrong")
            for attempt in (
                lambda: file.write_at(0, b"wrong"),
                lambda: disk.remove("first"),
                lambda: disk.open("wrong", create=True),
                lambda: disk.make_folder("wrong"),
                file.sync,
            ):
                with pytest.raises(MachineLost):
                    attempt()
            raise
        finally:
            transport.write(b"wrong")
            transport.abort()
            asyncio.get_running_loop().call_soon(went_on.append, "wrong")

    simulation.run(client, serve())
    disk.attach(machine)
    disk.ops_until_death = operations
    machine.on_death = lambda: deaths.append("died")
    task = simulation.start(machine, work())
    simulation.pass_until(5)
    if operations > 10:
        assert went_on == ["wrong"], "it lived"
        disk.ops_until_death = None
        assert disk.read("second") == b"3"
        return
    assert went_on == (["except"] if operations > 0 else []), "opening the file was outside the try"
    assert deaths == ["died"] and SERVER not in simulation.machines
    writes = max(0, operations // 2)
    assert b"".join(heard) == b"0123"[: min(4, writes)]
    disk.lose_power(Random(1))
    assert "wrong" not in disk.list("")
    assert b"wrong" not in b"".join(disk.read(name) for name in disk.list(""))
    del task


# --- determinism -----------------------------------------------------------------------------


def chatter(seed: int) -> tuple[str, list[tuple[float, bytes]]]:
    """Three clients and a server that writes what they say to its disk, with trouble; the digest and what was heard."""
    simulation, disk = Simulation(seed), SimulatedDisk(seed)
    heard = list[tuple[float, bytes]]()
    simulation.network.split_share = 0.2
    simulation.network.quality("10.0.1.1", SERVER).loss = 0.1

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        file = disk.open("file", create=True)
        while line := await reader.readline():
            heard.append((simulation.now_s, line))
            file.write_at(0, line)
            await file.sync_aside()
            writer.write(await asyncio.to_thread(line.upper))
        writer.close()

    async def talk(name: int) -> None:
        random = Random(f"{seed}/{name}")
        reader, writer = await asyncio.open_connection(SERVER, PORT)
        for number in range(20):
            writer.write(b"%d %d\n" % (name, number))
            await asyncio.sleep(random.random() / 1000)
            if number % 3 == 0:
                await reader.readline()
        writer.write_eof()
        await reader.read()
        writer.close()

    server = simulation.boot(SERVER)
    disk.attach(server)
    simulation.run(server, asyncio.start_server(listen, SERVER, PORT))
    for name in range(1, 4):
        simulation.start(simulation.boot(f"10.0.1.{name}"), talk(name))
    simulation.at(0.02, simulation.network.cut, "10.0.1.2", SERVER)
    simulation.at(0.5, simulation.network.mend, "10.0.1.2", SERVER)
    simulation.pass_until(20)
    return simulation.digest(), heard


def cluster_digest(seed: int) -> str:
    """Whole nodes, a client, a power loss, a node that stops in order."""
    from quorate.client.zookeeper import ZooKeeperClient
    from tests.node.whole_nodes import WholeNodes, endpoint_of  # only here: the rest needs no nodes

    cluster = WholeNodes(3, seed)
    leader = cluster.start_all()

    async def work() -> None:
        async with ZooKeeperClient(list(map(endpoint_of, cluster.nodes)), Random(seed), 8_000) as client:
            for number in range(30):
                await client.create(f"/n-{number}", bytes(100), ephemeral=number % 2 == 0)

    cluster.run(work())
    cluster.lose_power(leader)
    leader = cluster.wait_for_leader()
    cluster.run(work_again(endpoint_of(leader), seed))
    cluster.close()
    return cluster.simulation.digest()


async def work_again(endpoint: str, seed: int) -> None:
    from quorate.client.zookeeper import ZooKeeperClient

    async with ZooKeeperClient([endpoint], Random(seed), 8_000) as client:
        await client.delete("/n-1")


def test_a_seed_decides_everything() -> None:
    assert chatter(1) == chatter(1)
    assert chatter(1)[0] != chatter(2)[0]
    heard = chatter(3)[1]
    for name in range(1, 4):
        own = [line for _, line in heard if line.startswith(b"%d " % name)]
        assert own == [b"%d %d\n" % (name, number) for number in range(20)]


def test_the_digest_hears_of_every_byte_and_moment() -> None:
    def digest(data: bytes, wait_s: float) -> str:
        simulation = Simulation(1)

        async def listen() -> None:
            await asyncio.get_running_loop().create_server(Recorder, SERVER, PORT)

        async def talk() -> None:
            transport, _ = await asyncio.get_running_loop().create_connection(Recorder, SERVER, PORT)
            await asyncio.sleep(wait_s)
            transport.write(data)

        simulation.run(simulation.boot(SERVER), listen())
        simulation.start(simulation.boot(CLIENT), talk())
        simulation.pass_until(2)
        return simulation.digest()

    assert digest(b"same", 0.1) == digest(b"same", 0.1)
    assert len({digest(b"same", 0.1), digest(b"sane", 0.1), digest(b"same", 0.2)}) == 3


@pytest.mark.parametrize("what", [chatter, cluster_digest])
def test_the_digest_is_the_same_in_other_processes_whatever_their_hashes(what: Callable[[int], object]) -> None:
    script = f"from tests.simulation.test_scheduler import *; print({what.__name__}(1)); print({what.__name__}(2))"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for hash_seed in ("1", "2", "3")
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert outputs[0][0] != outputs[0][1]
