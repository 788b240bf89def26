"""A user's state machine as a service of Quorate, watched on every replica.

What is checked beside what the clients see:

    state machine agreement   the same command gives the same result on every replica, and so does a replica that was
                              restarted; equal numbers of commands lead to equal snapshots; and a state machine that
                              was restored is what it was, from which the snapshot was made
    state machine failed      it raised

Restarts and lagging nodes restore a snapshot only a few times in a run.  So every replica also does so by itself, each
at other commands than the others: from then on another instance serves, which was restored from the snapshot of the
one before.  What a snapshot forgets, or a restored instance keeps of its former state, shows soon.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, NoReturn, Protocol

from quorate.consensus.replica import NodeId
from quorate.services.interface import Service, StoreLoader
from quorate.simulation.own.door import StateMachineDoor
from quorate.simulation.own.replicated import of_bytes
from quorate.simulation.own.wire import describe
from quorate.simulation.store_agreement import StoreAgreement
from quorate.simulation.violation import Violation
from quorate.statemachine.machine import StateMachine as ReplicatedClass

SLICE_BYTES: Final = 1 << 16
HEAD: Final = Struct(">QQ")
"""Of a snapshot: commands applied, bytes of the state machine's own."""
RENEW_COMMANDS: Final = 60
"""After so many commands a replica goes on with another instance."""
SHOWN_BYTES: Final = 200
"""Of anything in the text of a violation."""


class StateMachine(Protocol):
    """What is replicated.

    It must be deterministic: `apply` reads nothing but the state, the command and the time that it is given.  That
    rules out `random`, `time`, `id`, and the order of a set.
    """

    def apply(self, command: bytes, time_ms: int) -> bytes:
        """Do the command; its result.  An impossible command is a result too: an exception stops the node.

        `time_ms` is Unix time in milliseconds, stamped by the leader, never lower than in an earlier call.
        """
        ...

    def snapshot(self) -> bytes:
        """The whole state.  Changes nothing.  Equal states give equal bytes: sort what has no order."""
        ...

    def restore(self, data: bytes) -> None:
        """From now on the state is the one of which `data` is the snapshot, whatever it was before."""
        ...


@dataclass(frozen=True, slots=True)
class _Applied:
    """A command as the first replica applied it."""

    node: NodeId
    command: bytes
    time_ms: int
    result: bytes


@dataclass(slots=True)
class Replicas:
    """What the replicas of one run have come to: each must come to what the first one did."""

    agreement: StoreAgreement
    _applied: dict[int, _Applied] = field(default_factory=dict)
    """By the number of the command."""
    _states: dict[int, tuple[NodeId, bytes]] = field(default_factory=dict)
    """By the number of commands applied."""

    def applied(self, number: int, own: _Applied) -> None:
        first = self._applied.setdefault(number, own)
        if (first.command, first.time_ms) != (own.command, own.time_ms):
            self._disagree(f"command {number} is {first} and {own}")
        elif first.result != own.result:
            self._disagree(
                f"command {number}, {_show(own.command)} at {own.time_ms} ms, gives {_show(first.result)} on node "
                f"{first.node} and {_show(own.result)} on node {own.node}"
            )

    def is_at(self, node: NodeId, number: int, state: bytes) -> None:
        first, known = self._states.setdefault(number, (node, state))
        if known != state:
            self._disagree(
                f"after {number} commands the snapshot of node {first} is {_show(known, state)} and that of node "
                f"{node} is {_show(state, known)}"
            )

    def restored_otherwise(self, node: NodeId, number: int, state: bytes, restored: bytes) -> None:
        self._disagree(
            f"after {number} commands node {node} was restored from the snapshot {_show(state, restored)}, and its own "
            f"snapshot is then {_show(restored, state)}"
        )

    def _disagree(self, text: str) -> None:
        self.agreement.violated("state machine agreement", text)

    def failed(self, node: NodeId, what: str, error: Exception) -> NoReturn:
        """The first such report counts; what is raised ends the node, or a look from outside of any."""
        violation = Violation("state machine failed", f"node {node}, {what}: {tell(error)}")
        self.agreement.violated(violation.check, violation.text)
        raise violation from error


def tell(error: BaseException) -> str:
    """An error of the user's code: what it is in the first line, then where it comes from."""
    return f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}"


