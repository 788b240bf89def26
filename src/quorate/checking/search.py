"""The search for an order: Wing and Gong's, with Lowe's improvements, over one object's operations.

J. M. Wing, C. Gong, *Testing and Verifying Concurrent Objects* (1993); G. Lowe, *Testing for Linearizability* (2017).

An order of operations explains a history if each takes effect at one moment between its invocation and its return,
and the states that follow from one another fit what each returned.  The search goes along the returns of the
operations.  At each such *stop* the operation that returns there must have taken effect:
either it has, and the search goes on to the next stop, or some operation that runs at this moment takes effect now,
and there may be several to choose from.  (Lowe's just-in-time linearization: nothing need take effect before a
return asks for it.)  A *configuration* is the stop, what has taken effect of all that runs there, and the state; one
that has been seen is not looked at again.  A bit per running operation holds what has taken effect, and bits are
used again after a return, so that a configuration stays a few machine words in a history of any length.

**Optional operations** may be left out: those whose outcome is unknown (they run for ever), and, when a
counterexample is made smaller, those that it should not depend on.  These return, so their returns are stops, too,
and passing one without the operation is a choice as well.  Optional operations are what makes a search explode, and
four observations hold it together.  Let a *completion* of a configuration be a sequence of operations that leads from
it to the end.

1. *No effect, no choice.*  What never changes the state, such as a read, takes effect as soon as it is possible,
   without alternatives: in any completion it can be moved to the front, since it makes no difference to what lies
   between.  (Not so a write that happens to write what is there: later it may be needed.)  An optional operation
   that would leave the state as it is is not tried: without it one fewer is used.
2. *Equals stand for each other.*  Of running operations that are the same function, only the one that must return
   first is tried: in a completion that has the other one now, the two can change places.
3. *Fewer used is better.*  Of two configurations that differ only in the optional operations used, where one used a
   subset of the other's, every completion of the larger is one of the smaller.  The larger is not looked at.
4. *An optional operation must matter at once.*  If after it the next operation leads to the state that it would
   have led to without, the same can be had with one used fewer, by a configuration that is looked at as well.

Together they are sound: assume that the search ends without success, and that some configuration that was looked at
has a completion; take one with the fewest operations left.  Its first step was taken, or replaced by an equal one
(1, 2), or led to a configuration that was seen, or is worse than one seen (3), or can be had from the configuration
before the optional operation (4), which was looked at, too, and whose completion then is no longer, begins with the
same step, and cannot be refused for the same reason for ever.  In each case a configuration was looked at that has
a completion with fewer operations left, which contradicts the choice; and with none left it is a success.

Two things moreover show that a configuration leads nowhere.  Where only one operation can have produced a value,
that operation has happened, and something will observe the value that is not even invoked, the value must stay until
then.  And where all that changes the state is append, states only grow, and one that is no beginning of what is
observed later leads nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from quorate.checking.models import IMPOSSIBLE, NO_VALUE, Action, State

PROGRESS_STEPS = 1 << 16
"""So many steps lie between two calls of `progress`."""


@dataclass(slots=True)
class Candidate:
    """An operation as the search sees it: when it may take effect, in positions of the sequence of all events."""

    number: int
    """Its name to the caller."""
    action: Action
    invoked: int
    returned: int
    required: bool
    rank: int
    """Those of lower rank are tried first: a guess that costs nothing but time when it is wrong."""
    after: tuple[int, ...] = ()
    """Numbers of required candidates that take effect before it although they may run at the same time."""


@dataclass(slots=True)
class Budget:
    """Steps that may still be taken.  A step is one try of one operation on one state."""

    steps: int
    progress: Callable[[int], None] | None = None
    """Called now and then with the steps that are left."""


class Path(NamedTuple):
    """What took effect so far, the last one first, shared by the configurations that come after."""

    before: Path | None
    number: int
    length: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What a search found out."""

    ordered: bool
    """There is an order.  False: there is none, unless `exhausted`."""
    exhausted: bool
    """The budget was used up first: nothing is known."""
    stop: int | None
    """The number of the operation whose return no order has passed, among all orders tried; None where ordered."""
    path: Path | None
    """The longest order that leads to that return, or to the end."""
    state: State
    """The state after it."""

    @property
    def order(self) -> list[int]:
        numbers, path = [], self.path
        while path is not None:
            numbers.append(path.number)
            path = path.before
        return numbers[::-1]


