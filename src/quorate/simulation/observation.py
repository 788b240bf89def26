"""Watches every replica of a run from inside its node, without the node's knowing.

A node is handed protocols (`Node(..., protocols)`).  Those from `Observer.protocols` build
the real replicas, each behind an `ObservedReplica`, which shows every step to the group's
invariants and may lose, delay or double what reaches the mailbox:

    observer = Observer(voters, stop_the_run)
    Node(config, environment, hosted, observer.protocols(node, [group_id], true_s, receive))   # at every start
    observer.damaged(node)         # where its disk is made to forget what it had synced
    observer.coverage()            # what the run exercised

A broken invariant does not go through the node, which would take it for a bug of its own and
halt: it goes to `on_violation`, once, and from then on nothing is checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from quorate.consensus.membership import Configuration
from quorate.consensus.protocols import PROTOCOLS
from quorate.consensus.records import Recovered, TruncateFrom
from quorate.consensus.replica import (
    ConsensusProtocol,
    Effects,
    Event,
    Message,
    NodeId,
    RandomSource,
    Receive,
    Replica,
    ReplicaConfig,
    Status,
)
from quorate.simulation.configuration_history import ChangeCounts
from quorate.simulation.invariants import Counts, GroupInvariants
from quorate.simulation.mailbox import Delivery, MailboxFaults
from quorate.simulation.message_labels import generation_label, message_label
from quorate.simulation.violation import Violation
from quorate.simulation.watches import OwnInvariants, Watch, watch

Receiver: TypeAlias = Callable[[NodeId, list[tuple[int, Message]]], None]
"""`Node.received` of the node that runs: (sender, [(group id, message)])."""

Note: TypeAlias = Callable[[NodeId, str, str], None]
"""(node, kind, text)."""


class Observer:
    """One run: all nodes, all their groups."""

    def __init__(
        self,
        voters: Sequence[NodeId],
        on_violation: Callable[[Violation], None],
        mailbox: MailboxFaults | None = None,
        note: Note | None = None,
        protocols: Mapping[str, ConsensusProtocol] = PROTOCOLS,
    ) -> None:
        """`protocols`: those that the nodes may ask for, by name."""
        self._protocols = protocols
        self.groups: dict[int, GroupInvariants] = {}
        """Those that some node has hosted yet."""
        self._own: dict[int, OwnInvariants] = {}
        self.mailbox = mailbox
        self.note = note
        self.violation: Violation | None = None
        """The first one."""
        self.on_configuration: list[Callable[[NodeId, Configuration], None]] = []
        """Told of a node whose latest configuration is another one, or settled."""
        self._voters = tuple(voters)
        self._on_violation = on_violation

    def protocols(
        self, node: NodeId, group_ids: Sequence[int], true_s: Callable[[], float], receive: Receiver
    ) -> Mapping[str, ConsensusProtocol]:
        """The protocols for one start of a node that hosts these groups, in this order.

        `true_s` is true time, in seconds, on the node's machine: at the moment that its loop's
        clock shows, however much its turn has spent.  `receive` takes messages that the mailbox
        kept for later; it is called on the node's loop, so never after its crash.
        """
        start = _Start(self, node, iter(tuple(group_ids)), true_s, receive)
        return MappingProxyType({name: _observed(protocol, start) for name, protocol in self._protocols.items()})

    def watch(self, group_id: int, protocol_name: str) -> Watch:
        """What watches a group that runs on this protocol."""
        if group_id not in self.groups:
            self.groups[group_id], self._own[group_id] = watch(protocol_name, self._voters)
        return self.groups[group_id], self._own[group_id]

    def damaged(self, node: NodeId) -> None:
        """The node's disk was made to forget what it had synced: what the node recovers next says nothing."""
        for group in self.groups.values():
            group.damaged(node)

    def lost(self, node: NodeId) -> None:
        """The node's folder was emptied or set aside: it comes back as another incarnation, or not at all."""
        for group in self.groups.values():
            group.lost(node)

    def violated(self, violation: Violation) -> None:
        """Report the first violation.  After it nothing that was noted can be relied on."""
        if self.violation is None:
            self.violation = violation
            self._on_violation(violation)

    def coverage(self) -> dict[str, int]:
        """What the run exercised, over all groups."""
        totals = asdict(Counts()) | asdict(ChangeCounts())
        for group in self.groups.values():
            for name, count in (asdict(group.counts) | asdict(group.history.counts)).items():
                totals[name] += count
        for own in self._own.values():
            for name, count in own.counts.items():
                totals[name] = totals.get(name, 0) + count
        if self.mailbox is not None:
            totals["messages_dropped"] = self.mailbox.dropped
            totals["messages_delayed"] = self.mailbox.delayed
            totals["messages_duplicated"] = self.mailbox.duplicated
        return totals


@dataclass(frozen=True, slots=True)
class _Start:
    """One start of one node.  The arguments are those of `Observer.protocols`."""

    observer: Observer
    node: NodeId
    group_ids: Iterator[int]
    true_s: Callable[[], float]
    receive: Receiver