def _show(data: bytes, other: bytes = b"") -> str:
    """Bytes, or the part of them where they begin to differ from others."""
    if len(data) <= SHOWN_BYTES:
        return repr(data)
    same = next((at for at, (one, two) in enumerate(zip(data, other, strict=False)) if one != two), 0)
    begin = max(0, min(same - SHOWN_BYTES // 2, len(data) - SHOWN_BYTES))
    return f"{data[begin : begin + SHOWN_BYTES]!r} (from byte {begin} of {len(data)})"


class StateMachineStore:
    """`quorate.services.interface.Store` over a state machine, which tells what it came to."""

    def __init__(self, create: Callable[[], StateMachine], node: NodeId, replicas: Replicas) -> None:
        self.number = 0
        """Commands applied."""
        self._machine = create()
        self._other = create()
        """The next to serve: new, or as it was when it last did."""
        self._node = node
        self._replicas = replicas
        self._renewed_at = 17 * node % RENEW_COMMANDS

    def apply(self, commands: Sequence[bytes], time_ms: int) -> list[bytes]:
        results = []
        for command in commands:
            try:
                result = self._machine.apply(command, time_ms)
            except Exception as error:
                self._replicas.failed(self._node, f"apply({_show(command)}, {time_ms})", error)
            if not isinstance(result, bytes):
                error = TypeError(f"the result is no bytes: {result!r}")
                self._replicas.failed(self._node, f"apply({_show(command)}, {time_ms})", error)
            self.number += 1
            self._replicas.applied(self.number, _Applied(self._node, command, time_ms, result))
            results.append(result)
            if self.number % RENEW_COMMANDS == self._renewed_at:
                self._renew()
        return results

    def _renew(self) -> None:
        state = self._state()
        self._machine, self._other = self._other, self._machine
        self._restore(state)
        restored = self._state()
        if restored != state:
            self._replicas.restored_otherwise(self._node, self.number, state, restored)

    def look(self) -> bytes:
        """Show the whole state; its snapshot."""
        state = self._state()
        self._replicas.is_at(self._node, self.number, state)
        return state

    def snapshot(self) -> Slices:
        """The state machine makes its bytes in one go, so they are exact whatever is applied afterwards."""
        state = self.look()
        return Slices(HEAD.pack(self.number, len(state)) + state)

    def restore(self) -> StoreLoader:
        return _Loader(self)

    def install(self, number: int, state: bytes) -> None:
        """Become what the snapshot says."""
        self._restore(state)
        self.number = number
        restored = self.look()
        if restored != state:
            self._replicas.restored_otherwise(self._node, number, state, restored)

    def _state(self) -> bytes:
        try:
            state = self._machine.snapshot()
        except Exception as error:
            self._replicas.failed(self._node, "snapshot()", error)
        if not isinstance(state, bytes):
            self._replicas.failed(self._node, "snapshot()", TypeError(f"the result is no bytes: {state!r}"))
        return state

    def _restore(self, state: bytes) -> None:
        try:
            self._machine.restore(state)
        except Exception as error:
            self._replicas.failed(self._node, f"restore({_show(state)})", error)

    def summary(self) -> dict[str, int]:
        return {"commands": self.number}


class Slices:
    """`quorate.services.interface.SnapshotSlices` of bytes that are there already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        for begin in range(0, len(self._data), SLICE_BYTES):
            yield self._data[begin : begin + SLICE_BYTES]

    def close(self) -> None:
        self._data = b""


class _Loader:
    """`quorate.services.interface.StoreLoader`."""

    def __init__(self, store: StateMachineStore) -> None:
        self._store = store
        self._data = bytearray()

    def feed(self, slice_: bytes) -> None:
        self._data += slice_

    def finish(self) -> None:
        if len(self._data) < HEAD.size:
            raise ValueError(f"a snapshot of {len(self._data)} bytes: expected at least {HEAD.size}")
        number, size = HEAD.unpack_from(self._data)
        state = bytes(self._data[HEAD.size :])
        if len(state) != size:
            raise ValueError(f"a snapshot with {len(state)} bytes of state: expected {size}")
        self._store.install(number, state)


class StateMachineUnderTest:
    """`quorate.simulation.under_test.WatchedService`; one of these belongs to one run."""

    def __init__(self, create: Callable[[], StateMachine | ReplicatedClass]) -> None:
        self.name = "statemachine"
        self._create = of_bytes(create)
        self._replicas: Replicas | None = None

    def service(self, node: NodeId, agreement: StoreAgreement) -> Service:
        replicas = self._replicas
        if replicas is None:
            replicas = self._replicas = Replicas(agreement)
        assert replicas.agreement is agreement, "this belongs to another run"
        return Service(
            self.name,
            lambda: StateMachineStore(self._create, node, replicas),
            lambda store, group, config: StateMachineDoor(group, config),
        )

    def look(self, store: object) -> None:
        assert isinstance(store, StateMachineStore)
        store.look()

    def position(self, store: object) -> int:
        assert isinstance(store, StateMachineStore)
        return store.number

    def describe(self, data: bytes, from_client: bool) -> str:
        return describe(data, from_client)
