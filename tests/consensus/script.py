"""A small language for situations: commands in, everything that the replicas did out.

A trace file holds commands (lines that begin with `>`), comments (`#`), and below each
command what it printed.  Nothing in the language belongs to one protocol.

    start N [key=value ...]     build servers 1 ... N; keys are the integers of ReplicaConfig, and
                                equal_timeouts=1, which lets all servers draw the same
    spare N,...                 before `start`: servers that are no members yet
    recover N generation=G log=G,G,...
                                before `start`: server N comes up with this log (one generation an entry, - for a hole)
    tick N                      move the clock to N's deadline and let it know
    advance MS                  move the clock, ticking every server whose deadline comes
    run MS                      the same, and let everything arrive after each tick
    propose N TEXT              ask N to append a batch
    barrier N ID                ask N for a read barrier
    change N V VOTERS [LEARNERS]
                                ask N for a step towards version V, with members 1,2,3'; each ' stands for
                                another incarnation
    handover N [TARGET]         ask N to hand the leadership over
    wipe N                      before `restart`: N comes back with an empty folder and its next incarnation
    persist N                   everything that N has not synced becomes durable
    deliver [A->B]              hand over what is in the network now (on one link)
    drop [A->B]                 lose what is in the network now (on one link)
    duplicate [A->B]            put what is in the network there a second time
    settle                      persist and deliver until nothing moves
    partition A,B | C,...       messages between the two sides are lost from now on
    heal                        no more partition
    full N                      N's disk is full: it loses what carries entries with a payload
    room N                      it has room again
    crash N [surviving=K]       stop N; K of its unsynced records survive
    restart N                   start it again from what is durable
    lost N PEER                 tell N that its connection to PEER closed
    compact N POSITION          N makes a snapshot
    transfer A->B [fails]       the snapshot that A is to send to B arrives, or does not
    show                        print every server's state
    quietly COMMAND             do it and print nothing
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from quorate.consensus.membership import NO_CONFIGURATION, Configuration, decode_configuration, is_configuration
from quorate.consensus.paxos.messages import AcceptedValue
from quorate.consensus.records import CompactedThrough, Entry, Record, Recovered, SaveEntry, SaveState
from quorate.consensus.replica import (
    ChangeMembers,
    ConsensusProtocol,
    Effects,
    Event,
    Message,
    NodeId,
    PeerLost,
    Propose,
    ReadBarrier,
    Receive,
    ReplicaConfig,
    Send,
    Tick,
    TransferLeadership,
)
from tests.consensus.lab import InFlight, Lab, Server

STATE = ("term", "voted_for", "ballot", "accepted_epoch", "current_epoch")


class EvenlySpread:
    """Not random at all: each server draws its own fixed part of the range, the first the lowest."""

    def __init__(self, node: NodeId, nodes: int) -> None:
        self.node = node
        self.nodes = nodes

    def randrange(self, start: int, stop: int) -> int:
        return start + (stop - start) * (self.node - 1) // self.nodes


class Script:
    """Runs commands against one lab and gathers what they print."""

    def __init__(self, protocol: ConsensusProtocol, encode_state: Callable[[int], bytes]) -> None:
        self.protocol = protocol
        self.encode_state = encode_state
        """generation -> the protocol's hard state of a server that has not voted in it."""
        self.lab: Lab | None = None
        self.recovered: dict[NodeId, Recovered] = {}
        self.spare: tuple[NodeId, ...] = ()
        self.cut: set[tuple[NodeId, NodeId]] = set()
        self.full: set[NodeId] = set()
        self.output: list[str] = []

    def run(self, text: str) -> str:
        """A trace file's text with what each command prints now."""
        lines: list[str] = []
        for line in text.splitlines():
            if line.startswith("#"):
                if lines and lines[-1].startswith(">"):
                    lines.append("")
                lines.append(line)
            elif line.startswith(">"):
                lines.append(line)
                printed = self.command(line[1:].strip())
                if printed:
                    lines.extend([*printed, ""])
            elif not line and lines and lines[-1].startswith("#"):
                lines.append("")
        return "\n".join(lines).rstrip("\n") + "\n"

    def command(self, line: str) -> list[str]:
        """Carry out one command and return what it printed.  Raises ValueError for one that is unknown."""
        name, _, rest = line.partition(" ")
        if name == "quietly":
            self.command(rest)
            return []
        method: Callable[..., None] | None = getattr(self, f"_do_{name}", None)
        if method is None:
            raise ValueError(f"no such command: {line}")
        self.output = []
        method(*rest.split())
        return self.output

    # --- commands ------------------------------------------------------------------------

    def _do_recover(self, node: str, generation: str, log: str = "log=") -> None:
        generations = [word for word in log.removeprefix("log=").split(",") if word]
        entries = tuple(Entry(p, int(g), b"%d" % p) for p, g in enumerate(generations, start=1) if g != "-")
        state = self.encode_state(int(generation.removeprefix("generation=")))
        self.recovered[int(node)] = Recovered(state, CompactedThrough(0, 0), entries)

    def _do_start(self, nodes: str, *options: str) -> None:
        voters = tuple(range(1, int(nodes) + 1))
        everybody = tuple(sorted({*voters, *self.spare}))
        settings = {key: int(value) for key, _, value in (option.partition("=") for option in options)}
        equal = settings.pop("equal_timeouts", 0)
        configs = [config_for(node, voters, settings) for node in everybody]
        self.lab = Lab(
            self.protocol,
            configs,
            lambda node: EvenlySpread(1 if equal else node, len(everybody)),
            self.recovered,
        )
        self.lab.watchers.append(self._write_step)

    def _do_spare(self, nodes: str) -> None:
        self.spare = tuple(int(node) for node in nodes.split(","))

    def _do_tick(self, node: str) -> None:
        self._lab().tick(int(node))

    def _do_advance(self, duration_ms: str) -> None:
        self._advance(int(duration_ms), lambda: None)

    def _do_run(self, duration_ms: str) -> None:
        self._advance(int(duration_ms), self._do_settle)

    def _advance(self, duration_ms: int, after_tick: Callable[[], None]) -> None:
        lab = self._lab()
        end_ms = lab.now_ms + duration_ms
        while True:
            deadline_ms, node = min((lab.servers[node].running().deadline_ms(), node) for node in lab.up())
            if deadline_ms > end_ms:
                break
            lab.tick(node)
            after_tick()
        lab.now_ms = end_ms

    def _do_propose(self, node: str, text: str) -> None:
        self._lab().step(int(node), Propose(text.encode()))

    def _do_barrier(self, node: str, barrier_id: str) -> None:
        self._lab().step(int(node), ReadBarrier(int(barrier_id)))

    def _do_change(self, node: str, version: str, voters: str, learners: str = "") -> None:
        goal = Configuration.make(int(version), _members(voters), _members(learners))
        self._lab().step(int(node), ChangeMembers(goal))

    def _do_handover(self, node: str, target: str = "") -> None:
        self._lab().step(int(node), TransferLeadership(int(target) if target else None))

    def _do_wipe(self, node: str) -> None:
        self._lab().wipe(int(node))

    def _do_persist(self, node: str) -> None:
        lab = self._lab()
        for _ in range(len(lab.servers[int(node)].unsynced)):
            lab.persist(int(node))

    def _do_deliver(self, link: str = "") -> None:
        for flight in self._take(link):
            self._deliver(flight)

    def _do_drop(self, link: str = "") -> None:
        for flight in self._take(link):
            self._write_lost(flight)

    def _do_duplicate(self, link: str = "") -> None:
        network = self._lab().network
        network.extend([flight for flight in list(network) if _is_on(flight, link)])

    def _do_settle(self) -> None:
        lab = self._lab()
        while lab.network or any(lab.servers[node].unsynced for node in lab.up()):
            for node in lab.up():
                self._do_persist(str(node))
            self._do_deliver()

    def _do_partition(self, *words: str) -> None:
        one, _, other = "".join(words).partition("|")
        for a in one.split(","):
            for b in other.split(","):
                self.cut |= {(int(a), int(b)), (int(b), int(a))}

    def _do_heal(self) -> None:
        self.cut.clear()

    def _do_full(self, node: str) -> None:
        self.full.add(int(node))

    def _do_room(self, node: str) -> None:
        self.full.remove(int(node))

    def _do_crash(self, node: str, surviving: str = "surviving=0") -> None:
        self._lab().crash(int(node), int(surviving.removeprefix("surviving=")))

    def _do_restart(self, node: str) -> None:
        self._lab().restart(int(node))
        self._show(int(node))

    def _do_lost(self, node: str, peer: str) -> None:
        self._lab().step(int(node), PeerLost(int(peer)))

    def _do_compact(self, node: str, position: str) -> None:
        self._lab().compact(int(node), int(position))

    def _do_transfer(self, link: str, fails: str = "") -> None:
        lab = self._lab()
        for transfer in [t for t in lab.transfers if f"{t.sender}->{t.to}" == link]:
            lab.finish_transfer(transfer, arrives=not fails)

    def _do_show(self) -> None:
        for node in self._lab().servers:
            self._show(node)

    # --- the network ---------------------------------------------------------------------

    def _lab(self) -> Lab:
        if self.lab is None:
            raise ValueError("a trace begins with `start`")
        return self.lab

    def _take(self, link: str) -> list[InFlight]:
        lab = self._lab()
        taken = [flight for flight in lab.network if _is_on(flight, link)]
        lab.network = [flight for flight in lab.network if not _is_on(flight, link)]
        return taken

    def _deliver(self, flight: InFlight) -> None:
        dropped = flight.to in self.full and flight.message.payload_bytes() > 0
        if dropped or (flight.sender, flight.to) in self.cut or self._lab().servers[flight.to].replica is None:
            self._write_lost(flight)
        else:
            self._lab().deliver(flight)

    # --- output --------------------------------------------------------------------------

    def _write_lost(self, flight: InFlight) -> None:
        self.output.append(f"lost {flight.sender}->{flight.to} {describe_message(flight.message)}")

    def _write_step(self, server: Server, event: Event, effects: Effects) -> None:
        write = self.output.append
        write(f"{server.config.node_id} at {self._lab().now_ms} ms: {describe_event(event)}")
        if effects.leadership is not None:
            leader = "nobody" if effects.leadership.leader is None else effects.leadership.leader
            ready = ", ready" if effects.leadership.ready else ""
            role, generation = effects.leadership.role.value, effects.leadership.generation
            write(f"    {role} in generation {generation}, led by {leader}{ready}")
        if effects.configuration is not None:
            settled = server.running().settled_version() == effects.configuration.version
            write(f"    {describe_configuration(effects.configuration)}{', settled' if settled else ''}")
        for record in effects.records:
            write(f"    save {describe_record(record, server)}")
        for send in effects.messages:
            write(f"    {describe_send(send)}")
        for send in effects.messages_after_persist:
            write(f"    once persisted {describe_send(send)}")
        if effects.install is not None:
            write(f"    install snapshot {effects.install.position}/{effects.install.generation}")
        if effects.committed:
            write(f"    apply {describe_entries(tuple(effects.committed))}")
        for barrier in effects.barriers_passed:
            write(f"    barrier {barrier.barrier_id} passed at {barrier.position}")
        for barrier_id in effects.barriers_failed:
            write(f"    barrier {barrier_id} failed")
        for wanted in effects.snapshots:
            write(f"    send snapshot to {wanted.to}")
        if effects.refused is not None:
            write(f"    refused: {effects.refused.value}")

    def _show(self, node: NodeId) -> None:
        server = self._lab().servers[node]
        if server.replica is None:
            self.output.append(f"{node}: down")
            return
        status = server.replica.status()
        words = " ".join(f"{key}={value}" for key, value in status.words.items() if key != "election_timeout_ms")
        first, held = server.written.compacted.position + 1, server.written.entries
        log = " ".join(str(held[p].generation) if p in held else "-" for p in range(first, max(held, default=0) + 1))
        positions = f"commit={status.commit_position} applied={len(server.applied)}"
        self.output.append(f"{node}: {words} {positions} log from {first}: {log}".rstrip())
        configuration = server.replica.configuration()
        if configuration.version != 1 or configuration.learners:
            self.output.append(f"   {describe_configuration(configuration)}")


