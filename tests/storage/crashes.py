"""Disks as they are found after a crash, while the disk that crashed goes on for the next question to it."""

from __future__ import annotations

import copy
from random import Random
from typing import TypeVar

from quorate.simulation.disk import SimulatedDisk

DiskT = TypeVar("DiskT", bound=SimulatedDisk)


def killed(disk: DiskT) -> DiskT:
    """The disk as a new process sees it after the old one was killed.  Unsynced stays unsynced."""
    survivor = copy.deepcopy(disk)
    survivor.detach()
    return survivor


def crashed(disk: DiskT, random: Random) -> DiskT:
    """The disk after a power loss: everything on it is durable now."""
    survivor = copy.deepcopy(disk)
    survivor.lose_power(random)
    return survivor


class WatchedDisk(SimulatedDisk):
    """Once `watch` was called, keeps what a kill and what power losses would leave before each of its operations."""

    def __init__(self, losses: int = 3) -> None:
        super().__init__()
        self.survivors: list[SimulatedDisk] = []
        self._losses = losses
        self._watched = False

    def watch(self) -> None:
        self._watched = True

    def keep(self) -> None:
        """What would be left just now."""
        if self._watched:
            survivors, self.survivors, self._watched = self.survivors, [], False
            survivors.append(killed(self))
            survivors.extend(crashed(self, Random(f"{len(survivors)}/{loss}")) for loss in range(self._losses))
            self.survivors, self._watched = survivors, True

    def begin(self, life: int, duration_s: float = 0.0) -> None:
        self.keep()
        super().begin(life, duration_s)