class _Running(NamedTuple):
    """An operation that may take effect at a stop."""

    bit: int
    apply: Callable[[State], State]
    number: int
    required: bool
    reads: bool
    """It never changes the state."""
    need: int
    """Bits that must be done before it is tried: of what it comes after, and of equals that return earlier."""


class _Stop(NamedTuple):
    """The return of an operation, and what may take effect at that moment."""

    number: int
    position: int
    bit: int
    required: bool
    running: list[_Running]
    """In the order in which they are tried, the required ones first."""
    optional: int
    """The bits of those that are optional."""
    stay: int
    """The bits of those that ran at the stop before as well."""
    later: State
    """A value that something observes which is invoked after the stop, where states only grow; else NO_VALUE."""


@dataclass(slots=True)
class _Frame:
    """A configuration whose choices are being tried."""

    stop: int
    done: int
    state: State
    path: Path | None
    choices: list[tuple[_Running | None, State]]
    """What takes effect, or None where the stop's own operation is left out, and the state after it."""
    tried: int = 0


def search(
    candidates: Sequence[Candidate], initial: State, budget: Budget, held: Mapping[State, int], growing: bool
) -> Finding:
    """Look for an order of all required candidates, with any of the optional ones in between.

    `held`: states that can never come back once they are left, and the position up to which each must last.
    `growing`: all that changes the state is append.
    """
    return _Search(_Timetable(candidates, growing).stops(), initial, budget, held).run()


class _Timetable:
    """What runs at each stop, as bits that are given out again after a return."""

    def __init__(self, candidates: Sequence[Candidate], growing: bool) -> None:
        self._candidates = candidates
        self._by_number = {each.number: each for each in candidates}
        # Where the order of two is given, equals of theirs cannot change places with them.
        self._single = {number for each in candidates if each.after for number in (each.number, *each.after)}
        names: dict[Hashable, int] = {}
        self._kinds = {
            each.number: names.setdefault((each.action.identity, each.required), len(names)) for each in candidates
        }
        self._bits: dict[int, int] = {}
        """Number of a running operation -> its bit."""
        self._observers: list[Candidate] = []
        """What is required and observes a value, where states only grow; the last to be invoked comes first."""
        if growing:
            observers = (each for each in candidates if each.required and each.action.observes is not NO_VALUE)
            self._observers = sorted(observers, key=lambda each: each.invoked, reverse=True)

    def stops(self) -> list[_Stop]:
        stops = []
        bits = self._bits
        waiting = sorted(self._candidates, key=lambda each: each.invoked, reverse=True)
        free: list[int] = []
        width = 0
        last = max((each.returned for each in self._candidates if each.required), default=-1)
        # What is optional and runs longer than all that is required needs no stop.
        stopping_ones = (each for each in self._candidates if each.returned <= last)
        for stopping in sorted(stopping_ones, key=lambda each: (each.returned, each.number)):
            position = stopping.returned
            over = [number for number in bits if self._by_number[number].returned < position]
            free += [bits.pop(number) for number in over]
            stay = sum(bits.values())
            while waiting and waiting[-1].invoked < position:
                arriving = waiting.pop()
                if not free:
                    free.append(1 << width)
                    width += 1
                bits[arriving.number] = free.pop()
            stops.append(self._stop(stopping, stay))
        return stops

    def _stop(self, stopping: Candidate, stay: int) -> _Stop:
        bits, by_number = self._bits, self._by_number
        running: list[tuple[Candidate, _Running]] = []
        optional = 0
        equals: dict[int, int] = {}
        """Kind -> bits of those that return earlier."""
        for each in sorted(map(by_number.__getitem__, bits), key=lambda each: (each.returned, each.number)):
            bit = bits[each.number]
            if not each.required:
                optional |= bit
            need = 0
            if each.number not in self._single:
                kind = self._kinds[each.number]
                need = equals.get(kind, 0)
                equals[kind] = need | bit
            first = [by_number[number] for number in each.after]
            if all(other.number in bits or other.returned < stopping.returned for other in first):
                need |= sum(bits.get(other.number, 0) for other in first)
                reads = not each.action.changes
                running.append((each, _Running(bit, each.action.apply, each.number, each.required, reads, need)))
        running.sort(key=lambda pair: (not pair[0].required, pair[0].rank))
        runs = [run for _, run in running]
        while self._observers and self._observers[-1].invoked < stopping.returned:
            self._observers.pop()
        later = self._observers[-1].action.observes if self._observers else NO_VALUE
        bit = bits[stopping.number]
        return _Stop(stopping.number, stopping.returned, bit, stopping.required, runs, optional, stay, later)


