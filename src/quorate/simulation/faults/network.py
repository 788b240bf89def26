"""Connections that are slow, lossy or broken, reads that find half, messages that come twice, late or never."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

from quorate.simulation.cluster import host_of
from quorate.simulation.conditions import End
from quorate.simulation.faults.base import Setting, again_and_again, all_of
from quorate.simulation.plan import Injection
from quorate.simulation.world import World


def _drawn_evenly_by_size(random: Random, low: float, high: float) -> float:
    return math.exp(random.uniform(math.log(low), math.log(high)))


def _links(world: World, injection: Injection) -> Iterator[tuple[str, str]]:
    """Every direction between a host that is meant and a node, or between a node that is meant and any host."""
    nodes, everyone = world.node_hosts(), [*world.node_hosts(), *world.client_hosts()]
    seen: set[tuple[str, str]] = set()
    meant = [*((host_of(node), everyone) for node in world.resolve(injection)),
             *((client, nodes) for client in world.clients_of(injection))]  # fmt: skip
    for host, others in meant:
        for other in others:
            for link in ((host, other), (other, host)):
                if host != other and link not in seen:
                    seen.add(link)
                    yield link


def _host(random: Random, setting: Setting) -> str:
    return random.choice(["all", "all", setting.victim(random), setting.client(random)])


class Delay:
    name = "delay"
    about = "packets take many times as long"
    mild = (2.0, 10.0)

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        factor = _drawn_evenly_by_size(random, 5, 300)
        return [setting.injection(random, self.name, (0.2, 6.0), _host(random, setting), factor)]

    def begin(self, world: World, injection: Injection) -> End | None:
        links = list(_links(world, injection))
        world.acted(injection, f"{len(links)} links are {injection.amount:.0f} times as slow")
        return all_of([world.conditions.delay_packets(*link, injection.amount) for link in links])


class Loss:
    name = "loss"
    about = "packets are lost, and sent again by TCP after a while"
    mild = (0.001, 0.01)

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        share = _drawn_evenly_by_size(random, 0.005, 0.2)
        return [setting.injection(random, self.name, (0.2, 6.0), _host(random, setting), share)]

    def begin(self, world: World, injection: Injection) -> End | None:
        links = list(_links(world, injection))
        world.acted(injection, f"{injection.amount:.1%} on {len(links)} links")
        return all_of([world.conditions.lose_packets(*link, injection.amount) for link in links])


class Resets:
    name = "resets"
    about = "connections break, with what is under way on them"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        pause_s = _drawn_evenly_by_size(random, 0.02, 1.0)
        return [setting.injection(random, self.name, (0.0, 4.0), _host(random, setting), pause_s)]

    def begin(self, world: World, injection: Injection) -> End | None:
        random = world.random_of(injection)
        network = world.simulation.network
        # Either end breaks both directions.
        pairs = [(source, target) for source, target in _links(world, injection) if source < target]
        if not pairs:
            return None

        def reset() -> None:
            source, target = random.choice(pairs)
            if network.reset(source, target):
                world.acted(injection, f"connections between {source} and {target}")

        return again_and_again(world, random, injection.amount, reset)


class SplitReads:
    name = "split-reads"
    about = "a read finds only a part of what has arrived"
    mild = (0.05, 0.5)

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, (1.0, 8.0), "all", random.uniform(0.1, 0.9))]

    def begin(self, world: World, injection: Injection) -> End | None:
        world.acted(injection, f"{injection.amount:.0%} of reads")
        return world.conditions.split_reads(injection.amount)


class MessageLoss:
    name = "message-loss"
    about = "messages of the consensus protocol are lost one by one"
    mild = (0.001, 0.02)

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, (0.5, 6.0), "all", _drawn_evenly_by_size(random, 0.01, 0.3))]

    def begin(self, world: World, injection: Injection) -> End | None:
        end = world.conditions.drop_messages(injection.amount)
        if end is not None:
            world.acted(injection, f"{injection.amount:.1%} of messages")
        return end


class Duplication:
    name = "duplication"
    about = "messages of the consensus protocol come a second time, later"
    mild = (0.005, 0.05)

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, (0.5, 6.0), "all", _drawn_evenly_by_size(random, 0.02, 0.3))]

    def begin(self, world: World, injection: Injection) -> End | None:
        longest_s = _drawn_evenly_by_size(world.random_of(injection), 0.002, 2.0)
        end = world.conditions.duplicate_messages(injection.amount, longest_s)
        if end is not None:
            world.acted(injection, f"{injection.amount:.1%} of messages, within {longest_s:.3f} s")
        return end


class Reordering:
    name = "reordering"
    about = "messages of the consensus protocol overtake one another"
    mild = (0.005, 0.05)

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, (0.5, 6.0), "all", _drawn_evenly_by_size(random, 0.02, 0.4))]

    def begin(self, world: World, injection: Injection) -> End | None:
        longest_s = _drawn_evenly_by_size(world.random_of(injection), 0.002, 0.5)
        end = world.conditions.delay_messages(injection.amount, longest_s)
        if end is not None:
            world.acted(injection, f"{injection.amount:.1%} of messages, by up to {longest_s:.3f} s")
        return end
