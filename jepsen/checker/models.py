"""What single objects may answer: the sequential meaning of operations, one class an object.

A model is pure and its states are hashable. `step` gives the state after an operation, or `ILLEGAL` if the object
could not have answered so. An operation without an answer fits always: its step is what happens if it takes effect.

Two hints make the search short; neither may change what it finds:

- `observes`: whatever the state, the operation leaves it as it is. Then it may be placed as soon as it fits.
- `toward`: which of the open operations are worth placing before `target`. Placing another must be as good later.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Final, Protocol

import msgspec

from jepsen.checker.history import Operation


class _Illegal:
    def __repr__(self) -> str:
        return "ILLEGAL"


ILLEGAL: Final = _Illegal()


class Model(Protocol):
    """An object that operations are done to, one at a time."""

    @property
    def initial(self) -> Hashable:
        """The state before everything."""
        ...

    def step(self, state: Any, operation: Operation) -> Any:
        """The state after an operation, or `ILLEGAL`. Raises `ValueError` for an operation that it does not know."""
        ...

    def observes(self, operation: Operation) -> bool:
        """Whether the operation never changes any state."""
        ...

    def toward(self, state: Any, target: Operation, open_operations: Sequence[Operation]) -> Sequence[Operation]:
        """Those of the open operations that may have to come before `target`; the target is not among them."""
        ...


def _unknown_name(model: str, operation: Operation) -> ValueError:
    return ValueError(f"{model} has no operation {operation.name!r}")


class Register:
    """One value, None where there is none.

    `read` → value; `write(value)` → True; `cas((expected, new))` → whether it matched; `delete` → True.
    """

    initial: Hashable = None

    def step(self, state: Any, operation: Operation) -> Any:
        known = operation.known
        match operation.name:
            case "read":
                return state if not known or operation.result == state else ILLEGAL
            case "write":
                return operation.value
            case "delete":
                return None
            case "cas":
                expected, new = operation.value
                matches = state == expected
                if known and operation.result != matches:
                    return ILLEGAL
                return new if matches else state
        raise _unknown_name("a register", operation)

    def observes(self, operation: Operation) -> bool:
        return operation.name == "read" or (operation.name == "cas" and operation.result is False)

    def toward(self, state: Any, target: Operation, open_operations: Sequence[Operation]) -> Sequence[Operation]:
        return open_operations


class Set:
    """A set of whole numbers from 0 on that only grows. `add(number)` → True; `read` → the tuple of all numbers.

    A state is an integer with a bit a number. Since adding commutes, all that matters is which reads saw what: before
    a read come the numbers that it saw, before an addition only what an open read saw without seeing that addition.
    """

    initial: Hashable = 0

    def __init__(self) -> None:
        self._seen: dict[tuple[int, ...], int] = {}

    def step(self, state: Any, operation: Operation) -> Any:
        match operation.name:
            case "add":
                return state | 1 << operation.value
            case "read":
                return state if not operation.known or self._bits(operation) == state else ILLEGAL
        raise _unknown_name("a set", operation)

    def observes(self, operation: Operation) -> bool:
        return operation.name == "read"

    def toward(self, state: Any, target: Operation, open_operations: Sequence[Operation]) -> Sequence[Operation]:
        reads = [self._bits(one) for one in open_operations if one.name == "read"]
        adds = [one for one in open_operations if one.name == "add"]
        if target.name == "add":
            bit = 1 << target.value
            before = 0
            for seen in reads:
                if not seen & bit and not state & ~seen:
                    before |= seen
            return [one for one in adds if before >> one.value & 1 and not state >> one.value & 1]
        goal = self._bits(target)
        if state & ~goal:
            return ()
        needed = [one for one in adds if goal >> one.value & 1 and not state >> one.value & 1]
        on_the_way = any(not state & ~seen and not seen & ~goal and seen not in (state, goal) for seen in reads)
        return needed if on_the_way else needed[:1]

    def _bits(self, read: Operation) -> int:
        numbers = read.result
        bits = self._seen.get(numbers)
        if bits is None:
            bits = 0
            for number in numbers:
                bits |= 1 << number
            self._seen[numbers] = bits
        return bits


class Lock:
    """A lock with a named holder, who may acquire it again.

    `acquire(who)` → whether `who` now holds it; `release(who)` → whether `who` had held it; `holder` → who or None.
    """

    initial: Hashable = None

    def step(self, state: Any, operation: Operation) -> Any:
        who, result, known = operation.value, operation.result, operation.known
        match operation.name:
            case "acquire":
                free = state is None or state == who
                if known and result != free:
                    return ILLEGAL
                return who if free else state
            case "release":
                held = state == who
                if known and result != held:
                    return ILLEGAL
                return None if held else state
            case "holder":
                return state if not known or result == state else ILLEGAL
        raise _unknown_name("a lock", operation)

    def observes(self, operation: Operation) -> bool:
        return operation.name == "holder" or operation.result is False

    def toward(self, state: Any, target: Operation, open_operations: Sequence[Operation]) -> Sequence[Operation]:
        return open_operations


class Fenced(msgspec.Struct, frozen=True, array_like=True):
    """The state of a `FencedLock`. `index` of this version is `low` or more; it is `low` itself if `exact`."""

    holder: str | None = None
    locks: int = 0
    value: Any = None
    low: int = 0
    exact: bool = True


class FencedLock:
    """A key that sessions lock, whose versions have indexes that fence late writers off.

    Every change gives the key an index higher than all before; which one, only a read tells. A new holder raises the
    count of locks by one. A holder that was cut off for a while may write only under the index that it saw last.

    - `acquire((session, value))` → whether the session holds the key now; then it has the value.
    - `release((session, value))` → whether the session had held it; then it has the value, and no holder.
    - `end(session)` → True: the session ends, and with it its hold. An expiry is an `end` without an answer.
    - `write((index, value))` → whether the key still had that index; 0 means that it did not exist. The holder stays,
      and the locks are counted anew, as Consul does.
    - `read` → (holder, locks, value, index), or None where the key does not exist.
    """

    initial: Hashable = Fenced()

    def step(self, state: Any, operation: Operation) -> Any:
        assert isinstance(state, Fenced)
        result, known = operation.result, operation.known
        match operation.name:
            case "acquire":
                session, value = operation.value
                free = state.holder is None or state.holder == session
                if known and result != free:
                    return ILLEGAL
                locks = state.locks + (state.holder is None)
                return Fenced(session, locks, value, state.low + 1, False) if free else state
            case "release":
                session, value = operation.value
                held = state.holder == session
                if known and result != held:
                    return ILLEGAL
                return Fenced(None, state.locks, value, state.low + 1, False) if held else state
            case "end":
                held = state.holder == operation.value
                return Fenced(None, state.locks, state.value, state.low + 1, False) if held else state
            case "write":
                return self._write(state, operation)
            case "read":
                return state if not known else self._read(state, result)
        raise _unknown_name("a fenced lock", operation)

    def _write(self, state: Fenced, operation: Operation) -> Any:
        index, value = operation.value
        possible = state.low == index if state.exact else state.low <= index
        after = Fenced(state.holder, 0, value, index + 1, False)
        if not operation.known:
            return after if possible else state
        if operation.result:
            return after if possible else ILLEGAL
        return ILLEGAL if state.exact and possible else state

    def _read(self, state: Fenced, result: Any) -> Hashable:
        if result is None:
            return state if state == self.initial else ILLEGAL
        holder, locks, value, index = result
        if (holder, locks, value) != (state.holder, state.locks, state.value) or index == 0:
            return ILLEGAL
        if index < state.low or (state.exact and index != state.low):
            return ILLEGAL
        return Fenced(holder, locks, value, index, True)

    def observes(self, operation: Operation) -> bool:
        return operation.name in ("acquire", "release") and operation.result is False

    def toward(self, state: Any, target: Operation, open_operations: Sequence[Operation]) -> Sequence[Operation]:
        return open_operations
