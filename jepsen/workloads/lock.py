"""Locks: sessions that acquire a key, write under it, release it, or end. At most one holds it at any time.

What is judged is the key with all its versions, so that a writer who held the lock once is fenced off by the index
that it knows. The sessions have no TTL, and belong to a node without checks: they end when a client ends them.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from jepsen import kv
from jepsen.checker.models import FencedLock
from jepsen.client import Answer
from jepsen.cluster import Server
from jepsen.journal import INFO, OK, History, operations
from jepsen.worker import Request, Worker
from jepsen.workload import Problem, Subject, linearizable
from jepsen.workloads.sessions import create_session, end_session, register_node

_CLIENTS_A_KEY: Final = 4
_OPERATIONS_A_KEY: Final = 150
_MODELLED: Final = {"acquire", "release", "end", "write", "read"}


class Lock:
    """The workload `lock`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._subjects: dict[int, Subject] = {}

    async def prepare(self, worker: Worker) -> None:
        await register_node(worker)

    async def work(self, worker: Worker) -> None:
        group = worker.number // _CLIENTS_A_KEY
        subject = self._subjects.setdefault(group, Subject(f"jepsen/{self._name}/{group}", _OPERATIONS_A_KEY))
        values = (f"{worker.number}.{count}" for count in itertools.count(1))
        while await worker.pace():
            created = await worker.do("create", None, create_session(ttl=0))
            if created.end == OK:
                await self._one_life(worker, subject, created.result, values)

    async def _one_life(self, worker: Worker, subject: Subject, session: str, values: Iterator[str]) -> None:
        """What one session does with one key."""
        key = subject.key
        index = 0
        while key == subject.key and await worker.pace():
            roll = worker.chance.random()
            if roll < 0.3:
                op = await worker.do("read", None, read(key), key=key)
                if op.end == OK and op.result is not None and op.result[0] == session:
                    index = op.result[3]
            elif roll < 0.6:
                value = next(values)
                request = kv.put(key, value.encode(), f"acquire={session}")
                op = await worker.do("acquire", (session, value), request, key=key)
            elif roll < 0.75 and index:
                value = next(values)
                op = await worker.do("write", (index, value), kv.put(key, value.encode(), f"cas={index}"), key=key)
            elif roll < 0.92:
                value = next(values)
                request = kv.put(key, value.encode(), f"release={session}")
                op = await worker.do("release", (session, value), request, key=key)
            else:
                break
            subject.count(key, lost=op.end == INFO)
        ended = await worker.do("end", session, end_session(session), key=key)
        subject.count(key, lost=ended.end == INFO)
        if index and worker.chance.random() < 0.5:
            value = next(values)
            late = await worker.do("write", (index, value), kv.put(key, value.encode(), f"cas={index}"), key=key)
            subject.count(key, lost=late.end == INFO)

    async def finish(self, worker: Worker, servers: Sequence[Server]) -> None:
        for subject in self._subjects.values():
            for server in servers:
                await worker.do("read", None, read(subject.key), key=subject.key, server=server)

    @staticmethod
    def judge(history: History) -> list[Problem]:
        modelled = [op for op in history.ops if op.name in _MODELLED]
        problems = linearizable(operations(modelled), FencedLock)
        ending = {op.value: op.called for op in modelled if op.name == "end"}
        for op in modelled:
            if op.name in ("acquire", "release") and "invalid session" in op.error:
                session = op.value[0]
                if op.returned < ending.get(session, op.returned + 1):
                    problems.append(Problem(f"{op.server} does not know the session {session}, which was not ended"))
        return problems


def read(key: str) -> Request:
    """Read a key as the model sees it: holder, count of locks, value, index."""

    def understand(answer: Answer) -> tuple[str | None, int, str, int] | None:
        found = kv.entry(answer)
        if found is None:
            return None
        return found.session or None, found.lock_index, (found.value or b"").decode(), found.modify_index

    return Request("GET", f"/v1/kv/{key}", understand)
