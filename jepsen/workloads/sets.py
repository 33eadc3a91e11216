"""Sets: numbers are added, each once. None that was acknowledged may be missing in any later read, above all the last.

`set` has a key for each number, and reads the names of all; an addition may be repeated. `set-cas` keeps all numbers
in one key, which everybody compare-and-sets.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen import kv
from jepsen.checker.models import Set as Model
from jepsen.client import Answer
from jepsen.cluster import Server
from jepsen.journal import FAIL, INFO, OK, History, operations
from jepsen.worker import Request, Worker, unexpected
from jepsen.workload import Problem, linearizable

_READS: Final = 0.02  # of all operations
_SHOWN: Final = 10  # numbers that a problem names


class ManyKeys:
    """The workload `set`."""

    def __init__(self, name: str) -> None:
        self._prefix = f"jepsen/{name}/"
        self._added = 0

    async def prepare(self, worker: Worker) -> None:
        """There is nothing to make."""

    async def work(self, worker: Worker) -> None:
        padding = b"x" * worker.settings.size
        while await worker.pace():
            if worker.chance.random() < _READS:
                query, how = worker.chance.choice([("", "default"), ("&consistent", "consistent")])
                await worker.do_twice("read", None, self._read(query), how=how)
            else:
                self._added += 1
                request = kv.put(f"{self._prefix}{self._added}", padding)
                await worker.do_twice("add", self._added, request)

    def _read(self, query: str) -> Request:
        def understand(answer: Answer) -> tuple[int, ...]:
            return tuple(sorted(int(name.rpartition("/")[2]) for name in kv.names(answer)))

        return Request("GET", f"/v1/kv/{self._prefix}?keys{query}", understand)

    async def finish(self, worker: Worker, servers: Sequence[Server]) -> None:
        for server in servers:
            await worker.do("read", None, self._read("&consistent"), how="last", server=server)

    @staticmethod
    def judge(history: History) -> list[Problem]:
        return _judge(history)


class OneKey:
    """The workload `set-cas`."""

    def __init__(self, name: str) -> None:
        self._key = f"jepsen/{name}"
        self._added = 0

    async def prepare(self, worker: Worker) -> None:
        """There is nothing to make."""

    async def work(self, worker: Worker) -> None:
        while await worker.pace():
            if worker.chance.random() < _READS:
                query, how = worker.chance.choice([("", "default"), ("?consistent", "consistent")])
                await worker.do_twice("read", None, self._read(query), how=how)
                continue
            found = await worker.peek(Request("GET", f"/v1/kv/{self._key}", _with_index))
            if found is not None:
                numbers, index = found
                self._added += 1
                body = msgspec.json.encode([*numbers, self._added])
                await worker.do("add", self._added, kv.put(self._key, body, f"cas={index}"))

    def _read(self, query: str) -> Request:
        return Request("GET", f"/v1/kv/{self._key}{query}", lambda answer: tuple(sorted(_with_index(answer)[0])))

    async def finish(self, worker: Worker, servers: Sequence[Server]) -> None:
        for server in servers:
            await worker.do("read", None, self._read("?consistent"), how="last", server=server)

    @staticmethod
    def judge(history: History) -> list[Problem]:
        return _judge(history)


def _with_index(answer: Answer) -> tuple[list[int], int]:
    found = kv.entry(answer)
    if found is None:
        return [], 0
    try:
        return msgspec.json.decode(found.value or b"", type=list[int]), found.modify_index
    except msgspec.DecodeError:
        raise unexpected(answer) from None


def _judge(history: History) -> list[Problem]:
    """What is missing and what is too much in the last reads; then, whether all reads fit together."""
    problems = []
    acknowledged = {op.value for op in history.ops if op.name == "add" and op.end == OK}
    possible = acknowledged | {op.value for op in history.ops if op.name == "add" and op.end == INFO}
    last = [op for op in history.ops if op.how == "last"]
    if not any(op.end == OK for op in last):
        problems.append(Problem("there was no last read, so nobody knows what was lost"))
    for op in last:
        if op.end != OK:
            problems.append(Problem(f"the last read of {op.server} failed: {op.error}"))
            continue
        lost, extra = acknowledged - set(op.result), set(op.result) - possible
        if lost:
            problems.append(Problem(f"{op.server} has lost {_some(lost)} of {len(acknowledged)} acknowledged"))
        if len(op.result) > len(set(op.result)):
            problems.append(Problem(f"{op.server} holds numbers that were added twice"))
        if extra:
            problems.append(Problem(f"{op.server} holds {_some(extra)} that were refused or never added"))
    kept = [op for op in history.ops if not (op.name == "add" and op.end == FAIL)]
    return problems + linearizable(operations(kept), Model)


def _some(numbers: set[int]) -> str:
    shown = sorted(numbers)[:_SHOWN]
    return f"{len(numbers)} numbers ({', '.join(map(str, shown))}{', …' if len(numbers) > len(shown) else ''})"
