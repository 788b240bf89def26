"""What faults act upon: the cluster, its clients, and whoever keeps the nodes running.

The world knows which nodes are down and for how many reasons at once, lets faults overlap
without their ends undoing one another, and is the supervisor that `quorate up` is in
production: a node that ends for a reason that some fault explains is started again, and one
that was removed from its cluster is left alone.  One that ends for no such reason has a bug.

    world = World(simulation, cluster, observer, clients=10, on_violation=...)
    world.start()
    world.schedule(plan.injections, FAULTS)
    simulation.pass_until(plan.duration_s)
    world.heal()
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Protocol

from quorate.consensus.records import InvalidState
from quorate.node.roster import RemovedFromCluster
from quorate.node.snapshotting import DamagedData
from quorate.simulation.cluster import SimulatedCluster, client_host, host_of
from quorate.simulation.conditions import Conditions, End
from quorate.simulation.mailbox import MailboxFaults
from quorate.simulation.observation import Observer
from quorate.simulation.operator import Operator, members_of
from quorate.simulation.plan import Injection
from quorate.simulation.scheduler import Simulation
from quorate.simulation.trace import FAULTS as FAULTS_PLACE
from quorate.simulation.violation import Violation
from quorate.storage.identity import DamagedIdentity, IdentityMismatch
from quorate.storage.log_errors import CorruptLog
from quorate.storage.snapshots import CorruptSnapshot

RESTART_S = (0.25, 2.0)
"""How long the supervisor waits before it starts a node again."""

REFUSES_DAMAGE = (CorruptLog, CorruptSnapshot, DamagedData, DamagedIdentity, IdentityMismatch, InvalidState)
"""How a node says that it does not go on with its data.  (A mismatch: the damaged byte was in the format's number.)"""

OPERATOR_LOOKS_S = 0.25


class BeginsFaults(Protocol):
    """A fault as the world sees it."""

    def begin(self, world: World, injection: Injection) -> End | None: ...


class World:
    """See the module's head."""

    def __init__(
        self,
        simulation: Simulation,
        cluster: SimulatedCluster,
        observer: Observer,
        clients: int,
        on_violation: Callable[[Violation], None],
        *,
        mailbox: MailboxFaults | None = None,
        coverage: Counter[str] | None = None,
    ) -> None:
        self.simulation = simulation
        self.cluster = cluster
        self.observer = observer
        self.clients = range(clients)
        self.conditions = Conditions(simulation, cluster, mailbox)
        self.coverage: Counter[str] = Counter() if coverage is None else coverage
        self.random = Random(f"{simulation.seed}/world")
        """The supervisor's.  Faults draw from `random_of`, so that none changes what another one does."""
        self.in_service: dict[int, None] = dict.fromkeys(cluster.members)
        """Nodes that are to run: at first the first members."""
        self.operator = Operator(cluster, observer, self.coverage, on_violation)
        self._on_violation = on_violation
        self._held: dict[int, dict[int, None]] = {node: {} for node in cluster.known}
        """By node, the reasons to keep it down."""
        self._numbers = 0
        self._active: dict[int, End] = {}
        """Of the faults that go on, in the order in which they began."""
        self._healed = False
        self._doomed: dict[int, End] = {}
        """Nodes that are about to lose their power in the middle of an operation, and who is told."""
        cluster.on_end = self._ended
        cluster.on_power_loss = self._died
        cluster.on_set_aside = self._set_aside

    # --- running a plan ----------------------------------------------------------------------

    def start(self) -> None:
        """Switch all nodes on for the first time."""
        for node in self.in_service:
            self._start(node)
        self._look_after_members()

    def _look_after_members(self) -> None:
        """Whoever belongs to the cluster is to run, also where a change was taken for lost and is decided later."""
        for node in members_of(self.operator.look()):
            self.put_into_service(node)
        self.simulation.after(OPERATOR_LOOKS_S, self._look_after_members)

    def schedule(self, injections: Sequence[Injection], faults: Mapping[str, BeginsFaults]) -> None:
        """Let the faults come and go at their times, until `heal`."""
        for injection in injections:
            self.simulation.at(injection.at_s, self.begin, faults[injection.fault], injection)

    def begin(self, fault: BeginsFaults, injection: Injection) -> None:
        """Let a fault act now, and end after its time."""
        if self._healed:
            return
        end = fault.begin(self, injection)
        if end is None:
            return
        self._numbers += 1
        number = self._numbers
        self._active[number] = end
        self.simulation.after(injection.for_s, self._end, number, injection)

    def _end(self, number: int, injection: Injection) -> None:
        end = self._active.pop(number, None)
        if end is not None:
            self.note("fault", f"{injection.fault} ends")
            end()

    def heal(self) -> None:
        """End every fault and keep the rest from beginning; all nodes run that are in service."""
        self._healed = True
        ends, self._active = list(self._active.values()), {}
        for end in ends:
            end()
        for node in self.cluster.known:
            self._held[node].clear()
            self._start_if_free(node)
        self.note("fault", "all faults are over")

    def acted(self, injection: Injection, text: str) -> None:
        """A fault really did something: it counts, and stands in the trace."""
        self.coverage[injection.fault] += 1
        self.note("fault", f"{injection.fault}: {text}")

    def note(self, kind: str, text: str, place: str = FAULTS_PLACE) -> None:
        if self.simulation.trace is not None:
            self.simulation.trace.note(place, self.simulation.now_s, kind, text)

    def random_of(self, injection: Injection) -> Random:
        """What a fault draws from while it acts.  It is the same whatever else is in the plan."""
        return Random(f"{self.simulation.seed}/{injection.fault}/{injection.at_s!r}/{injection.target}")

    # --- whom it is meant for ----------------------------------------------------------------

    def leader(self) -> int | None:
        """The node that leads as far as a majority knows; else one that believes so itself."""
        leader = self.cluster.leader()
        if leader is not None:
            return leader
        for node in self.up():
            running = self.cluster.nodes.get(node)
            if running is not None and running.status()["role"] == "leader":
                return node
        return None

    def up(self) -> list[int]:
        return [node for node in self.in_service if self.cluster.is_up(node)]

    def resolve(self, injection: Injection) -> list[int]:
        """The nodes that an injection is meant for, up or not.

        A target is a list of "all", "leader", "follower", "majority" (the leader's), numbers of
        nodes, and clients, who are left out here.  Where nobody leads, any node that is up
        stands for the leader.  Nodes that are not in service are nobody.
        """
        random = self.random_of(injection)
        members, up = sorted(self.in_service), sorted(self.up())
        leader = self.leader()
        if leader is None:
            leader = random.choice(up or members)
        others = [node for node in members if node != leader]
        found: dict[int, None] = {}
        for part in injection.target.split(","):
            if part == "all":
                found.update(dict.fromkeys(members))
            elif part == "leader":
                found[leader] = None
            elif part == "follower":
                found[random.choice([node for node in others if node in up] or others or members)] = None
            elif part == "majority":
                found.update(dict.fromkeys([leader, *random.sample(others, len(members) // 2)]))
            elif not part.startswith("client-") and int(part) in self.in_service:
                found[int(part)] = None
        return sorted(found)

    def clients_of(self, injection: Injection) -> list[str]:
        """The hosts of the clients ("client-3") that an injection is meant for."""
        parts = [part for part in injection.target.split(",") if part.startswith("client-")]
        return [client_host(int(part.removeprefix("client-"))) for part in parts]

    def node_hosts(self) -> list[str]:
        """Of nodes that are not in service yet too: a fault holds for them as soon as they are."""
        return [host_of(node) for node in self.cluster.known]

    def client_hosts(self) -> list[str]:
        return [client_host(client) for client in self.clients]

    # --- nodes that go down and come back ----------------------------------------------------

    def crash(self, node: int, *, power_loss: bool = False) -> End:
        """Kill a node, and keep it down until what is returned is called (and no other reason is left).

        A node that is down already may still lose its power, and with it what its process had not synced.
        """
        release = self.hold_down(node)
        self._doomed.pop(node, None)
        if self.cluster.is_up(node):
            lost = self.cluster.kill(node, power_loss=power_loss)
            self._count_crash(node, lost, power_loss=power_loss)
        elif power_loss:
            self.simulation.go_dark(host_of(node))
            self._count_power_loss(node, self.cluster.disks[node].lose_power(self.random))
        return release

    def stop(self, node: int) -> End:
        """Stop a node as SIGTERM does.  It is killed where it has not stopped when what is returned is called."""
        release = self.hold_down(node)
        machine = self.cluster.machine(node)
        self.cluster.stop(node, lambda: self.note("crash", "stopped in order", f"node-{node}"))

        def end() -> None:
            if machine.alive:
                lost = self.cluster.kill(node)
                self._count_crash(node, lost, power_loss=False)
            release()

        return end

    def cut_power_after(
        self, node: int, operations: int, acted: Callable[[], None], *, name_changes: int = 0
    ) -> End | None:
        """Let a node lose its power in the middle of an operation on its disk; it stays down until the end.

        The operations are counted once so many names have changed: files that appear, are renamed, or go.
        `acted` is called when that happens.
        """
        if node in self._doomed or not self.cluster.is_up(node):
            return None
        held: list[End] = []
        disk = self.cluster.disks[node]
        disk.ops_until_death = operations
        disk.names_until_countdown = name_changes

        def died() -> None:
            held.append(self.hold_down(node))
            acted()

        def end() -> None:
            if self._doomed.get(node) is died:
                del self._doomed[node]
                disk.ops_until_death = None
                disk.names_until_countdown = 0
            for release in held:
                release()

        self._doomed[node] = died
        return end

    def hold_down(self, node: int) -> End:
        """Do not start a node until what is returned is called."""
        self._numbers += 1
        number = self._numbers
        self._held[node][number] = None
        return lambda: self._release(node, number)

    def damage(self, node: int, path: str, bit: int) -> None:
        """Flip a bit in a file of a node that is down."""
        assert not self.cluster.is_up(node), f"node {node} runs"
        self.operator.damage(node, path)
        self.cluster.disks[node].flip_bit(path, bit)

    def wipe(self, node: int) -> None:
        """Empty the folder of a node that is down."""
        self.note("crash", "the folder is emptied", f"node-{node}")
        self.cluster.wipe(node)
        self.operator.lost(node)

    def put_into_service(self, node: int) -> None:
        """Let a node run that did not."""
        if node not in self.in_service:
            self.in_service[node] = None
            self._start_if_free(node)

    def bring_spare(self) -> int | None:
        """Start a node with an empty folder that belongs to no cluster; None where there is none left."""
        node = self.operator.spare(self.in_service)
        if node is not None and node not in self.in_service:
            if self.cluster.disks[node].list(""):
                self.wipe(node)
            self.put_into_service(node)
        return node

    def _release(self, node: int, number: int) -> None:
        if number in self._held[node]:
            del self._held[node][number]
            self._start_if_free(node)

    def _start_if_free(self, node: int) -> None:
        if not self._held[node] and node in self.in_service and not self.cluster.is_up(node):
            self.coverage["restarts"] += 1
            self._start(node)

    def _start(self, node: int) -> None:
        self.note("start", "process starts", f"node-{node}")
        self.cluster.start(node)
        self.conditions.started(node)

    def _count_crash(self, node: int, lost: int, *, power_loss: bool) -> None:
        self.coverage["crashes"] += 1
        if power_loss:
            self._count_power_loss(node, lost)
        else:
            self.note("crash", "killed", f"node-{node}")

    def _count_power_loss(self, node: int, lost: int) -> None:
        self.coverage["power losses"] += 1
        if lost:
            self.coverage["torn writes"] += 1
        self.note("crash", f"power lost, {lost} changes were not synced", f"node-{node}")

    def _died(self, node: int, lost: int) -> None:
        """A node's machine lost its power in the middle of an operation."""
        self._count_crash(node, lost, power_loss=True)
        died = self._doomed.pop(node, None)
        assert died is not None, f"node {node} died and no fault wanted it"
        died()

    # --- the supervisor ----------------------------------------------------------------------

    def _ended(self, node: int, error: BaseException, served: bool) -> None:
        """A node's process ended by itself."""
        why = f"{type(error).__name__}: {error}"
        self.note("crash", f"process ends: {why}", f"node-{node}")
        self._doomed.pop(node, None)
        if isinstance(error, RemovedFromCluster) and self.operator.is_removed(node):
            self.coverage["nodes ended as removed"] += 1
            if self.operator.is_awaited(node):
                self._begin_anew(node)
            else:
                del self.in_service[node]
            return
        if node in self.operator.damaged and isinstance(error, REFUSES_DAMAGE):
            self._begin_anew(node)
            return
        if not self._explains(node, error, served):
            self._on_violation(Violation("node failed", f"node {node}: {why}"))
            return
        if node in self.conditions.failed_syncs and self.random.random() < 0.5:
            # A device that fails often takes the machine with it.
            self._count_power_loss(node, self.cluster.disks[node].lose_power(self.random))
        self.simulation.after(self.random.uniform(*RESTART_S), self.hold_down(node))

    def _begin_anew(self, node: int) -> None:
        """What the node says needs a person, who gives it an empty folder."""
        self.wipe(node)
        self.simulation.after(self.random.uniform(*RESTART_S), self.hold_down(node))

    def _explains(self, node: int, error: BaseException, served: bool) -> bool:
        """A failed sync ends a node at any time.  A full disk must not, but may keep one from starting."""
        cause = error.__cause__ if error.__cause__ is not None else error
        if not isinstance(cause, OSError):
            return False
        return node in self.conditions.failed_syncs or (node in self.conditions.was_full and not served)

    def _set_aside(self, node: int, why: str) -> None:
        """A node found its folder damaged, and begins anew with an empty one."""
        self.note("start", f"the damaged folder is set aside: {why}", f"node-{node}")
        if node not in self.operator.damaged:
            self._on_violation(Violation("node failed", f"node {node} finds damage that nobody did: {why}"))
            return
        self.coverage["folders set aside"] += 1
        self.operator.lost(node)
