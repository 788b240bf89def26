"""Is a history linearizable: could its operations have happened one at a time, each while it ran?

M. Herlihy, J. Wing, *Linearizability: A Correctness Condition for Concurrent Objects* (1990).  Linearizability is
local: a history is linearizable if what was done to each object is, so each key is checked apart.  The search for an
order is in search.py; here is what is known before it begins, and what is told after it.

**Before the search** what was observed narrows down when things happened.  Where only one operation can have produced
a value that a known operation observed, it happened, and before that operation returned; and that operation took
effect after it was invoked.  So a write whose outcome is unknown but whose value was read becomes a known one, and no
longer multiplies the possibilities.  This holds only while values do not grow out of others (append), and it is not
applied to null, which is there from the start.  In a queue, moreover, what was dequeued earlier was enqueued earlier.

**After the search** a counterexample is made small.  Leaving out operations would be unsound: without the write, a
read of its value is wrong for a reason that the history does not have.  So an operation is not left out but made
optional, free to happen while it ran or not to happen at all, and what remains is still impossible *whatever the
others did*.  What is shown besides is what produced the values that the rest observed, so that a person sees where
they come from.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from quorate.checking.history import HistoryError, Operation
from quorate.checking.models import LOCK, NO_VALUE, Action, Model, State
from quorate.checking.search import Budget, Candidate, Finding, search

DEFAULT_MAX_STEPS = 20_000_000
"""5 to 26 seconds, and up to a GB of memory."""
SHRINK_STEPS = 1_000_000
"""What making a counterexample smaller may cost at most: it only makes the report shorter."""


class Verdict(enum.Enum):
    """UNDECIDED means that the steps ran out.  It is no kind of VALID."""

    VALID = "valid"
    INVALID = "invalid"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a check found out."""

    verdict: Verdict
    operations: int
    """How many there were."""
    keys: int
    """On how many keys."""
    steps: int
    """How many tries of one operation on one state it took."""
    key: str | None = None
    """The key that is invalid, or the first that is undecided."""
    counterexample: tuple[Operation, ...] = ()
    """A small part that cannot be ordered, by time of invocation."""
    order: tuple[Operation, ...] = ()
    """A longest order of operations of the counterexample."""
    state: str = ""
    """What there is after that order, in words."""
    stuck: tuple[Operation, ...] = ()
    """What runs then and cannot follow."""


