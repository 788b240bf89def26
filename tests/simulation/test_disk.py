"""The simulated disk keeps what a disk promises, `quorate.storage.disk`, and of everything else any part."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.simulation.disk import GROW_S, SECTOR_BYTES, SYNC_S, WRITE_S, SimulatedDisk
from quorate.simulation.machine import MachineLost
from quorate.simulation.scheduler import Simulation
from quorate.storage.disk import DiskFull
from tests.storage.crashes import crashed, killed

HOST = "10.0.0.1"
SEEDS = range(60)


def with_file(data: bytes = b"", *, synced: bool = True) -> SimulatedDisk:
    """A disk with a file of that content; its name is durable."""
    disk = SimulatedDisk()
    file = disk.open("file", create=True)
    disk.sync_folder("")
    file.write_at(0, data)
    if synced:
        file.sync()
    return disk


def contents(disk: SimulatedDisk) -> dict[str, bytes]:
    return {name: disk.read(name) for name in disk.list("")}


def outcomes(disk: SimulatedDisk) -> list[dict[str, bytes]]:
    """Different states in which a power loss may leave the disk."""
    found = list[dict[str, bytes]]()
    for seed in SEEDS:
        after = contents(crashed(disk, Random(seed)))
        if after not in found:
            found.append(after)
    return found


# --- a power loss ----------------------------------------------------------------------------


def test_what_was_synced_stays() -> None:
    disk = with_file(b"abc" * 1000)
    assert outcomes(disk) == [{"file": b"abc" * 1000}]
    assert disk.unsynced_changes() == 0
    assert disk.lose_power(Random(1)) == 0


def test_what_was_not_synced_may_be_kept_lost_or_torn_at_sectors() -> None:
    disk = with_file(bytes(2 * SECTOR_BYTES))
    disk.open("file").write_at(100, b"x" * SECTOR_BYTES)
    before, after = bytes(2 * SECTOR_BYTES), bytes(100) + b"x" * SECTOR_BYTES + bytes(SECTOR_BYTES - 100)
    halves = [after[:SECTOR_BYTES] + before[SECTOR_BYTES:], before[:SECTOR_BYTES] + after[SECTOR_BYTES:]]
    found = [state["file"] for state in outcomes(disk)]
    assert sorted(found) == sorted([before, after, *halves])
    assert crashed(disk, Random(1)).unsynced_changes() == 0
    assert disk.unsynced_changes() == 1


def test_of_two_writes_the_later_may_survive_alone() -> None:
    disk = with_file(b"..")
    file = disk.open("file")
    file.write_at(0, b"1")
    file.write_at(1, b"2")
    assert sorted(state["file"] for state in outcomes(disk)) == [b"..", b".2", b"1.", b"12"]


def test_a_change_of_size_may_be_lost() -> None:
    disk = with_file(b"abc")
    disk.open("file").truncate(1)
    assert sorted(state["file"] for state in outcomes(disk)) == [b"a", b"abc"]
    disk = with_file(b"abc")
    disk.open("file").allocate(5)
    assert sorted(state["file"] for state in outcomes(disk)) == [b"abc", b"abc\0\0"]


def test_a_new_name_may_be_lost_with_all_that_was_synced_into_it() -> None:
    disk = SimulatedDisk()
    file = disk.open("file", create=True)
    file.write_at(0, b"abc")
    file.sync()
    assert sorted(map(list, outcomes(disk))) == [[], ["file"]]
    assert all(state in ({}, {"file": b"abc"}) for state in outcomes(disk))
    disk.sync_folder("")
    assert outcomes(disk) == [{"file": b"abc"}]


def test_a_rename_is_whole_or_not_at_all_and_durable_with_its_folder() -> None:
    disk = with_file(b"old")
    new = disk.open("new", create=True)
    new.write_at(0, b"new")
    new.sync()
    disk.sync_folder("")
    disk.rename("new", "file")
    found = outcomes(disk)
    assert len(found) == 2 and {"file": b"old", "new": b"new"} in found and {"file": b"new"} in found
    disk.sync_folder("")
    assert outcomes(disk) == [{"file": b"new"}]


def test_a_rename_before_the_sync_may_leave_an_empty_file_in_place_of_the_old_one() -> None:
    """Why a file is synced before it is renamed."""
    disk = with_file(b"old")
    disk.open("new", create=True).write_at(0, b"new")
    disk.rename("new", "file")
    disk.sync_folder("")
    assert {"file": b""} in outcomes(disk)


def test_a_removed_file_may_come_back() -> None:
    disk = with_file(b"abc")
    disk.remove("file")
    assert contents(disk) == {}
    assert len(outcomes(disk)) == 2 and {"file": b"abc"} in outcomes(disk)
    disk.sync_folder("")
    assert outcomes(disk) == [{}]


def test_folders_are_durable_at_once_and_each_is_synced_for_itself() -> None:
    disk = SimulatedDisk()
    disk.make_folder("a/b")
    for path in ("a/one", "a/b/two"):
        disk.open(path, create=True)
    disk.sync_folder("a")
    states = {(after.exists("a/one"), after.exists("a/b/two")) for after in (crashed(disk, Random(s)) for s in SEEDS)}
    assert states == {(True, True), (True, False)}
    assert crashed(disk, Random(1)).exists("a/b")


def test_what_a_power_loss_decided_is_final() -> None:
    disk = with_file(bytes(3 * SECTOR_BYTES))
    for number in range(3):
        disk.open("file").write_at(number * SECTOR_BYTES, bytes([number + 1]) * SECTOR_BYTES)
    disk.open("other", create=True)
    assert disk.lose_power(Random(5)) == 4
    after = contents(disk)
    for seed in SEEDS:
        assert disk.lose_power(Random(seed)) == 0
        assert contents(disk) == after


def test_after_a_sigkill_the_page_cache_is_there_and_power_may_still_be_lost() -> None:
    disk = with_file(b"..")
    disk.open("file").write_at(0, b"12")
    disk.open("other", create=True)
    after = killed(disk)
    assert contents(after) == contents(disk) == {"file": b"12", "other": b""}
    assert after.unsynced_changes() == 2
    assert len(outcomes(after)) == 4
    file = after.open("file")
    file.sync()
    after.sync_folder("")
    assert outcomes(after) == [{"file": b"12", "other": b""}]


# --- against a model -------------------------------------------------------------------------

Change: TypeAlias = "tuple[int, bytes] | int"
"""A write, or a new size."""


@dataclass(slots=True, eq=False)
class ModelFile:
    durable: bytes = b""
    changes: list[Change] = field(default_factory=list)

    def seen(self) -> bytes:
        image = self.durable
        for change in self.changes:
            image = applied(image, change)
        return image

    def may_become(self, image: bytes) -> bool:
        """Each sector holds what some of the changes, in their order, make of it."""
        ends = {len(self.durable)}
        for change in self.changes:
            if isinstance(change, int):
                ends.add(change)
            elif change[1]:
                first, last = change[0], change[0] + len(change[1])
                ends.update(end for end in range(first, last + 1) if end % SECTOR_BYTES == 0 or end == last)
        if len(image) not in ends:
            return False
        size = max(map(len, (image, self.durable, self.seen())), default=0)
        return all(
            padded(image, start) in self._sectors(start) for start in range(0, size + SECTOR_BYTES, SECTOR_BYTES)
        )

    def _sectors(self, start: int) -> set[bytes]:
        sectors = set[bytes]()
        for count in range(len(self.changes) + 1):
            for chosen in itertools.combinations(self.changes, count):
                image = self.durable
                for change in chosen:
                    image = applied(image, change)
                sectors.add(padded(image, start))
        return sectors


def applied(image: bytes, change: Change) -> bytes:
    if isinstance(change, int):
        return image[:change].ljust(change, b"\0")
    offset, data = change
    return image[:offset].ljust(offset, b"\0") + data + image[offset + len(data) :] if data else image


def padded(image: bytes, start: int) -> bytes:
    return image[start : start + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")


class Model:
    """One folder, as simple as it can be written down."""

    def __init__(self) -> None:
        self.names: dict[str, ModelFile] = {}
        self.durable_names: dict[str, ModelFile] = {}
        self.name_changes: list[dict[str, ModelFile | None]] = []

    def rename_to(self, change: dict[str, ModelFile | None]) -> None:
        self.name_changes.append(change)
        self.names = renamed(self.names, change)

    def may_become(self, state: dict[str, bytes]) -> bool:
        for count in range(len(self.name_changes) + 1):
            for chosen in itertools.combinations(self.name_changes, count):
                names = self.durable_names
                for change in chosen:
                    names = renamed(names, change)
                if names.keys() == state.keys() and all(names[name].may_become(state[name]) for name in names):
                    return True
        return False


def renamed(names: dict[str, ModelFile], change: dict[str, ModelFile | None]) -> dict[str, ModelFile]:
    after: dict[str, ModelFile | None] = {**names, **change}
    return {name: file for name, file in after.items() if file is not None}


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    st.tuples(st.just("write"), NAMES, st.integers(0, 1200), st.integers(0, 1300)),
    st.tuples(st.just("resize"), NAMES, st.integers(0, 2000), st.just(0)),
    st.tuples(st.sampled_from(["sync", "remove", "sync folder", "killed", "power"]), NAMES, st.just(0), st.just(0)),
    st.tuples(st.just("rename"), NAMES, st.integers(0, 2), st.just(0)),
)


def take_step(disk: SimulatedDisk, model: Model, step: tuple[str, str, int, int], fill: int) -> None:
    what, name, number, size = step
    file = model.names.get(name)
    if what == "sync folder":
        disk.sync_folder("")
        model.durable_names, model.name_changes = dict(model.names), []
    elif what == "killed":
        disk.detach()
    elif what in ("write", "resize"):
        opened = disk.open(name, create=True)
        if file is None:
            file = ModelFile()
            model.rename_to({name: file})
        if what == "write":
            opened.write_at(number, bytes([fill]) * size)
            file.changes.append((number, bytes([fill]) * size))
        else:
            opened.truncate(number)
            file.changes.append(number)
    elif file is None:
        with pytest.raises(FileNotFoundError):
            disk.open(name)
    elif what == "sync":
        disk.open(name).sync()
        file.durable, file.changes = file.seen(), []
    elif what == "remove":
        disk.remove(name)
        model.rename_to({name: None})
    elif what == "rename" and "abc"[number] != name:
        disk.rename(name, "abc"[number])
        model.rename_to({name: None, "abc"[number]: file})


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=14), st.integers(0, 1 << 32))
def test_a_disk_is_always_as_the_model_says(steps: list[tuple[str, str, int, int]], seed: int) -> None:
    random = Random(seed)
    disk, model = SimulatedDisk(), Model()
    for fill, step in enumerate(steps, 1):
        if step[0] == "power" or sum(len(file.changes) for file in model.names.values()) > 6:
            disk.lose_power(random)
            after = contents(disk)
            assert model.may_become(after)
            model.names = {name: ModelFile(data) for name, data in after.items()}
            model.durable_names, model.name_changes = dict(model.names), []
        take_step(disk, model, step, fill)
        assert contents(disk) == {name: model.names[name].seen() for name in sorted(model.names)}
    disk.lose_power(random)
    assert model.may_become(contents(disk))


# --- syncs aside -----------------------------------------------------------------------------


def test_a_sync_aside_covers_what_was_written_before_it_and_no_more() -> None:
    async def work() -> None:
        disk = with_file(b"...")
        file = disk.open("file")
        file.write_at(0, b"1")
        syncing = asyncio.ensure_future(file.sync_aside())
        await asyncio.sleep(0)
        file.write_at(1, b"2")
        await syncing
        assert sorted(state["file"] for state in outcomes(disk)) == [b"1..", b"12."]

    asyncio.run(work())


def test_a_sync_that_overtakes_one_aside_leaves_it_nothing_to_do() -> None:
    async def work() -> None:
        disk = with_file(b"...")
        file = disk.open("file")
        file.write_at(0, b"1")
        syncing = asyncio.ensure_future(file.sync_aside())
        await asyncio.sleep(0)
        file.write_at(1, b"2")
        file.sync()
        file.write_at(2, b"3")
        await syncing
        assert sorted(state["file"] for state in outcomes(disk)) == [b"12.", b"123"], "the third was never synced"

    asyncio.run(work())


def test_a_sync_aside_that_ends_after_a_power_loss_has_synced_nothing() -> None:
    simulation, disk = Simulation(), with_file(b".")
    machine = simulation.boot(HOST)
    disk.attach(machine)
    ended = list[str]()

    async def work() -> None:
        file = disk.open("file")
        file.write_at(0, b"1")
        disk.sync_s = (1.0, 1.0)
        await file.sync_aside()
        ended.append("wrong")

    simulation.start(machine, work())
    simulation.pass_until(0.5)
    simulation.kill(HOST, power_loss=True)
    assert sorted({contents(crashed_off(disk, seed))["file"] for seed in SEEDS}) == [b".", b"1"]
    disk.lose_power(Random(1))
    before = contents(disk)
    simulation.pass_until(2)
    assert ended == [] and contents(disk) == before


def crashed_off(disk: SimulatedDisk, seed: int) -> SimulatedDisk:
    disk.detach()  # a machine is not copied with its disk
    return crashed(disk, Random(seed))


# --- trouble ---------------------------------------------------------------------------------


def test_without_room_nothing_is_written_and_nothing_lost() -> None:
    disk = with_file(b"abc")
    disk.capacity_bytes = 5
    file = disk.open("file")
    assert disk.free_bytes() == 2
    attempts: list[Callable[[], None]] = [
        lambda: file.write_at(3, b"def"),
        lambda: file.allocate(6),
        lambda: file.truncate(6),
        lambda: disk.open("other", create=True).write_at(0, b"def"),
    ]
    for attempt in attempts:
        with pytest.raises(DiskFull):
            attempt()
    assert contents(disk) == {"file": b"abc", "other": b""}
    file.write_at(0, b"ABCDE")
    assert (disk.free_bytes(), disk.used_bytes()) == (0, 5)
    file.write_at(0, b"fits")
    disk.remove("file")
    assert disk.free_bytes() == 5


def test_a_failing_sync_says_so() -> None:
    disk = with_file(b".")
    file = disk.open("file")
    disk.open("other", create=True)
    disk.failing_syncs = True
    count = disk.sync_count
    for attempt in (file.sync, lambda: asyncio.run(file.sync_aside()), lambda: disk.sync_folder("")):
        with pytest.raises(OSError, match="input/output error"):
            attempt()
    assert disk.sync_count == count
    assert len(outcomes(disk)) == 2


def test_what_a_failing_sync_did_not_write_is_taken_for_clean() -> None:
    ends = set[bytes]()
    for seed in range(8):
        disk = SimulatedDisk(seed)
        disk.open("file", create=True)
        disk.sync_folder("")
        file = disk.open("file")
        file.write_at(0, b"1")
        disk.failing_syncs = True
        with pytest.raises(OSError, match="input/output error"):
            file.sync()
        disk.failing_syncs = False
        assert (disk.read("file"), disk.unsynced_changes()) == (b"1", 0)
        file.sync()
        assert len(outcomes(disk)) == 1, "it is decided: on the device, or never"
        ends.add(outcomes(disk)[0]["file"])
    assert ends == {b"", b"1"}


def test_a_flipped_bit_is_on_the_device_and_in_the_cache() -> None:
    disk = with_file(b"abc")
    disk.flip_bit("file", 8 + 1)
    assert disk.read("file") == b"a`c"
    assert outcomes(disk) == [{"file": b"a`c"}]
    disk.flip_bit("file", 8 * 1000)
    assert disk.read("file") == b"a`c"


# --- machines --------------------------------------------------------------------------------


def test_operations_take_the_time_of_their_machine() -> None:
    simulation, disk = Simulation(), SimulatedDisk()
    machine = simulation.boot(HOST)
    disk.attach(machine)
    disk.sync_s = (0.25, 0.5)

    async def work() -> list[float]:
        file = disk.open("file", create=True)
        times_s = [machine.true_s()]
        uses: list[Callable[[], object]] = [
            lambda: file.write_at(0, b"abc"),
            lambda: file.write_at(0, b"xyz"),
            file.sync,
            lambda: disk.sync_folder(""),
            lambda: file.read_at(0, 3),
        ]
        for use in uses:
            use()
            times_s.append(machine.true_s())
        await file.sync_aside()
        times_s.append(machine.true_s())
        return [after - before for before, after in itertools.pairwise(times_s)]

    grow_s, write_s, sync_s, folder_s, read_s, aside_s = simulation.run(machine, work())
    assert grow_s == pytest.approx(WRITE_S + GROW_S)
    assert write_s == pytest.approx(WRITE_S)
    assert all(0.25 <= duration_s <= 0.51 for duration_s in (sync_s, folder_s, aside_s))
    assert read_s < 1e-6
    assert SYNC_S[1] < 0.25


def test_a_sync_aside_lets_the_machine_go_on() -> None:
    simulation, disk = Simulation(), SimulatedDisk()
    machine = simulation.boot(HOST)
    disk.attach(machine)
    disk.sync_s = (1.0, 1.0)

    async def work() -> int:
        file, turns = disk.open("file", create=True), 0
        syncing = asyncio.create_task(file.sync_aside())
        while not syncing.done():
            turns += 1
            await asyncio.sleep(0.01)
        return turns

    assert 90 < simulation.run(machine, work()) < 110


@pytest.mark.parametrize("power_loss", [False, True])
def test_a_file_of_a_former_life_is_dead(power_loss: bool) -> None:
    disk = with_file(b"abc")
    file = disk.open("file")
    if power_loss:
        disk.lose_power(Random(1))
    else:
        disk.detach()
    uses: list[Callable[[], object]] = [
        lambda: file.read_at(0, 1),
        lambda: file.write_at(0, b"x"),
        lambda: file.allocate(10),
        lambda: file.truncate(1),
        file.size,
        file.sync,
        lambda: asyncio.run(file.sync_aside()),
    ]
    for use in uses:
        with pytest.raises(MachineLost):
            use()
    file.close()
    assert disk.open("file").read_at(0, 10) == b"abc"


def test_a_dead_machine_cannot_use_its_disk_and_the_next_one_can() -> None:
    simulation, disk = Simulation(), with_file(b"abc")
    disk.attach(simulation.boot(HOST))
    disk.ops_until_death = 1000
    simulation.kill(HOST)
    uses: list[Callable[[], object]] = [
        lambda: disk.open("file"),
        lambda: disk.read("file"),
        lambda: disk.remove("file"),
        lambda: disk.rename("file", "other"),
        lambda: disk.make_folder("folder"),
        lambda: disk.sync_folder(""),
    ]
    for use in uses:
        with pytest.raises(MachineLost):
            use()
    disk.detach()
    disk.attach(simulation.boot(HOST))
    assert contents(disk) == {"file": b"abc"}
    assert disk.ops_until_death is None


def test_the_countdown_to_death_may_begin_with_a_change_of_a_name() -> None:
    simulation, disk = Simulation(), with_file(b"abc")
    disk.attach(simulation.boot(HOST))
    file = disk.open("file")
    disk.ops_until_death, disk.names_until_countdown = 1, 2
    disk.rename("file", "other")
    file.write_at(0, b"xyz")
    disk.open("new", create=True)
    file.write_at(0, b"123")
    with pytest.raises(MachineLost):
        file.write_at(0, b"456")