def _observed(protocol: ConsensusProtocol, start: _Start) -> ConsensusProtocol:
    """`build` is not told for which group: a node builds its groups in the order in which it hosts them."""

    def build(config: ReplicaConfig, recovered: Recovered, random: RandomSource, now_ms: int) -> Replica:
        group_id = next(start.group_ids, None)
        assert group_id is not None, f"node {start.node} builds more groups than it was said to host"
        observer = start.observer
        watch = observer.watch(group_id, protocol.name)
        if observer.violation is None:
            try:
                watch[0].built(start.node, recovered, now_ms, config.initial, config.incarnation)
            except Violation as violation:
                observer.violated(violation)
        return ObservedReplica(protocol.build(config, recovered, random, now_ms), group_id, protocol.name, watch, start)

    return replace(protocol, build=build)


class ObservedReplica:
    """A replica that is watched.  Implements `quorate.consensus.replica.Replica`."""

    def __init__(self, replica: Replica, group_id: int, protocol_name: str, watch: Watch, start: _Start) -> None:
        self.deadline_ms: Callable[[], int] = replica.deadline_ms
        self.status: Callable[[], Status] = replica.status
        self.configuration: Callable[[], Configuration] = replica.configuration
        self.settled_version: Callable[[], int] = replica.settled_version
        self.uncommitted_bytes: Callable[[], int] = replica.uncommitted_bytes
        self._replica = replica
        self._observer = start.observer
        self._group, self._own = watch
        self._group_id = group_id
        self._protocol_name = protocol_name
        self._node = start.node
        self._true_s = start.true_s
        self._receive = start.receive
        self._mailbox = start.observer.mailbox
        self._late = False
        """What comes in at this moment was kept by the mailbox before: it is not decided over twice."""

    def step(self, event: Event, now_ms: int) -> Effects:
        mailbox = self._mailbox
        if mailbox is not None and mailbox.rates is not None and isinstance(event, Receive) and not self._late:
            delivery = mailbox.decide()
            if self._observer.note is not None:
                self._note_fate(self._observer.note, delivery, event.message)
            if delivery.again_after_s is not None:
                asyncio.get_running_loop().call_later(delivery.again_after_s, self._deliver_late, event)
            if not delivery.now:
                return Effects()
        effects = self._replica.step(event, now_ms)
        observer = self._observer
        if observer.violation is None:
            group = self._group
            try:
                group.stepped(self._node, event, effects, now_ms, self._true_s())
                self._own.stepped(self._node, event, effects, self.status)
                if group.is_deposed(self._node):
                    group.check_contact(self._node, self._replica.quorum_contact_ms())
            except Violation as violation:
                observer.violated(violation)
        if observer.note is not None:
            self._write_notes(observer.note, effects)
        if effects.configuration is not None:
            for listener in tuple(observer.on_configuration):
                listener(self._node, effects.configuration)
        return effects

    def quorum_contact_ms(self) -> int | None:
        contact_ms = self._replica.quorum_contact_ms()
        if self._observer.violation is None:
            try:
                self._group.check_contact(self._node, contact_ms)
            except Violation as violation:
                self._observer.violated(violation)
        return contact_ms

    def _deliver_late(self, event: Receive) -> None:
        self._late = True
        if self._observer.note is not None:
            self._observer.note(self._node, "mailbox", f"late: {message_label(event.message)}")
        try:
            self._receive(event.sender, [(self._group_id, event.message)])
        finally:
            self._late = False

    def _note_fate(self, note: Note, delivery: Delivery, message: Message) -> None:
        label = message_label(message)
        if not delivery.now:
            fate = "lost" if delivery.again_after_s is None else "kept for later"
            note(self._node, "mailbox", f"{fate}: {label}")
        elif delivery.again_after_s is not None:
            note(self._node, "mailbox", f"to come twice: {label}")

    def _named(self, generation: int) -> str:
        return generation_label(self._protocol_name, generation)

    def _write_notes(self, note: Note, effects: Effects) -> None:
        node = self._node
        for record in effects.records:
            if isinstance(record, TruncateFrom):
                note(node, "truncate", f"group {self._group_id}: from {record.position}")
        if effects.install is not None:
            note(node, "install", f"group {self._group_id}: snapshot of {effects.install.position}")
        if effects.committed:
            first, last = effects.committed[0], effects.committed[-1]
            positions = f"{first.position}" if first is last else f"{first.position} to {last.position}"
            note(node, "commit", f"group {self._group_id}: {positions} in {self._named(last.generation)}")
        if effects.configuration is not None:
            note(node, "members", f"group {self._group_id}: {describe_configuration(effects.configuration)}")
        leadership = effects.leadership
        if leadership is not None:
            leader = "nobody" if leadership.leader is None else f"node {leadership.leader}"
            ready = ", ready" if leadership.ready else ""
            note(
                node,
                "role",
                f"group {self._group_id}: {leadership.role.value} in {self._named(leadership.generation)}, "
                f"led by {leader}{ready}",
            )


def describe_configuration(configuration: Configuration) -> str:
    """In a few words; incarnations by their first letters."""

    def named(members: Mapping[int, str]) -> str:
        return " ".join(f"{node}:{incarnation[:4]}" for node, incarnation in members.items()) or "-"

    learners = f", learners {named(configuration.learners)}" if configuration.learners else ""
    former = f", jointly with {named(configuration.old_voters)}" if configuration.is_joint else ""
    return f"version {configuration.version}: voters {named(configuration.voters)}{former}{learners}"
