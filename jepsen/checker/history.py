"""What clients asked and what they were told: the material that the checker judges.

An `Operation` runs from `called` to `returned`, whole numbers on one clock of any unit. What touches may overlap: an
operation that is called at the very moment when another returns is taken for concurrent with it.

There are three ends. *Known*: the answer arrived, and a refusal (a compare-and-set that did not match) is an answer.
*Unknown*: no answer will ever come, so it may take effect at any time from its call on, or never; `returned` is then
`FOREVER`. *Without effect*: the request is known not to have reached a server; such an operation is left out.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

FOREVER: Final = 1 << 62


class Operation(msgspec.Struct, frozen=True):
    """One request. What `name`, `value` and `result` mean is the model's; they must be hashable."""

    process: int
    name: str
    value: Any
    result: Any
    called: int
    returned: int
    key: str = ""

    @property
    def known(self) -> bool:
        """Whether its answer arrived."""
        return self.returned < FOREVER

    def __str__(self) -> str:
        what = f"{self.name}({'' if self.value is None else self.value})"
        return f"{what} → {self.result}" if self.known else f"{what} → ?"


class Recorder:
    """Collects operations while they happen. Safe within one thread or one event loop; `clock` gives whole numbers."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._open: dict[int, tuple[int, str, Any, str, int]] = {}
        self._next = 0
        self._done: list[Operation] = []

    def call(self, process: int, name: str, value: Any = None, key: str = "") -> int:
        """An operation begins. Returns its number, for `answer` or `forget`."""
        self._next += 1
        self._open[self._next] = (process, name, value, key, self._clock())
        return self._next

    def answer(self, number: int, result: Any) -> None:
        """Its answer arrived."""
        process, name, value, key, called = self._open.pop(number)
        self._done.append(Operation(process, name, value, result, called, self._clock(), key))

    def forget(self, number: int) -> None:
        """It certainly had no effect and told nothing."""
        del self._open[number]

    def history(self) -> list[Operation]:
        """All operations by the time of their call; those without an answer are unknown."""
        unknown = [
            Operation(process, name, value, None, called, FOREVER, key)
            for process, name, value, key, called in self._open.values()
        ]
        return sorted(self._done + unknown, key=lambda operation: operation.called)


_LINE = re.compile(r"INFO\s+jepsen\.util - (\d+)\s+:(\w+)\s+:(\w+)\s+(\S.*?)\s*")


def read_register_log(lines: Iterable[str]) -> list[Operation]:
    """A register's history as Jepsen logs it, a line an event: `INFO  jepsen.util - 4 :invoke :cas [2 4]`.

    The ends are `:ok`, `:fail` (of a `cas`: it did not match; of a read: it told nothing) and `:info` (unknown).
    Operations are `read` with the value or None as result, `write`, and `cas` of an (expected, new) pair with a boolean
    result. Raises `ValueError` for a line that is no such event.
    """
    at = 0
    recorder = Recorder(lambda: at)
    open_: dict[int, int] = {}
    for at, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line.rstrip("\n"))
        if found is None:
            raise ValueError(f"line {at}: expected `INFO  jepsen.util - PROCESS :EVENT :OPERATION VALUE`, not {line!r}")
        process, event, name, text = int(found[1]), found[2], found[3], found[4]
        if event == "invoke":
            open_[process] = recorder.call(process, name, _value(text))
            continue
        if process not in open_:
            raise ValueError(f"line {at}: process {process} has nothing under way that could end")
        number = open_.pop(process)
        if event == "info":
            continue
        if event == "ok":
            recorder.answer(number, _value(text) if name == "read" else True)
        elif event == "fail" and name == "cas":
            recorder.answer(number, False)
        elif event == "fail":
            recorder.forget(number)
        else:
            raise ValueError(f"line {at}: unknown event :{event}; there are :invoke, :ok, :fail and :info")
    return recorder.history()


def _value(text: str) -> Any:
    if text == "nil":
        return None
    if text.startswith("["):
        return tuple(int(part) for part in text.strip("[]").split())
    return int(text)
