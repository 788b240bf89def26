"""A laboratory whose runs the simulator's diagrams draw: who said what to whom, and what came of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from quorate.consensus.membership import Configuration
from quorate.consensus.records import TruncateFrom
from quorate.consensus.replica import ConsensusProtocol, Effects, Event, NodeId, ReplicaConfig, Role, Send
from quorate.simulation.diagram_text import render_text
from quorate.simulation.message_labels import generation_label, message_label
from quorate.simulation.trace import Trace
from tests.consensus.lab import InFlight, Lab, Server
from tests.consensus.script import EvenlySpread

HOP_MS, WRITE_MS = 10, 2
"""How long a message takes, and a write."""


def place(node: NodeId) -> str:
    return f"node-{node}"


class DrawnLab(Lab):
    """Servers 1 to `nodes`."""

    def __init__(self, protocol: ConsensusProtocol, nodes: int) -> None:
        self.trace = Trace()
        self._under_way: deque[tuple[InFlight, int, int]] = deque()
        """(message, its number in the trace, when it arrives)."""
        self.loses: Callable[[InFlight], bool] = lambda flight: False
        """Whether what is sent now gets lost."""
        voters = Configuration.make(1, dict.fromkeys(range(1, nodes + 1), ""))
        configs = [ReplicaConfig(node, voters) for node in voters.voters]
        super().__init__(protocol, configs, lambda node: EvenlySpread(node, nodes))
        self.watchers.append(self._note)
        for node in voters.voters:
            self.trace.note(place(node), 0.0, "start", "")

    # --- what is drawn -----------------------------------------------------------------------

    def _note(self, server: Server, event: Event, effects: Effects) -> None:
        node, now_s = place(server.config.node_id), self.now_ms / 1000
        for record in effects.records:
            if isinstance(record, TruncateFrom):
                self.trace.note(node, now_s, "truncate", f"from {record.position}")
        for entry in effects.committed:
            generation = generation_label(self.protocol.name, entry.generation)
            content = entry.payload.decode() or "empty"
            self.trace.note(node, now_s, "commit", f"{entry.position}, {content}, {generation}")
        leadership = effects.leadership
        if leadership is not None and leadership.role is Role.LEADER:
            generation = generation_label(self.protocol.name, leadership.generation)
            self.trace.note(node, now_s, "role", f"leads {generation}{', ready' if leadership.ready else ''}")

    def _post(self, server: Server, sends: Sequence[Send]) -> None:
        for send in sends:
            super()._post(server, [send])
            sender = place(server.config.node_id)
            number = self.trace.send(sender, self.now_ms / 1000, place(send.to), message_label(send.message))
            if self.loses(self.network[-1]):
                self.network.pop()
            else:
                self._under_way.append((self.network[-1], number, self.now_ms + HOP_MS))

    def crash(self, node: NodeId, surviving_records: int = 0) -> None:
        super().crash(node, surviving_records)
        self.trace.note(place(node), self.now_ms / 1000, "crash", "")

    def start_again(self, node: NodeId) -> None:
        self.restart(node)
        self.trace.note(place(node), self.now_ms / 1000, "start", "")

    # --- what happens ------------------------------------------------------------------------

    def run(self, until_ms: int) -> None:
        """Messages arrive and writes end, in the order of their times.  For ticks the caller sees."""
        writes: dict[NodeId, int] = {}
        while True:
            for node in self.up():
                if self.servers[node].unsynced:
                    writes.setdefault(node, self.now_ms + WRITE_MS)
            times = [*(due for _, _, due in self._under_way), *writes.values()]
            if not times or min(times) > until_ms:
                self.now_ms = max(self.now_ms, until_ms)
                return
            self.now_ms = max(self.now_ms, min(times))
            written = [node for node, due in writes.items() if due <= self.now_ms]
            for node in written:
                del writes[node]
                while node in self.up() and self.servers[node].unsynced:
                    self.persist(node)
            if not written:
                self._arrive()

    def _arrive(self) -> None:
        """The oldest message: all of them take equally long."""
        flight, number, _ = self._under_way.popleft()
        self.network.remove(flight)
        if self.servers[flight.to].replica is not None:
            self.trace.receive(place(flight.to), self.now_ms / 1000, number)
            self.deliver(flight)

    def drawing(self, width: int, first_s: float = 0.0) -> str:
        return render_text([event for event in self.trace.events if event.time_s >= first_s], width)
