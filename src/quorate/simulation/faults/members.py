"""Members that come and go, leaderships that are handed over, and folders that are lost.

What is asked for is asked as a person would (`simulation.operator`), again and again until it is done or the fault
is over.  A change that was decided goes on by itself after that, as it does in production.
"""

from __future__ import annotations

from random import Random

from quorate.consensus.membership import Configuration
from quorate.node.room import CLUSTER_GROUP
from quorate.services.cluster.commands import Add, Promote, Remove
from quorate.simulation.cluster import SERVICE_GROUP
from quorate.simulation.conditions import End
from quorate.simulation.faults.base import Setting, again_and_again, all_of
from quorate.simulation.plan import Injection
from quorate.simulation.world import World

ASK_AGAIN_S = 0.3
CHANGE_S = (3.0, 12.0)
PROMOTED, FORCED, WITHOUT_POWER = 1.0, 1.0, 1.0
"""As amounts."""


class Transfer:
    name = "transfer"
    about = "groups' leaders hand over, to any voter or to the one that is furthest behind"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        pause_s = random.choice([0.05, 0.3, 1.0, 3.0])
        return [setting.injection(random, self.name, (0.1, 5.0), "all", pause_s)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """`amount` is the time from one transfer to the next, in seconds."""
        random, operator = world.random_of(injection), world.operator

        def act() -> None:
            for group in random.choice([(SERVICE_GROUP,), (CLUSTER_GROUP,), (SERVICE_GROUP, CLUSTER_GROUP)]):
                voters = operator.voters(group)
                target = random.choice([None, voters[0], random.choice(voters)]) if voters else None
                if operator.hand_over(group, target):
                    world.acted(injection, f"group {group} to {'anyone' if target is None else f'node-{target}'}")

        return again_and_again(world, random, injection.amount, act)


class AddMember:
    name = "add-member"
    about = "a spare node is started and added as a learner, and most often promoted"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        promoted = PROMOTED if random.random() < 0.8 else 0.0
        return [setting.injection(random, self.name, CHANGE_S, "", promoted)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """Amount 1: it is promoted."""
        operator = world.operator
        spare = world.bring_spare()
        if spare is None:
            return None
        seen: list[bool] = []

        def act() -> None:
            newest = operator.newest()
            member = newest.members.get(spare) if newest is not None else None
            if member is None and not seen:
                operator.ask(Add(0, spare, world.cluster.peer_address(spare)))
            elif not seen:
                seen.append(True)
                world.acted(injection, f"node-{spare}")
            if member is not None and not member.voter and injection.amount == PROMOTED:
                operator.ask(Promote(0, spare))

        return again_and_again(world, world.random_of(injection), ASK_AGAIN_S, act)


class RemoveMember:
    name = "remove-member"
    about = "a member is removed; now and then also where that leaves no failure to be borne"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        forced = FORCED if random.random() < 0.3 else 0.0
        return [setting.injection(random, self.name, CHANGE_S, setting.victim(random), forced)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """Amount 1: it is forced."""
        operator = world.operator
        leaving = dict.fromkeys(world.resolve(injection))

        def act() -> None:
            newest = operator.newest()
            if newest is None:
                return
            for node in [*leaving]:
                if node in newest.members:
                    operator.ask(Remove(0, node), forced=injection.amount == FORCED)
                else:
                    del leaving[node]
                    world.acted(injection, f"node-{node}")

        return again_and_again(world, world.random_of(injection), ASK_AGAIN_S, act)


class ReplaceMember:
    name = "replace-member"
    about = "a spare node is added, to vote in the place of a member as soon as it has caught up"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        return [setting.injection(random, self.name, CHANGE_S, setting.victim(random))]

    def begin(self, world: World, injection: Injection) -> End | None:
        operator = world.operator
        targets = world.resolve(injection)
        spare = world.bring_spare() if targets else None
        if spare is None:
            return None
        seen: list[bool] = []

        def act() -> None:
            newest = operator.newest()
            if newest is None or seen:
                return
            if spare in newest.members:
                seen.append(True)
                world.acted(injection, f"node-{spare} in the place of node-{targets[0]}")
            elif targets[0] in newest.members:
                operator.ask(Add(0, spare, world.cluster.peer_address(spare), replaces=targets[0]))

        return again_and_again(world, world.random_of(injection), ASK_AGAIN_S, act)


class Wipe:
    name = "wipe"
    about = "a node's folder is lost while it is down; never of so many at a time that the rest were no quorum"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        how = WITHOUT_POWER if random.random() < 0.5 else 0.0
        return [setting.injection(random, self.name, (0.05, 3.0), setting.victim(random), how)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """Amount 1: by a loss of power."""
        ends = []
        for node in world.resolve(injection):
            if world.operator.may_lose(node):
                ends.append(world.crash(node, power_loss=injection.amount == WITHOUT_POWER))
                world.wipe(node)
                world.acted(injection, f"node-{node}")
        return all_of(ends)


class CrashAmidChange:
    """The moments in which two sets of voters decide are too short for dates that are drawn before the run."""

    name = "crash-amid-change"
    about = "as soon as members change, a leader goes, or a learner that is being filled"
    mild = None

    def draw(self, random: Random, setting: Setting) -> list[Injection]:
        longest_s = random.choice([0.0, 0.002, 0.02, 0.3])
        target = random.choice(["leader", "leader", "follower"])
        return [setting.injection(random, self.name, CHANGE_S, target, longest_s)]

    def begin(self, world: World, injection: Injection) -> End | None:
        """Within `amount` seconds after the change: the leader where voters change, "follower" means the learner."""
        random, listeners = world.random_of(injection), world.observer.on_configuration
        struck: dict[bytes, None] = {}
        down: list[End] = []

        def configured(node: int, configuration: Configuration) -> None:
            wanted = configuration.is_joint if injection.target == "leader" else bool(configuration.learners)
            key = configuration.encode()
            if wanted and key not in struck:
                struck[key] = None
                world.simulation.after(random.uniform(0.0, injection.amount), strike, node, configuration)

        def strike(node: int, configuration: Configuration) -> None:
            victims = [node] if injection.target == "leader" else [*configuration.learners]
            for victim in victims:
                if configured in listeners and world.cluster.is_up(victim):
                    world.acted(injection, f"node-{victim} at {configuration.version}")
                    release = world.crash(victim, power_loss=random.random() < 0.5)
                    world.simulation.after(random.uniform(0.1, 2.0), release)
                    down.append(release)

        listeners.append(configured)

        def end() -> None:
            listeners.remove(configured)
            for release in down:
                release()

        return end


MEMBER_FAULTS = (Transfer(), AddMember(), RemoveMember(), ReplaceMember(), Wipe(), CrashAmidChange())
