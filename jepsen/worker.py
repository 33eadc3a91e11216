"""A client of a run: it asks one thing at a time, and writes down what it asked and what it was told."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from jepsen.client import Answer, Client, Lost, NotSent
from jepsen.cluster import Server
from jepsen.journal import FAIL, INFO, NONE, OK, Journal, Op

_AT_HOME: Final = 0.8  # how often a client asks its own server, where it is free to choose
_BREATH: Final = 0.1  # seconds that a client waits after an error, on average


class Refused(Exception):
    """An answer that says that nothing was done."""


class Request(msgspec.Struct, frozen=True):
    """A request, and what its answer means: `understand` gives the result, False for a refusal that is an answer.

    `understand` raises `Refused` where the answer says that nothing was done, and `ValueError` where it does not tell.
    """

    method: str
    path: str
    understand: Callable[[Answer], Any]
    body: bytes = b""


class Settings(msgspec.Struct, frozen=True):
    """How clients behave. `rate`: requests a second of each, on average. `timeout`: seconds until it gives up waiting.
    `size`: bytes of padding in values, where the workload has room for them.
    """

    clients: int
    rate: float
    timeout: float
    size: int = 0


class Worker:
    """One client. `number` counts from 0; it stays, while `process` is a new one after each answer that is lost."""

    def __init__(
        self,
        number: int,
        servers: Sequence[Server],
        journal: Journal,
        settings: Settings,
        stopping: asyncio.Event,
        chance: random.Random,
    ) -> None:
        self.number = number
        self.process = number
        self.chance = chance
        self.servers = servers
        self.stopping = stopping
        self.settings = settings
        self.journal = journal
        self._home = servers[number % len(servers)]
        self._client = Client(settings.timeout)

    def close(self) -> None:
        """Drop its connections."""
        self._client.close()

    async def pace(self) -> bool:
        """Wait for the time of the next request. False when there is to be none."""
        seconds = self.chance.expovariate(self.settings.rate)
        try:
            async with asyncio.timeout(min(seconds, 5.0)):
                await self.stopping.wait()
        except TimeoutError:
            return not self.stopping.is_set()
        return False

    async def do(
        self,
        name: str,
        value: Any,
        request: Request,
        *,
        key: str = "",
        how: str = "",
        server: Server | None = None,
    ) -> Op:
        """Do a request once, and write down what became of it."""
        return await self._once(name, value, request, key, how, server or self._choose(), None)

    async def do_twice(self, name: str, value: Any, request: Request, *, key: str = "", how: str = "") -> Op:
        """The same for what may be done twice: after an error once again, at another server."""
        server = self._choose()
        op = await self._once(name, value, request, key, how, server, False)
        if not op.error:
            return op
        other = self.chance.choice([one for one in self.servers if one is not server])
        return await self._once(name, value, request, key, how, other, True)

    async def peek(self, request: Request) -> Any:
        """Do a request that only reads, off the record. Returns None where that failed."""
        try:
            answer = await self._client.ask(self._choose().address, request.method, request.path, request.body)
            return request.understand(answer)
        except (NotSent, Lost, Refused, ValueError):
            return None

    def _choose(self) -> Server:
        return self._home if self.chance.random() < _AT_HOME else self.chance.choice(self.servers)

    async def _once(
        self, name: str, value: Any, request: Request, key: str, how: str, server: Server, again: bool | None
    ) -> Op:
        result: Any = None
        error = ""
        end = INFO if request.method != "GET" else NONE
        called = self.journal.now()
        try:
            answer = await self._client.ask(server.address, request.method, request.path, request.body)
            result = request.understand(answer)
            end = FAIL if result is False else OK
        except (NotSent, Refused) as problem:
            end, error = NONE, str(problem)
        except (Lost, ValueError) as problem:
            error = str(problem)
        op = Op(
            process=self.process,
            name=name,
            called=called,
            returned=self.journal.now(),
            end=end,
            server=server.name,
            key=key,
            value=value,
            result=result,
            how=how,
            error=error,
            again=again,
        )
        self.journal.write(op)
        if end == INFO:
            self.process += self.settings.clients
        if error and again is not False:
            await asyncio.sleep(self.chance.expovariate(1 / _BREATH))
        return op


def unexpected(answer: Answer) -> ValueError:
    """For an answer that does not tell what was done."""
    return ValueError(f"{answer.status} {answer.body[:200].decode(errors='replace').strip()}")
