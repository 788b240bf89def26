"""What a fault is, and what the faults have in common.

A fault is drawn before the run, as injections: when, for how long, against whom, how much of
it.  During the run it begins, and what it hands back takes it away again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from quorate.simulation.conditions import End
from quorate.simulation.plan import Injection
from quorate.simulation.world import World


@dataclass(frozen=True, slots=True)
class Setting:
    """What injections are drawn for.  All of them begin and end from `begin_s` to `end_s`."""

    nodes: int
    clients: int
    begin_s: float
    end_s: float
    protocols: frozenset[str] = frozenset()
    """On which the cluster's groups run."""

    def injection(
        self, random: Random, fault: str, length_s: tuple[float, float], target: str = "", amount: float = 0.0
    ) -> Injection:
        """One that lies in the setting's time, and lasts as long as is drawn from `length_s` or as there is room."""
        for_s = min(random.uniform(*length_s), self.end_s - self.begin_s)
        at_s = random.uniform(self.begin_s, self.end_s - for_s)
        return Injection(fault, at_s, for_s, target, amount)

    def node(self, random: Random) -> str:
        return str(random.randrange(self.nodes))

    def client(self, random: Random) -> str:
        """A client; where there is none, a node."""
        return f"client-{random.randrange(self.clients)}" if self.clients else self.node(random)

    def victim(self, random: Random) -> str:
        """A node; more often than chance would have it the leader."""
        return random.choice(["leader", "leader", "follower", self.node(random)])

    def victims(self, random: Random) -> str:
        """One node, or several at once."""
        return random.choice([self.victim(random), self.victim(random), self.victim(random), "majority", "all"])


@dataclass(frozen=True, slots=True)
class FaultSequence:
    """`draw` makes injections of the faults in `parts`, which need as much time as `length_s` says, at least.

    With `protocol`, it is meant for groups that run on that one, and drawn where some group does.
    """

    parts: frozenset[str]
    length_s: tuple[float, float]
    draw: Callable[[Random, Setting], list[Injection]]
    protocol: str | None = None

    def suits(self, setting: Setting) -> bool:
        return self.protocol is None or self.protocol in setting.protocols


class Fault(Protocol):
    """One way in which the world is unkind."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str:
        """In one line, for people."""
        ...

    @property
    def mild(self) -> tuple[float, float] | None:
        """The amounts with which it may last for a whole run; None where a run could not bear that."""
        ...

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        """Injections that lie within the setting's time."""
        ...

    def begin(self, world: World, injection: Injection) -> End | None:
        """Act; what ends it, or None where nothing has to be ended."""
        ...


def all_of(ends: list[End]) -> End | None:
    """What calls all of them, in order; None where there are none."""
    if not ends:
        return None

    def end() -> None:
        for one in ends:
            one()

    return end


def again_and_again(world: World, random: Random, pause_s: float, act: Callable[[], None]) -> End:
    """Call `act` now and after every pause, half of `pause_s` up to half more, until the end."""
    going = [True]

    def turn() -> None:
        if going:
            act()
            world.simulation.after(pause_s * random.uniform(0.5, 1.5), turn)

    turn()
    return going.clear
