"""Stale reads: what they tell was true once, never goes back on one server, and its age is not understated.

Each key has one writer, who counts up, so that every value has its place in time. After a write whose answer is lost,
which may still come true, the writer goes on with another key.
"""

from collections.abc import Sequence
from typing import Final

from jepsen import kv
from jepsen.client import Answer
from jepsen.cluster import Server
from jepsen.journal import INFO, NONE, OK, SECOND, Fault, History, Op
from jepsen.worker import Request, Worker, unexpected
from jepsen.workload import Problem

_WRITERS: Final = 2  # of all clients
_SLACK: Final = 3  # seconds until a server that is cut off has to know that it is
_ALONE: Final = ("isolate", "isolate-leader")  # faults whose servers hear nobody


class Stale:
    """The workload `stale`. A read's result is the number, the seconds since the leader was heard, and KnownLeader."""

    def __init__(self, name: str) -> None:
        self._keys = [f"jepsen/{name}/{writer}" for writer in range(_WRITERS)]

    async def prepare(self, worker: Worker) -> None:
        """There is nothing to make."""

    async def work(self, worker: Worker) -> None:
        writer = worker.number if worker.number < _WRITERS else None
        number = 0
        while await worker.pace():
            if writer is None:
                key = self._keys[worker.chance.randrange(_WRITERS)]
                await worker.do("read", None, _read(key), key=key, server=worker.chance.choice(worker.servers))
                continue
            number += 1
            key = self._keys[writer]
            op = await worker.do("write", number, kv.put(key, str(number).encode()), key=key)
            if op.end == INFO:
                self._keys[writer] = f"{key.partition('-')[0]}-{number}"

    async def finish(self, worker: Worker, servers: Sequence[Server]) -> None:
        """What is read while all is well is no test of this."""

    @staticmethod
    def judge(history: History) -> list[Problem]:
        reads = [op for op in history.ops if op.name == "read" and op.end == OK]
        return [*_untrue(history, reads), *_backwards(history, reads), *_understated(history, reads)]


def _read(key: str) -> Request:
    def understand(answer: Answer) -> tuple[int, float, bool]:
        found = kv.entry(answer)
        known = answer.headers.get("x-consul-knownleader")
        contact = answer.headers.get("x-consul-lastcontact")
        if known not in ("true", "false") or contact is None:
            raise unexpected(answer)
        return int(found.value or b"") if found else 0, int(contact) / 1000, known == "true"

    return Request("GET", f"/v1/kv/{key}?stale", understand)


def _untrue(history: History, reads: Sequence[Op]) -> list[Problem]:
    """Values that nobody had begun to write when they were read."""
    begun = {(op.key, op.value): op.called for op in history.ops if op.name == "write" and op.end != NONE}
    found = []
    for op in reads:
        value = op.result[0]
        if value and begun.get((op.key, value), op.returned + 1) > op.returned:
            found.append(Problem(f"{op.server} told {value} of {op.key}, which nobody had written"))
    return found


def _backwards(history: History, reads: Sequence[Op]) -> list[Problem]:
    """Values older than what the same run of the same server has told before."""
    starts: dict[str, list[int]] = {}
    for remark in history.remarks:
        if remark.kind == "start":
            starts.setdefault(remark.text, []).append(remark.at)
    found = []
    newest: dict[tuple[str, str, int], tuple[int, Op]] = {}
    for op in sorted(reads, key=lambda one: one.returned):
        run = sum(at <= op.called for at in starts.get(op.server, ()))
        place = (op.server, op.key, run)
        value = op.result[0]
        best = newest.get(place)
        if best is not None and value < best[0] and best[1].returned < op.called:
            found.append(Problem(f"{op.server} told {value} of {op.key} after it had told {best[0]}"))
        if best is None or value > best[0]:
            newest[place] = (value, op)
    return found


def _understated(history: History, reads: Sequence[Op]) -> list[Problem]:
    """Reads of a server that had been cut off for a while, and did not say so."""
    found = []
    for fault in history.faults:
        if fault.name not in _ALONE:
            continue
        restarted = any(
            remark.kind == "start" and remark.text in fault.servers and fault.struck <= remark.at <= fault.ended
            for remark in history.remarks
        )
        for op in reads:
            late = (
                op.server in fault.servers and op.called > fault.struck + _SLACK * SECOND and op.returned < fault.ended
            )
            if late and not restarted:
                found += _honest(fault, op)
    return found


def _honest(fault: Fault, op: Op) -> list[Problem]:
    _, contact, known = op.result
    alone = (op.called - fault.struck) / SECOND
    found = []
    if known:
        found.append(Problem(f"{op.server} says it knows a leader after {alone:.1f} s alone"))
    if contact < alone - _SLACK:
        found.append(Problem(f"{op.server} says it heard the leader {contact:.1f} s ago, after {alone:.1f} s alone"))
    return found