class _Search:
    """One search; `run` once."""

    def __init__(self, stops: list[_Stop], initial: State, budget: Budget, held: Mapping[State, int]) -> None:
        self._stops = stops
        self._held = held
        self._budget = budget
        self._seen: dict[tuple[int, int, State], tuple[int, ...]] = {}
        """Stop, required ones done, state -> the smallest sets of optional ones used with these."""
        self._frames: list[_Frame] = []
        self._furthest = _Frame(-1, 0, initial, None, [])

    def run(self) -> Finding:
        budget = self._budget
        report = budget.steps - PROGRESS_STEPS
        start = self._furthest
        ordered = self._enter(0, 0, start.state, None, IMPOSSIBLE)
        while self._frames and not ordered and budget.steps > 0:
            if budget.steps <= report and budget.progress is not None:
                budget.progress(budget.steps)
                report = budget.steps - PROGRESS_STEPS
            frame = self._frames[-1]
            if frame.tried == len(frame.choices):
                self._frames.pop()
                continue
            operation, state = frame.choices[frame.tried]
            frame.tried += 1
            if operation is None:
                ordered = self._pass(frame)
                continue
            path = Path(frame.path, operation.number, frame.path.length + 1 if frame.path else 1)
            without = IMPOSSIBLE if operation.required else frame.state
            ordered = self._enter(frame.stop, frame.done | operation.bit, state, path, without)
        furthest = self._furthest
        exhausted = not ordered and bool(self._frames)
        stop = None if ordered or furthest.stop < 0 else self._stops[furthest.stop].number
        return Finding(ordered, exhausted, stop, furthest.path, furthest.state)

    def _enter(self, stop: int, done: int, state: State, path: Path | None, without: State) -> bool:
        """Go to a configuration, and on to the stop that holds it up; True at the end of all stops.

        `without` is the state without the optional operation that led here, or IMPOSSIBLE where there was none.
        """
        stops = self._stops
        while True:
            while stop < len(stops) and done & stops[stop].bit:
                stop += 1
                if stop < len(stops):
                    done &= stops[stop].stay
            if stop == len(stops):
                self._furthest = _Frame(stop, done, state, path, [])
                return True
            choices: list[tuple[_Running | None, State]] = []
            absorbed = False
            running = stops[stop].running
            later = stops[stop].later
            holds = self._held.get(state, 0) > stops[stop].position
            self._budget.steps -= len(running)
            for operation in running:
                bit, apply, number, required, reads, need = operation
                if done & bit or done & need != need:
                    continue
                after = apply(state)
                if after is IMPOSSIBLE:
                    continue
                if reads:
                    done |= bit
                    path = Path(path, number, path.length + 1 if path else 1)
                    absorbed = True
                elif (
                    not holds
                    and (required or after != state)
                    and (later is NO_VALUE or _may_grow_to(after, later))
                    and (without is IMPOSSIBLE or apply(without) != after)
                ):
                    choices.append((operation, after))
            if not absorbed:
                break
            # What was absorbed may have been what others had to wait for, or what the stop waits for, or what the
            # optional operation was good for.
            without = IMPOSSIBLE
        if not stops[stop].required:
            choices.append((None, state))
        self._remember(_Frame(stop, done, state, path, choices))
        return False

    def _pass(self, frame: _Frame) -> bool:
        """Go on to the next stop without the operation of this one, as if it were done."""
        return self._enter(frame.stop, frame.done | self._stops[frame.stop].bit, frame.state, frame.path, IMPOSSIBLE)

    def _remember(self, frame: _Frame) -> None:
        """Try the configuration's choices next, unless it was seen before."""
        optional = self._stops[frame.stop].optional
        key = (frame.stop, frame.done & ~optional, frame.state)
        used = frame.done & optional
        seen = self._seen.get(key, ())
        if any(other & used == other for other in seen):
            return
        self._seen[key] = (*(other for other in seen if used & other != used), used)
        self._frames.append(frame)
        furthest = self._furthest
        length = frame.path.length if frame.path else 0
        if frame.stop > furthest.stop or (
            frame.stop == furthest.stop and length > (furthest.path.length if furthest.path else 0)
        ):
            self._furthest = frame


def _may_grow_to(state: State, later: State) -> bool:
    return state is None or (isinstance(state, str) and isinstance(later, str) and later.startswith(state))
