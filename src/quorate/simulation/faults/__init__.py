"""All faults by name, and how a run's faults are drawn from its seed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from quorate.simulation.faults.base import Fault, Setting
from quorate.simulation.faults.clocks import ClockJump, ClockSkew
from quorate.simulation.faults.coups import Coup
from quorate.simulation.faults.crashes import Crash, Pause, PowerLoss, PowerLossInOperation, Stop
from quorate.simulation.faults.disks import Corruption, FailingDisk, FullDisk, PowerLossAmidNames, SlowDisk
from quorate.simulation.faults.members import MEMBER_FAULTS
from quorate.simulation.faults.network import Delay, Duplication, Loss, MessageLoss, Reordering, Resets, SplitReads
from quorate.simulation.faults.partitions import Bridge, ClientCut, Flapping, Halves, Isolation, OneWay
from quorate.simulation.faults.snapshots import Snapshot

_ALL: tuple[Fault, ...] = (
    Delay(),
    Loss(),
    Resets(),
    SplitReads(),
    MessageLoss(),
    Duplication(),
    Reordering(),
    Halves(),
    Isolation(),
    OneWay(),
    Bridge(),
    Flapping(),
    ClientCut(),
    Crash(),
    PowerLoss(),
    PowerLossInOperation(),
    PowerLossAmidNames(),
    Stop(),
    Pause(),
    Coup(),
    SlowDisk(),
    FullDisk(),
    FailingDisk(),
    Corruption(),
    ClockSkew(),
    ClockJump(),
    Snapshot(),
    *MEMBER_FAULTS,
)

FAULTS: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ALL})

CHANGES_OF_MEMBERS = frozenset(
    {"add-member", "remove-member", "replace-member", "wipe", "corruption", "crash-amid-change"}
)
"""Those that ask for other members, or after which a node can only come back as another one."""

__all__ = ["CHANGES_OF_MEMBERS", "FAULTS", "Fault", "Setting"]
