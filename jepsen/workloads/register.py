"""Registers: a few keys that everybody reads, writes, deletes and compare-and-sets. Must be linearizable.

Default and `consistent` reads are mixed, and transactions with plain requests. No value is written to a key twice, so
that an index that still matches means a value that still matches. `control` is the same with stale reads, which are
not linearizable: a run of it that finds nothing wrong has seen too little.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Final

import msgspec

from jepsen import kv
from jepsen.checker.models import Register as Model
from jepsen.client import Answer
from jepsen.cluster import Server
from jepsen.journal import INFO, History, operations
from jepsen.worker import Request, Worker
from jepsen.workload import Problem, Subject, linearizable

MODES: Final = {"default": "", "consistent": "?consistent"}
_CLIENTS_A_KEY: Final = 4
_OPERATIONS_A_KEY: Final = 200


class _Version(msgspec.Struct, frozen=True):
    key: str
    value: int | None
    index: int


class Register:
    """The workload `register`. `modes` are the ways of reading, by their names: what is added to a read's path."""

    def __init__(self, name: str, modes: Mapping[str, str] = MODES) -> None:
        self._name = name
        self._modes = modes
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
            if roll < 0.45:
                how, query = worker.chance.choice(list(self._modes.items()))
                op = await worker.do_twice("read", None, self._read(worker, key, query), key=key, how=how)
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
        for subject, server, (how, query) in product(self._subjects.values(), servers, self._modes.items()):
            read = self._read(worker, subject.key, query)
            await worker.do("read", None, read, key=subject.key, how=how, server=server)

    @staticmethod
    def judge(history: History) -> list[Problem]:
        return linearizable(operations(history.ops), Model) + [
            Problem(f"a server refused a plain {op.name} of {op.key}")
            for op in history.ops
            if op.name in ("write", "delete") and op.result is False
        ]
