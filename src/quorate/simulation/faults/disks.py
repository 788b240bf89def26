"""Disks that are slow, full or failing, and data that is damaged."""

from __future__ import annotations

import math
from functools import partial
from random import Random

from quorate.simulation.conditions import End
from quorate.simulation.disk import SimulatedDisk
from quorate.simulation.faults.base import Setting, all_of
from quorate.simulation.plan import Injection
from quorate.simulation.world import World
from quorate.storage.identity import FILE_NAME as IDENTITY_FILE
from quorate.storage.log_blocks import Block, SegmentHeader, durable_claims_after
from quorate.storage.log_segments import read_segment_header, read_whole, segment_path, segment_sequences, walk

LOG_FOLDER, SNAPSHOT_FOLDER = "log", "snapshots"


class SlowDisk:
    name = "slow-disk"
    about = "syncs take milliseconds up to half a second"
    mild = (0.001, 0.004)

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        longest_s = math.exp(random.uniform(math.log(0.002), math.log(0.5)))
        return [setting.injection(random, self.name, (0.5, 6.0), setting.victims(random), longest_s)]

    def begin(self, world: World, injection: Injection) -> End | None:
        nodes = world.resolve(injection)
        world.acted(injection, f"up to {injection.amount * 1000:.0f} ms on {nodes}")
        return all_of([world.conditions.slow_syncs(node, injection.amount) for node in nodes])


class FullDisk:
    name = "full-disk"
    about = "no space is left, or hardly any"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        room_bytes = float(random.choice([0, 0, random.randrange(1 << 12), random.randrange(1 << 17)]))
        return [setting.injection(random, self.name, (1.0, 6.0), setting.victims(random), room_bytes)]

    def begin(self, world: World, injection: Injection) -> End | None:
        nodes = world.resolve(injection)
        world.acted(injection, f"{injection.amount:.0f} bytes of room on {nodes}")
        return all_of([world.conditions.fill_disk(node, injection.amount) for node in nodes])


class FailingDisk:
    name = "failing-disk"
    about = "syncs report errors"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, (0.05, 2.5), setting.victims(random))]

    def begin(self, world: World, injection: Injection) -> End | None:
        nodes = world.resolve(injection)
        world.acted(injection, str(nodes))
        return all_of([world.conditions.fail_syncs(node) for node in nodes])


class PowerLossAmidNames:
    """What recovery must cope with lies around changes of names: of them there are few, and many other operations."""

    name = "power-loss-amid-names"
    about = "machines lose their power soon after a file has appeared, was renamed or is gone"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        changes = float(random.randint(1, 6))
        return [setting.injection(random, self.name, (0.5, 5.0), setting.victims(random), changes)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """With one of the operations that follow the change of a name that `amount` counts down to."""
        random = world.random_of(injection)
        ends = []
        for node in world.resolve(injection):
            operations = random.choice([0, 0, 0, 1, 1, 2, 3, 5])
            acted = partial(world.acted, injection, f"node-{node}")
            end = world.cut_power_after(node, operations, acted, name_changes=int(injection.amount))
            if end is not None:
                ends.append(end)
        return all_of(ends)


class Corruption:
    """Flips bits in files of a node that is down, where the design promises to notice or not to care.

    A node that notices sets its folder aside and has to be filled again.  Until it votes again the others must do.
    """

    name = "corruption"
    about = "bits flip in the files of a node that is down; never on a majority at a time, never in a log's last write"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        flips = float(random.choice([1, 1, 1, 2, 8]))
        return [setting.injection(random, self.name, (0.1, 3.0), setting.victim(random), flips)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """`amount` bits flip in one file, while the node is down."""
        ends = []
        random = world.random_of(injection)
        for node in world.resolve(injection):
            if not world.operator.may_lose(node):
                continue
            ends.append(world.crash(node, power_loss=random.random() < 0.5))
            spots = noticeable_bits(world.cluster.disks[node])
            if not spots:
                continue
            path, bits = random.choice(sorted(spots.items()))
            flips = [random.randrange(bits) for _ in range(int(injection.amount))]
            for bit in flips:
                world.damage(node, path, bit)
            world.acted(injection, f"node-{node}: {path}, bits {flips}")
        return all_of(ends)


def noticeable_bits(disk: SimulatedDisk) -> dict[str, int]:
    """Of each file how many bits, from its start, may be damaged: what `Log.open` or a restore then finds.

    Of the log's last segment that is only what later blocks vouch for (docs/storage.md, "What
    cannot be told apart").
    """
    found = {f"{SNAPSHOT_FOLDER}/{name}": 0 for name in disk.list(SNAPSHOT_FOLDER) if name.endswith(".snapshot")}
    if disk.exists(IDENTITY_FILE):
        found[IDENTITY_FILE] = 0
    found = {path: 8 * len(disk.read(path)) for path in found}
    previous_end = 0
    for sequence in reversed(segment_sequences(disk, LOG_FOLDER)):
        path = segment_path(LOG_FOLDER, sequence)
        data = read_whole(disk, path)
        vouched_bytes = max([previous_end, *(durable for _, durable in durable_claims_after(data, sequence, 0))])
        if vouched_bytes:
            found[path] = 8 * vouched_bytes
        header = read_segment_header(path, data, sequence)
        begun = isinstance(header, SegmentHeader) and isinstance(next(walk(data, sequence)), Block)
        previous_end = header.previous_end if isinstance(header, SegmentHeader) and begun else 0
    return found
