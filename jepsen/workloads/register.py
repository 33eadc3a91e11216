"""Registers: a few keys that everybody reads, writes, deletes and compare-and-sets. Must be linearizable.

Default and `consistent` reads are mixed, and transactions with plain requests. No value is written to a key twice, so
that an index that still matches means a value that still matches.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen import kv
from jepsen.checker.models import Register as Model
from jepsen.client import Answer
from jepsen.cluster import Server
from jepsen.journal import INFO, History, operations
from jepsen.worker import Request, Worker
from jepsen.workload import Problem, Subject, linearizable

_CLIENTS_A_KEY: Final = 4
_OPERATIONS_A_KEY: Final = 200


class _Version(msgspec.Struct, frozen=True):
    key: str
    value: int | None
    index: int


class Register:
    """The workload `register`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._subjects: dict[int, Subject] = {}
        self._seen: dict[int, _Version] = {}

    async def prepare(self, worker: Worker) -> None:
        """There is nothing to make."""

    async def work(self, worker: Worker) -> None:
        group = worker.number // _CLIENTS_A_KEY
        subject = self._subjects.setdefault(group, Subject(f"jepsen/{self._name}/{group}", _OPERATIONS_A_KEY))
        while await worker.pace():
            key = subject.key
            roll = worker.chance.random()
            seen = self._seen.get(worker.number)
            if roll < 0.22:
                op = await worker.do_twice("read", None, self._read(worker, key, ""), key=key, how="default")
            elif roll < 0.45:
                op = await worker.do_twice(
                    "read", None, self._read(worker, key, "?consistent"), key=key, how="consistent"
                )
            elif seen is not None and seen.key == key and roll < 0.8:
                value = (seen.value, subject.value())
                body = str(value[1]).encode()
                if roll < 0.72:
                    request, how = kv.put(key, body, f"cas={seen.index}"), "plain"
                else:
                    request, how = kv.transaction_cas(key, body, seen.index), "transaction"
                op = await worker.do("cas", value, request, key=key, how=how)
            elif roll < 0.95:
                number = subject.value()
                op = await worker.do("write", number, kv.put(key, str(number).encode()), key=key)
            else:
                op = await worker.do("delete", None, kv.delete(key), key=key)
            subject.count(key, lost=op.end == INFO)

    def _read(self, worker: Worker, key: str, query: str) -> Request:
        def understand(answer: Answer) -> int | None:
            found = kv.entry(answer)
            value = int(found.value or b"") if found else None
            self._seen[worker.number] = _Version(key, value, found.modify_index if found else 0)
            return value

        return Request("GET", f"/v1/kv/{key}{query}", understand)

    async def finish(self, worker: Worker, servers: Sequence[Server]) -> None:
        for subject in self._subjects.values():
            for server in servers:
                key = subject.key
                await worker.do("read", None, self._read(worker, key, ""), key=key, how="default", server=server)

    @staticmethod
    def judge(history: History) -> list[Problem]:
        return linearizable(operations(history.ops), Model) + [
            Problem(f"a server refused a plain {op.name} of {op.key}")
            for op in history.ops
            if op.name in ("write", "delete") and op.result is False
        ]
