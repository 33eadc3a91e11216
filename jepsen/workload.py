"""What every workload has: clients that do it, a last look when all is over, and a judgement of what was recorded."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from jepsen.checker import Operation, Result, Verdict, check_by_key
from jepsen.checker.models import Model
from jepsen.cluster import Server
from jepsen.journal import History
from jepsen.worker import Worker


class Problem(msgspec.Struct, frozen=True):
    """Something that clients may rely on did not hold. `result` and `model` are there where it can be drawn."""

    text: str
    result: Result | None = None
    model: Any = None


class Workload(Protocol):
    """One kind of work. `judge` looks at nothing but the history, so that a file can be judged again."""

    async def prepare(self, worker: Worker) -> None:
        """What has to be there before. Raises `ValueError` where it cannot be made."""
        ...

    async def work(self, worker: Worker) -> None:
        """Do the work of one client until it is told to stop."""
        ...

    async def finish(self, worker: Worker, servers: Sequence[Server]) -> None:
        """Look at the outcome, when all servers are well again."""
        ...

    @staticmethod
    def judge(history: History) -> list[Problem]:
        """What was wrong."""
        ...


def linearizable(operations: Sequence[Operation], model: Callable[[], Model]) -> list[Problem]:
    """Check every key for itself. A search that had to be given up is a problem too."""
    return [
        Problem(str(result), result, model())
        for result in check_by_key(operations, model())
        if result.verdict is not Verdict.LINEARIZABLE
    ]


class Subject:
    """A key that some clients work on for a while; then comes the next. Short histories are quickly judged."""

    def __init__(self, prefix: str, limit: int, lost: int = 12) -> None:
        self._prefix = prefix
        self._limit = limit
        self._lost = lost
        self._number = 0
        self.key = ""
        self.values = 0
        self._turn()

    def _turn(self) -> None:
        self._number += 1
        self.key = f"{self._prefix}-{self._number}"
        self._left = self._limit
        self._lost_left = self._lost

    def count(self, key: str, *, lost: bool) -> None:
        """An operation on the key is over. After so many, or so many lost answers, there is another key."""
        if key != self.key:
            return
        self._left -= 1
        self._lost_left -= lost
        if self._left <= 0 or self._lost_left <= 0:
            self._turn()

    def value(self) -> int:
        """A number that was never written to it before."""
        self.values += 1
        return self.values
