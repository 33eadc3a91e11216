"""Decides whether a history is linearizable, by placing operations just in time.

Theory of operation. The history is walked through event by event. A *configuration* is one way in which everything
could have gone so far: the object's state, and which of the open operations (called, not returned) have taken effect
already. A call adds an operation to the open ones and nothing else. When an operation returns, it must have taken
effect: configurations in which it had are kept, from the others every way is tried to place open operations until it
has. If no configuration is left, no order explains the history; everything before that return has one. So what is
reported is the longest prefix of the history that is linearizable, with the orders that were possible up to there.

That is Wing and Gong's search with Lowe's just-in-time linearization (Testing for linearizability, 2017). What keeps
it small: configurations that agree are one; an operation that only observes is placed as soon as it fits, which never
harms; operations without an answer that ask for the same thing are counted rather than told apart, and of two
configurations that differ only in them, the one that has used fewer is kept, for it can do all that the other can.

An order is usually found among few configurations, those that place no more than they must. So the search goes in
rounds: the first ones drop all but a number of configurations at each return, and whoever gets to the end has found an
order. Only a round in which nothing was dropped can tell that there is none; the last drops nothing.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from jepsen.checker.history import Operation
from jepsen.checker.models import ILLEGAL, Model

LIMIT: Final = 3_000_000  # configurations tried for one history, before it is given up as undecided
_WIDTHS: Final = (50, 1000, LIMIT)  # configurations kept at a return, in each round
_COUNT_BITS: Final = 16  # of one kind of unanswered operations in `used`; the highest stays free for comparing


class Verdict(Enum):
    """What became of a check."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNDECIDED = "undecided"


class Result(msgspec.Struct, frozen=True):
    """What a check found.

    `order`: one order that explains the history, or its longest explicable prefix. `culprit`: the operation whose
    return nothing explains. `states`: the states in which the object could have been just before that; they are cut
    off at a few. `configurations`: how much was tried.
    """

    verdict: Verdict
    history: tuple[Operation, ...]
    order: tuple[Operation, ...] = ()
    culprit: Operation | None = None
    states: tuple[Any, ...] = ()
    configurations: int = 0
    key: str = ""

    def __str__(self) -> str:
        where = f" (key {self.key})" if self.key else ""
        if self.verdict is not Verdict.NOT_LINEARIZABLE or self.culprit is None:
            return f"{self.verdict.value}{where}: {len(self.history)} operations"
        return (
            f"not linearizable{where}: of {len(self.history)} operations, nothing explains {self.culprit} of process "
            f"{self.culprit.process}, which ran from {self.culprit.called} to {self.culprit.returned}; before it the "
            f"state could only have been {' or '.join(map(repr, self.states))}"
        )


class _Placed(NamedTuple):
    """The operations that a configuration has placed, last first: configurations share their beginnings."""

    operation: Operation
    before: "_Placed | None"


# State, bits of the open operations that are placed, counts of the unanswered ones that are placed.
_Key = tuple[Hashable, int, int]


class _TooMany(Exception):
    """The limit was reached."""


