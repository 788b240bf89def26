"""Partitions: some hosts do not hear some others for a while.

Clients stay on both sides of a partition among nodes, or are on one side only: then a node
that is cut off from its peers still talks to some, or to none.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from quorate.simulation.cluster import host_of
from quorate.simulation.conditions import End
from quorate.simulation.faults.base import Setting, again_and_again
from quorate.simulation.plan import Injection
from quorate.simulation.world import World

LENGTH_S = (0.3, 7.0)
WITH_CLIENTS = 1.0
"""As an amount: clients are on one side only."""


def _apart(one: Iterable[str], other: Iterable[str]) -> list[tuple[str, str]]:
    others = list(other)
    return [link for a in one for b in others for link in ((a, b), (b, a))]


def _begin(world: World, injection: Injection, pairs: list[tuple[str, str]], text: str) -> End | None:
    if not pairs:
        return None
    world.acted(injection, text)
    world.coverage["partitions"] += 1
    return world.conditions.cut(pairs)


def _maybe_with_clients(random: Random) -> float:
    return WITH_CLIENTS if random.random() < 0.3 else 0.0


class Halves:
    name = "partition-halves"
    about = "the nodes fall into two parts that do not hear each other"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        size = random.randint(1, max(1, setting.nodes // 2))
        part = ",".join(map(str, sorted(random.sample(range(setting.nodes), size))))
        return [setting.injection(random, self.name, LENGTH_S, part, _maybe_with_clients(random))]

    def begin(self, world: World, injection: Injection) -> End | None:
        part = [host_of(node) for node in world.resolve(injection)]
        rest = [host for host in world.node_hosts() if host not in part]
        if injection.amount == WITH_CLIENTS:
            random = world.random_of(injection)
            for client in world.client_hosts():
                (part if random.random() < 0.5 else rest).append(client)
        return _begin(world, injection, _apart(part, rest), f"{', '.join(part)} from {', '.join(rest)}")


class Isolation:
    name = "partition-isolation"
    about = "one node hears nobody, and nobody hears it"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        amount = _maybe_with_clients(random)
        return [setting.injection(random, self.name, LENGTH_S, setting.victim(random), amount)]

    def begin(self, world: World, injection: Injection) -> End | None:
        alone = [host_of(node) for node in world.resolve(injection)]
        rest = [host for host in world.node_hosts() if host not in alone]
        if injection.amount == WITH_CLIENTS:
            rest += world.client_hosts()
        return _begin(world, injection, _apart(alone, rest), f"{', '.join(alone)} from {', '.join(rest)}")


class OneWay:
    name = "partition-one-way"
    about = "one node hears the others and is not heard, or the other way round"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        deaf = float(random.random() < 0.5)
        return [setting.injection(random, self.name, LENGTH_S, setting.victim(random), deaf)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """Amount 0: it is mute; 1: it is deaf."""
        nodes = [host_of(node) for node in world.resolve(injection)]
        rest = [host for host in world.node_hosts() if host not in nodes]
        pairs = [(node, other) if injection.amount == 0 else (other, node) for node in nodes for other in rest]
        how = "mute" if injection.amount == 0 else "deaf"
        return _begin(world, injection, pairs, f"{', '.join(nodes)} is {how}")


class Bridge:
    name = "partition-bridge"
    about = "two parts hear each other only through one node in between"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, LENGTH_S, setting.victim(random))]

    def begin(self, world: World, injection: Injection) -> End | None:
        bridge = world.resolve(injection)
        others = [host_of(node) for node in sorted(world.in_service) if node not in bridge]
        world.random_of(injection).shuffle(others)
        one, other = others[: len(others) // 2], others[len(others) // 2 :]
        return _begin(
            world, injection, _apart(one, other), f"{', '.join(one)} from {', '.join(other)}, but for a bridge"
        )


class Flapping:
    name = "partition-flapping"
    about = "one node is cut off and back again, over and over"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        pause_s = random.uniform(0.05, 1.0)
        return [setting.injection(random, self.name, (1.0, 8.0), setting.victim(random), pause_s)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """`amount` is the time from one change to the next, in seconds."""
        alone = [host_of(node) for node in world.resolve(injection)]
        pairs = _apart(alone, [host for host in world.node_hosts() if host not in alone])
        mending: list[End] = []

        def flap() -> None:
            if mending:
                mending.pop()()
            else:
                world.coverage["partitions"] += 1
                mending.append(world.conditions.cut(pairs))

        world.acted(injection, f"{', '.join(alone)} every {injection.amount:.2f} s")
        stop = again_and_again(world, world.random_of(injection), injection.amount, flap)

        def end() -> None:
            stop()
            while mending:
                mending.pop()()

        return end


class ClientCut:
    name = "partition-client"
    about = "a client does not hear some nodes, or they do not hear it"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        nodes = random.choice(["all", "all", "leader", "follower", setting.node(random)])
        direction = float(random.randrange(3))
        target = f"{setting.client(random)},{nodes}"
        return [setting.injection(random, self.name, (0.5, 12.0), target, direction)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """Amount 0: neither direction works; 1: the client is not heard; 2: it hears nothing."""
        clients = world.clients_of(injection)
        nodes = [host_of(node) for node in world.resolve(injection)]
        pairs = []
        if injection.amount != 2:
            pairs += [(client, node) for client in clients for node in nodes]
        if injection.amount != 1:
            pairs += [(node, client) for client in clients for node in nodes]
        return _begin(world, injection, pairs, f"{', '.join(clients)} from {', '.join(nodes)}")