def config_for(node: NodeId, voters: tuple[NodeId, ...], settings: dict[str, Any]) -> ReplicaConfig:
    initial = Configuration.make(1, dict.fromkeys(voters, "")) if node in voters else NO_CONFIGURATION
    return ReplicaConfig(node, initial, **settings)


def _members(words: str) -> dict[NodeId, str]:
    return {int(word.rstrip("'")): "'" * word.count("'") for word in words.split(",") if word}


def _is_on(flight: InFlight, link: str) -> bool:
    return not link or link == f"{flight.sender}->{flight.to}"


def describe_entries(entries: tuple[Entry | AcceptedValue, ...]) -> str:
    return "[" + ", ".join(map(describe_entry, entries)) + "]"


def describe_entry(entry: Entry | AcceptedValue) -> str:
    if isinstance(entry, AcceptedValue):
        return f"{describe_entry(entry.entry)} under {entry.ballot}"
    return f"{entry.position}/{entry.generation} {describe_payload(entry.payload)}"


def describe_payload(payload: bytes) -> str:
    if is_configuration(payload):
        return "{" + describe_configuration(decode_configuration(payload)) + "}"
    return payload.decode("ascii") or "-"


def describe_configuration(configuration: Configuration) -> str:
    def members(them: Mapping[NodeId, str]) -> str:
        return ",".join(f"{node}{incarnation}" for node, incarnation in them.items())

    old = f"{members(configuration.old_voters)} and " if configuration.is_joint else ""
    learners = f" learners {members(configuration.learners)}" if configuration.learners else ""
    return f"version {configuration.version} voters {old}{members(configuration.voters) or 'nobody'}{learners}"