class _Search:
    def __init__(self, model: Model, width: int, limit: int) -> None:
        self._model = model
        self._width = width
        self._limit = limit
        self.tried = 0
        self.dropped = False
        self.configurations: dict[_Key, _Placed | None] = {(model.initial, 0, 0): None}
        self._open: dict[int, Operation] = {}  # by bit
        self._bits: list[int] = []  # that are free again
        self._observers: dict[int, Operation] = {}
        self._kinds: dict[Hashable, int] = {}
        self._examples: list[Operation] = []  # one unanswered operation of each kind
        self._available: list[int] = []
        self._guard = 0

    def call(self, operation: Operation) -> int:
        """Open an operation; returns its bit, 0 if it will have no answer."""
        observes = self._model.observes(operation)
        if not operation.known:
            if not observes:
                self._count(operation)
            return 0
        bit = self._bits.pop() if self._bits else 1 << len(self._open)
        self._open[bit] = operation
        if observes:
            self._observers[bit] = operation
            old, self.configurations = self.configurations, {}
            for (state, bits, used), placed in old.items():
                if self._model.step(state, operation) is not ILLEGAL:
                    self.configurations[state, bits | bit, used] = _Placed(operation, placed)
                else:
                    self.configurations[state, bits, used] = placed
        return bit

    def _count(self, operation: Operation) -> None:
        kind = (operation.name, operation.value)
        number = self._kinds.setdefault(kind, len(self._kinds))
        if number == len(self._examples):
            self._examples.append(operation)
            self._available.append(0)
            self._guard |= 1 << (_COUNT_BITS * (number + 1) - 1)
        self._available[number] += 1

    def return_(self, bit: int) -> bool:
        """The operation of a bit returns. False if nothing explains it; then everything stays as it was."""
        found: dict[_Key, _Placed | None] = {}
        without: dict[_Key, _Placed | None] = {}
        for (state, bits, used), placed in self.configurations.items():
            if bits & bit:
                found.setdefault((state, bits ^ bit, used), placed)
            else:
                without[state, bits, used] = placed
        self._place(without, bit, found)
        if not found:
            return False
        self.configurations = self._fewest(found)
        del self._open[bit]
        self._observers.pop(bit, None)
        self._bits.append(bit)
        return True

    def _place(self, without: dict[_Key, _Placed | None], bit: int, found: dict[_Key, _Placed | None]) -> None:
        """Find ways to configurations in which an operation has taken effect and nothing after it, short ones first."""
        model = self._model
        target = self._open[bit]
        queue = deque(without.items())
        seen = set(without)
        while queue:
            if len(found) >= self._width:
                self.dropped = True
                return
            key, placed = queue.popleft()
            self.tried += 1
            if self.tried > self._limit:
                raise _TooMany
            state, bits, used = key
            after = model.step(state, target)
            if after is not ILLEGAL:
                done, bits_after, placed_after = self._observe(after, bits | bit, _Placed(target, placed))
                found.setdefault((done, bits_after ^ bit, used), placed_after)
            for operation, more_bits, more_used in self._candidates(state, bits, used, bit, target):
                after = model.step(state, operation)
                if after is ILLEGAL or (more_used and after == state):
                    continue
                done, bits_after, placed_after = self._observe(after, bits | more_bits, _Placed(operation, placed))
                if bits_after & bit:
                    found.setdefault((done, bits_after ^ bit, used + more_used), placed_after)
                    continue
                key = (done, bits_after, used + more_used)
                if key not in seen:
                    seen.add(key)
                    queue.append((key, placed_after))

    def _candidates(
        self, state: Hashable, bits: int, used: int, bit: int, target: Operation
    ) -> Iterable[tuple[Operation, int, int]]:
        """Operations that may be placed before the target: each with its bit, or with its count if it is unanswered."""
        costs = {id(one): (b, 0) for b, one in self._open.items() if b != bit and not bits & b}
        candidates = [one for b, one in self._open.items() if b != bit and not bits & b]
        for number, example in enumerate(self._examples):
            shift = _COUNT_BITS * number
            if (used >> shift) % (1 << _COUNT_BITS) < self._available[number]:
                candidates.append(example)
                costs[id(example)] = (0, 1 << shift)
        return [(one, *costs[id(one)]) for one in self._model.toward(state, target, candidates)]

    def _observe(self, state: Hashable, bits: int, placed: _Placed | None) -> tuple[Hashable, int, _Placed | None]:
        """Place every open operation that only observes and fits now."""
        for bit, operation in self._observers.items():
            if not bits & bit and self._model.step(state, operation) is not ILLEGAL:
                bits |= bit
                placed = _Placed(operation, placed)
        return state, bits, placed

    def _fewest(self, found: dict[_Key, _Placed | None]) -> dict[_Key, _Placed | None]:
        """Without the configurations that have used more unanswered operations than another needed."""
        if not self._examples or len(found) == 1:
            return found
        groups: dict[tuple[Hashable, int], list[int]] = {}
        for state, bits, used in found:
            groups.setdefault((state, bits), []).append(used)
        guard = self._guard
        kept: dict[_Key, _Placed | None] = {}
        for (state, bits), counts in groups.items():
            minimal: list[int] = []
            for used in sorted(counts, key=int.bit_count) if len(counts) > 1 else counts:
                if any(((used | guard) - less) & guard == guard for less in minimal):
                    continue
                minimal = [more for more in minimal if ((more | guard) - used) & guard != guard]
                minimal.append(used)
            for used in minimal:
                kept[state, bits, used] = found[state, bits, used]
        return kept


def check(history: Iterable[Operation], model: Model, *, limit: int = LIMIT) -> Result:
    """Check the history of one object. `UNDECIDED` if more than `limit` configurations would have to be tried.

    Raises `ValueError` for an operation that the model does not know.
    """
    operations = tuple(sorted(history, key=lambda one: one.called))
    events = [(one.called, 0, number) for number, one in enumerate(operations)]
    events += [(one.returned, 1, number) for number, one in enumerate(operations) if one.known]
    events.sort()
    tried = 0
    for width in _WIDTHS:
        search = _Search(model, width, limit - tried)
        try:
            culprit = _walk(search, operations, events)
        except _TooMany:
            return Result(Verdict.UNDECIDED, operations, _order(search), configurations=limit)
        tried += search.tried
        if culprit is None or not search.dropped:
            break
    if culprit is None:
        return Result(Verdict.LINEARIZABLE, operations, _order(search), configurations=tried)
    states = tuple(dict.fromkeys(state for state, _, _ in search.configurations))[:5]
    return Result(Verdict.NOT_LINEARIZABLE, operations, _order(search), culprit, states, tried)


def _walk(search: _Search, operations: tuple[Operation, ...], events: list[tuple[int, int, int]]) -> Operation | None:
    """Go through a history. Returns the operation whose return could not be explained; None if all could."""
    bits: dict[int, int] = {}
    for _, returns, number in events:
        if not returns:
            bits[number] = search.call(operations[number])
        elif not search.return_(bits.pop(number)):
            return operations[number]
    return None


def check_by_key(history: Iterable[Operation], model: Model, *, limit: int = LIMIT) -> list[Result]:
    """Check a history whose keys are objects of their own; a result a key, in the order of keys."""
    by_key: dict[str, list[Operation]] = {}
    for operation in history:
        by_key.setdefault(operation.key, []).append(operation)
    return [msgspec.structs.replace(check(by_key[key], model, limit=limit), key=key) for key in sorted(by_key)]


def _order(search: _Search) -> tuple[Operation, ...]:
    """The longest order that the surviving configurations hold."""
    orders: list[list[Operation]] = []
    for placed in list(search.configurations.values())[:100]:
        order: list[Operation] = []
        while placed is not None:
            order.append(placed.operation)
            placed = placed.before
        orders.append(order[::-1])
    longest: list[Operation] = max(orders, key=len, default=[])
    return tuple(longest)
