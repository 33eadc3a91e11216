"""A counter that everybody adds to by compare-and-set. Every addition counts once: no more, no less.

A value is the number and the name of the addition that made it, so that an addition which was refused, and is there
nevertheless, betrays itself.
"""

from collections.abc import Sequence

from jepsen import kv
from jepsen.checker.models import Register as Model
from jepsen.client import Answer
from jepsen.cluster import Server
from jepsen.journal import FAIL, INFO, OK, History, operations
from jepsen.worker import Request, Worker
from jepsen.workload import Problem, linearizable

Value = tuple[int, str]


class Counter:
    """The workload `counter`."""

    def __init__(self, name: str) -> None:
        self._key = f"jepsen/{name}"
        self._additions = 0
        self._seen: dict[int, tuple[Value | None, int]] = {}

    async def prepare(self, worker: Worker) -> None:
        """There is nothing to make."""

    async def work(self, worker: Worker) -> None:
        while await worker.pace():
            query, how = worker.chance.choice([("", "default"), ("?consistent", "consistent")])
            op = await worker.do_twice("read", None, self._read(worker, query), how=how)
            if op.end != OK:
                continue
            before, index = self._seen[worker.number]
            self._additions += 1
            after = (before[0] + 1 if before else 1, f"a{self._additions}")
            request = kv.put(self._key, f"{after[0]} {after[1]}".encode(), f"cas={index}")
            await worker.do("cas", (before, after), request)

    def _read(self, worker: Worker, query: str) -> Request:
        def understand(answer: Answer) -> Value | None:
            found = kv.entry(answer)
            value = None
            if found is not None:
                number, name = (found.value or b"").decode().split(" ")
                value = (int(number), name)
            self._seen[worker.number] = (value, found.modify_index if found else 0)
            return value

        return Request("GET", f"/v1/kv/{self._key}{query}", understand)

    async def finish(self, worker: Worker, servers: Sequence[Server]) -> None:
        for server in servers:
            await worker.do("read", None, self._read(worker, "?consistent"), how="last", server=server)

    @staticmethod
    def judge(history: History) -> list[Problem]:
        problems = []
        additions = [op for op in history.ops if op.name == "cas"]
        acknowledged = [op for op in additions if op.end == OK]
        lost = sum(op.end == INFO for op in additions)
        for op in history.ops:
            if op.how != "last":
                continue
            if op.end != OK:
                problems.append(Problem(f"the last read of {op.server} failed: {op.error}"))
                continue
            number = op.result[0] if op.result else 0
            if not len(acknowledged) <= number <= len(acknowledged) + lost:
                text = (
                    f"{op.server} has counted {number}; {len(acknowledged)} additions were acknowledged, {lost} may be"
                )
                problems.append(Problem(text))
        seen = {op.result for op in history.ops if op.name == "read" and op.result}
        for op in additions:
            if op.end == FAIL and op.value[1] in seen:
                problems.append(Problem(f"{op.server} refused the addition {op.value[1][1]}, and it was made"))
        return problems + linearizable(operations(additions + [op for op in history.ops if op.name == "read"]), Model)