def describe_message(message: Message) -> str:
    words = [type(message).__name__]
    for field in msgspec.structs.fields(message):
        value = getattr(message, field.name)
        if field.name in ("transfer", "round_trip_ms") and not value:
            continue
        if isinstance(value, bool):
            words.append(f"{field.name}={'yes' if value else 'no'}")
        elif isinstance(value, tuple):
            words.append(describe_entries(value))
        else:
            words.append(f"{field.name}={value}")
    return " ".join(words)


def describe_send(send: Send) -> str:
    return f"to {send.to}: {describe_message(send.message)}"


def describe_record(record: Record, server: Server) -> str:
    if isinstance(record, SaveState):
        return " ".join(f"{key}={value}" for key, value in server.running().status().words.items() if key in STATE)
    if isinstance(record, SaveEntry):
        return describe_entries((record.entry,))
    if isinstance(record, CompactedThrough):
        return f"compacted through {record.position}/{record.generation}"
    return f"truncate from {record.position}"


def describe_event(event: Event) -> str:
    if isinstance(event, Receive):
        return f"from {event.sender}: {describe_message(event.message)}"
    if isinstance(event, Tick):
        return "tick"
    if isinstance(event, ChangeMembers):
        return f"ChangeMembers to {describe_configuration(event.goal)}"
    words = [
        f"{field.name}={getattr(event, field.name)}"
        for field in msgspec.structs.fields(event)
        if field.name != "configuration"
    ]
    return " ".join([type(event).__name__, *words])
