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
