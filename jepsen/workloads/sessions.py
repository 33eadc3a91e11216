"""Sessions with a TTL: none ends before its time, none lives on for long after its last renewal.

A session that was renewed by a request lives for its TTL from the moment of that request, whatever happens to the
leader that counts it down. How much longer it lives is the server's choice; twice the TTL is the limit that is
documented, counted anew when there is a new leader.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from jepsen.client import Answer
from jepsen.cluster import Server
from jepsen.journal import INFO, OK, SECOND, History, Op
from jepsen.worker import Request, Worker, unexpected
from jepsen.workload import Problem

NODE: Final = "jepsen-client"
TTL: Final = 3  # seconds
_SLACK: Final = 15  # seconds that the end of a session may be late beyond twice its TTL, on a machine that stalls


def create_session(ttl: int) -> Request:
    """Make a session of the clients' node; its result is its id. `ttl` is in seconds, 0 for none."""
    body = {"Node": NODE, "Checks": [], "LockDelay": "0s", "TTL": f"{ttl}s" if ttl else ""}
    return Request("PUT", "/v1/session/create", _id, msgspec.json.encode(body))


def _id(answer: Answer) -> str:
    if answer.status != 200:
        raise unexpected(answer)
    return str(msgspec.json.decode(answer.body, type=dict[str, str])["ID"])


def end_session(session: str) -> Request:
    """End a session; the result is True, whether it was there or not."""
    return Request("PUT", f"/v1/session/destroy/{session}", _done)


def _done(answer: Answer) -> bool:
    if answer.status != 200:
        raise unexpected(answer)
    return True


async def register_node(worker: Worker) -> None:
    """Make the node that sessions belong to. Raises `ValueError`."""
    body = msgspec.json.encode({"Node": NODE, "Address": "10.0.0.1"})
    op = await worker.do("register", NODE, Request("PUT", "/v1/catalog/register", _done, body))
    if op.end != OK:
        raise ValueError(f"the node {NODE} cannot be registered: {op.error}")


def _renew(session: str) -> Request:
    """Renew; the result tells whether the session was there."""

    def understand(answer: Answer) -> bool:
        if answer.status not in (200, 404):
            raise unexpected(answer)
        return answer.status == 200

    return Request("PUT", f"/v1/session/renew/{session}", understand)


def _look(session: str) -> Request:
    """Look whether the session is there."""

    def understand(answer: Answer) -> bool:
        if answer.status != 200:
            raise unexpected(answer)
        found: list[Any] | None = msgspec.json.decode(answer.body)
        return bool(found)

    return Request("GET", f"/v1/session/info/{session}", understand)


class Sessions:
    """The workload `session`."""

    def __init__(self, name: str) -> None:
        self._given_up: set[str] = set()

    async def prepare(self, worker: Worker) -> None:
        await register_node(worker)

    async def work(self, worker: Worker) -> None:
        while await worker.pace():
            created = await worker.do("create", TTL, create_session(TTL))
            if created.end == OK:
                await self._one_life(worker, created.result)

    async def _one_life(self, worker: Worker, session: str) -> None:
        """Renew a session often enough for some time, and look at it; then only look until it has ended."""
        loop = asyncio.get_running_loop()
        until = loop.time() + worker.chance.uniform(1, 5) * TTL
        while loop.time() < until:
            if await self._until_stopping(worker, TTL / 4):
                break
            op = await worker.do_twice("renew", None, _renew(session), key=session)
            if op.result is False:
                return
            await worker.do("look", None, _look(session), key=session)
        self._given_up.add(session)
        while not await self._until_stopping(worker, 1.0):
            op = await worker.do("look", None, _look(session), key=session)
            if op.result is False:
                self._given_up.discard(session)
                return

    @staticmethod
    async def _until_stopping(worker: Worker, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await worker.stopping.wait()
        except TimeoutError:
            return False
        return True

    async def finish(self, worker: Worker, servers: Sequence[Server]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * TTL + _SLACK + 1
        while self._given_up:
            late = loop.time() > until
            for session in sorted(self._given_up):
                op = await worker.do("look", None, _look(session), key=session)
                if op.result is False or (late and op.end == OK):
                    self._given_up.discard(session)
            await asyncio.sleep(0.2)

    @staticmethod
    def judge(history: History) -> list[Problem]:
        lives: dict[str, list[Op]] = {}
        for op in history.ops:
            if op.name == "create" and op.end == OK:
                lives.setdefault(op.result, []).append(op)
            elif op.key:
                lives.setdefault(op.key, []).append(op)
        settled = history.phase("settled")
        found = [_early(session, ops) or _late(session, ops, settled) for session, ops in sorted(lives.items())]
        return [one for one in found if one is not None]


def _early(session: str, ops: Sequence[Op]) -> Problem | None:
    """Whether a session was seen to be gone although it was renewed within its TTL."""
    alive = [op for op in ops if op.end == OK and op.name in ("create", "renew")]
    for op in ops:
        if op.result is not False:
            continue
        for renewal in alive:
            before = renewal.returned < op.called or renewal.name == "renew"
            if before and op.returned <= renewal.called + TTL * SECOND:
                age = (op.returned - renewal.called) / SECOND
                return Problem(
                    f"{op.server} says that the session {session} has ended, {age:.2f} s after its {renewal.name} was "
                    f"sent to {renewal.server} and acknowledged; its TTL is {TTL} s"
                )
    return None


def _late(session: str, ops: Sequence[Op], settled: int) -> Problem | None:
    """Whether a session was still there when it had to be gone, counted from when all servers were well again."""
    renewed = max(op.returned for op in ops if op.name in ("create", "renew") and op.end in (OK, INFO))
    latest = max(renewed, settled) + (2 * TTL + _SLACK) * SECOND
    for op in ops:
        if op.name == "look" and op.result is True and op.called > latest:
            age = (op.called - renewed) / SECOND
            return Problem(f"{op.server} still has the session {session} {age:.0f} s after it was last renewed")
    return None