def check(
    operations: Iterable[Operation],
    model: Model,
    max_steps: int = DEFAULT_MAX_STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> Answer:
    """Whether the operations could have happened one at a time.

    `max_steps` bounds the work, and with it memory (about 100 bytes a step at worst); the same operations take the
    same steps anywhere.  Every key has its share.  `progress` is called now and then with the number of operations
    on keys that are done and the steps taken.  Raises HistoryError where the model cannot make sense of an operation.
    """
    everything = list(operations)
    _verify_processes(everything)
    parts: defaultdict[str | None, list[Operation]] = defaultdict(list)
    for operation in everything:
        parts[operation.key].append(operation)
    prepared = [(key, _Part(part, model)) for key, part in parts.items()]
    steps = done = 0
    undecided: list[str | None] = []
    for number, (key, part) in enumerate(prepared):
        share = (max_steps - steps) // (len(prepared) - number)

        def report(left: int, share: int = share, steps: int = steps, done: int = done) -> None:
            if progress is not None:
                progress(done, steps + share - left)

        budget = Budget(share, report)
        _, finding = part.search(part.known, part.distinct_unknown(), budget)
        steps += share - budget.steps
        done += len(part.operations)
        if finding.exhausted:
            undecided.append(key)
        elif not finding.ordered:
            return _invalid(
                part, _Shrinking(part).run(), Answer(Verdict.INVALID, len(everything), len(parts), steps, key)
            )
    verdict = Verdict.UNDECIDED if undecided else Verdict.VALID
    return Answer(verdict, len(everything), len(parts), steps, undecided[0] if undecided else None)


def _verify_processes(operations: Sequence[Operation]) -> None:
    """A process does one thing after the other; else its operations' times are not what they are taken for."""
    last: dict[int | str, Operation] = {}
    for operation in sorted(operations, key=lambda each: each.invoked_at):
        if operation.returned_at is not None and operation.returned_at < operation.invoked_at:
            raise HistoryError(operation.line, f"{operation.f} returned before it was invoked")
        before = last.get(operation.process)
        if before is not None and (before.returned_at is None or before.returned_at > operation.invoked_at):
            raise HistoryError(
                operation.line,
                f"process {operation.process!r} invokes {operation.f} while its {before.f} of line {before.line} "
                "may still run",
            )
        last[operation.process] = operation


class _Part:
    """What was done to one object."""

    def __init__(self, operations: list[Operation], model: Model) -> None:
        self.model = model
        self.operations = operations
        self.actions = [model.action(operation) for operation in operations]
        self.known = [number for number, each in enumerate(operations) if each.returned_at is not None]
        # What changes nothing need not happen.
        self.unknown = {
            number: self.actions[number]
            for number, each in enumerate(operations)
            if each.returned_at is None and self.actions[number].changes
        }
        self.composes = any(action.composes for action in self.actions)
        self.never = 2 * len(operations)
        """A position after all events."""
        self.invoked = [0] * len(operations)
        self.returned = [self.never] * len(operations)
        self._after: dict[int, int] = {}
        """Operation -> the one that the same process did before it, at the same time."""
        # At equal times invocations come first: nothing is said to be before something else without need.
        events = [(each.invoked_at, 0, number) for number, each in enumerate(operations)]
        events += [
            (each.returned_at, 1, number) for number, each in enumerate(operations) if each.returned_at is not None
        ]
        for position, (_, returns, number) in enumerate(sorted(events)):
            (self.returned if returns else self.invoked)[number] = position
        last: dict[int | str, int] = {}
        for number in sorted(range(len(operations)), key=lambda number: operations[number].invoked_at):
            before = last.get(operations[number].process)
            if before is not None and operations[before].returned_at == operations[number].invoked_at:
                self._after[number] = before
            last[operations[number].process] = number

    def distinct_unknown(self) -> dict[int, Action]:
        """The operations whose outcome is unknown, as few and as alike as changes nothing.

        A write of a value that no operation is able to tell from others only takes away what was there.  Where nothing
        tells what a value was not, either, whatever is possible with it is possible without: what comes between it
        and the next write then did not look.  Else all such writes are the same.
        """
        if self.composes or self.model.fifo or self.model is LOCK:
            return self.unknown
        compared = {action.compares for action in self.actions}
        excludes = any(action.excludes for action in self.actions)
        unknown = {}
        for number, action in self.unknown.items():
            if action.produces is None or action.produces in compared:
                unknown[number] = action
            elif excludes:
                unknown[number] = _producing(_OTHER) if action.compares is NO_VALUE else action
        return unknown

    def search(
        self, required: Iterable[int], optional: Mapping[int, Action], budget: Budget, *, foresight: bool = True
    ) -> tuple[list[Candidate], Finding]:
        """Look for an order of what is `required` (known outcomes only), and may be of what is `optional`.

        Without `foresight`, an order ends only where a person sees why, and not where something later forbids it.
        """
        chosen = {number: self._candidate(number, self.actions[number], True) for number in required}
        chosen |= {number: self._candidate(number, action, False) for number, action in optional.items()}
        for number, before in self._after.items():
            if number in chosen and before in chosen and chosen[before].required:
                chosen[number].after = (before,)
        candidates = list(chosen.values())
        held: dict[State, int] = {}
        growing = foresight and all(each.action.composes for each in candidates if each.action.changes)
        if foresight and not self.composes:
            producers = _narrow(candidates)
            if self.model.fifo:
                _first_in_first_out(candidates, producers, self.never)
            else:
                for each in candidates:
                    value = each.action.observes
                    if each.required and value in producers:
                        held[value] = max(each.invoked, held.get(value, 0))
        return candidates, search(candidates, self.model.initial, budget, held, growing)

    def _candidate(self, number: int, action: Action, required: bool) -> Candidate:
        returned = self.returned[number]
        return Candidate(number, action, self.invoked[number], returned, required, returned)


_OTHER = ("some other value",)
"""A state that equals no frozen value."""


def _producing(value: State) -> Action:
    return Action(lambda _: value, ("producing", value), value)


def _narrow(candidates: Collection[Candidate]) -> dict[State, Candidate]:
    """Narrow down when candidates can have happened, by what was observed; value -> its single producer."""
    count = Counter(each.action.produces for each in candidates)
    single = {
        each.action.produces: each
        for each in candidates
        if each.action.produces not in (NO_VALUE, None) and count[each.action.produces] == 1
    }
    for observer in candidates:
        producer = single.get(observer.action.observes) if observer.required else None
        # A value that was observed before it was produced: the search will find that out.
        if producer is not None and producer is not observer and producer.invoked <= observer.returned:
            producer.required = True
            producer.returned = min(producer.returned, observer.returned)
            observer.invoked = max(observer.invoked, producer.invoked)
    return single


def _first_in_first_out(candidates: Collection[Candidate], producers: dict[State, Candidate], never: int) -> None:
    """Order enqueues by the dequeues of their values, where these do not run at the same time.

    Without this, the order of two enqueues is guessed, and found to be wrong only when the values are dequeued, long
    after, with all that was guessed in between.
    """
    dequeues: dict[State, list[Candidate]] = {}
    for each in candidates:
        if each.action.observes not in (NO_VALUE, None):
            dequeues.setdefault(each.action.observes, []).append(each)
    # A dequeue with an unknown outcome may have taken anything.
    anything = any(each.action.produces is each.action.observes is NO_VALUE for each in candidates)
    active: list[tuple[Candidate, Candidate | None]] = []
    for value, enqueue in sorted(producers.items(), key=lambda item: item[1].invoked):
        taken = dequeues.get(value, [])
        if len(taken) > 1 or (taken and not taken[0].required) or (anything and not taken):
            continue
        dequeue = taken[0] if taken else None
        enqueue.rank = dequeue.returned if dequeue else never
        active = [pair for pair in active if pair[0].returned > enqueue.invoked]
        for other, other_dequeue in active:
            if other_dequeue and other_dequeue.returned < (dequeue.invoked if dequeue else never):
                enqueue.after += (other.number,)
            elif dequeue and dequeue.returned < (other_dequeue.invoked if other_dequeue else never):
                other.after += (enqueue.number,)
        active.append((enqueue, dequeue))


class _Shrinking:
    """Makes as many operations of an impossible part optional as leave it impossible."""

    def __init__(self, part: _Part) -> None:
        self._part = part
        self._budget = Budget(SHRINK_STEPS)
        self._before: list[int] = []
        """What may take effect up to the return that no order gets past."""

    def run(self) -> list[int]:
        """The numbers of the operations that are enough."""
        part = self._part
        by_return = sorted(part.known, key=lambda number: part.returned[number])
        # The shortest beginning, by time of return, that is impossible.
        low, high = 0, len(by_return)
        while low < high:
            middle = (low + high) // 2
            self._until(by_return[middle])
            if self._impossible(by_return[: middle + 1]):
                high = middle
            else:
                low = middle + 1
        if high == len(by_return):
            return part.known
        self._until(by_return[high])
        enough = sorted(by_return[: high + 1])
        last = {by_return[high]}
        for dispensable in (
            {number for number in enough if part.actions[number].excludes},
            {number for number in enough if not part.actions[number].changes},
        ):
            enough = self._without(enough, dispensable - last)
        if part.model.fifo:
            # Without the whole of an item the rest is still a history of a queue.
            items: dict[State, set[int]] = {}
            for number in enough:
                action = part.actions[number]
                value = action.observes if action.produces is NO_VALUE else action.produces
                items.setdefault(value, set()).add(number)
            enough = self._reduce(enough, list(items.values()))
        # What composed an observed value is shown in any case.
        return self._reduce(
            enough, [{number} for number in enough if not (part.composes and part.actions[number].changes)]
        )

    def _reduce(self, enough: list[int], units: list[set[int]]) -> list[int]:
        """Do without as many of the units as can be, many at a time at first."""
        size = (len(units) + 1) // 2
        while size:
            start = 0
            while start < len(units):
                fewer = self._without(enough, set().union(*units[start : start + size]))
                if len(fewer) == len(enough):
                    start += size
                else:
                    del units[start : start + size]
                enough = fewer
            size = min(size, len(units)) // 2
        return enough

    def _until(self, last: int) -> None:
        invoked, returned = self._part.invoked, self._part.returned
        self._before = [number for number, position in enumerate(invoked) if position < returned[last]]

    def _without(self, enough: list[int], dispensable: set[int]) -> list[int]:
        fewer = [number for number in enough if number not in dispensable]
        return fewer if len(fewer) < len(enough) and self._impossible(fewer) else enough

    def _impossible(self, required: list[int]) -> bool:
        """False where the steps ran out, too."""
        # No single try may use up what all have.
        budget = Budget(min(self._budget.steps, SHRINK_STEPS // 50))
        allowed = budget.steps
        candidates, finding = self._part.search(required, self._optional(required), budget)
        self._budget.steps -= allowed - budget.steps + len(candidates)
        return not finding.ordered and not finding.exhausted

    def _optional(self, required: list[int]) -> dict[int, Action]:
        """What else may happen, each as free as makes the search short.

        A value that `required` does not know matters at most by being none of those that it knows; so where values
        are not composed of others, all such values are made one, or left out where nobody tells what a value was
        not.  And an operation that needs a value to produce another (cas) is allowed to do so without.
        All this allows more orders than there are, never fewer, so what is impossible remains so.
        """
        part = self._part
        kept = set(required)
        others = {
            number: part.actions[number]
            for number in self._before
            if number not in kept and part.actions[number].changes
        }
        actions = [part.actions[number] for number in required]
        values = {value for action in actions for value in (action.produces, action.observes)} - {NO_VALUE}
        if part.composes or part.model is LOCK:
            return others
        if part.model.fifo:
            # An item that nobody in `required` put in or took out may as well not have been in the queue.
            return {
                number: action
                for number, action in others.items()
                if action.produces in values or action.observes in values or number in part.unknown
            }
        excludes = any(action.excludes for action in actions)
        return {
            number: _producing(action.produces if action.produces in values else _OTHER)
            for number, action in others.items()
            if excludes or action.produces in values
        }


def _invalid(part: _Part, enough: list[int], answer: Answer) -> Answer:
    """Fill in the counterexample, and how far an order of it gets."""
    shown = sorted({*enough, *_origins(part, enough)}, key=lambda number: part.invoked[number])
    unknown = {number: part.actions[number] for number in shown if number in part.unknown}
    known = [number for number in shown if number not in unknown]
    candidates, finding = part.search(known, unknown, Budget(SHRINK_STEPS), foresight=False)
    return Answer(
        verdict=answer.verdict,
        operations=answer.operations,
        keys=answer.keys,
        steps=answer.steps,
        key=answer.key,
        counterexample=tuple(part.operations[number] for number in shown),
        order=tuple(part.operations[number] for number in finding.order),
        state=part.model.show(finding.state),
        stuck=tuple(part.operations[number] for number in _stuck(candidates, finding)),
    )


def _origins(part: _Part, enough: list[int]) -> list[int]:
    """For each value that `enough` observes, the last operation that can have produced it; of appends, all."""
    origins = []
    for observer in enough:
        observed = part.actions[observer].observes
        if observed in (NO_VALUE, None):
            continue
        possible = [
            number
            for number, action in enumerate(part.actions)
            if number != observer and _may_produce(action, observed) and part.invoked[number] < part.returned[observer]
        ]
        if part.composes:
            origins += possible
        elif possible and not set(possible) & set(enough):
            origins.append(max(possible, key=lambda number: part.invoked[number]))
    return origins


def _may_produce(action: Action, observed: State) -> bool:
    if action.composes and isinstance(observed, str) and isinstance(action.produces, str):
        return action.produces in observed
    return action.produces == observed


def _stuck(candidates: Sequence[Candidate], finding: Finding) -> list[int]:
    """What runs where the order ends, and has not happened in it."""
    stop = next((each.returned for each in candidates if each.number == finding.stop), -1)
    ordered = set(finding.order)
    return [each.number for each in candidates if each.required and each.invoked < stop and each.number not in ordered]
