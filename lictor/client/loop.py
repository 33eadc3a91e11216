"""The client for programs with an event loop: calls are awaited. aiohttp is imported with the first of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from lictor.client import locks
from lictor.client.calls import Answer, Call, Loop, Reply, answer_of
from lictor.client.choosing import Policy
from lictor.client.client import Families
from lictor.client.endpoint import Endpoint
from lictor.client.errors import ClientError, LockError, NoAgent, NoMap, NotPublished
from lictor.client.flows import Flow, Pause, WithAnswer
from lictor.client.locks import TTL, Place
from lictor.client.lookups import Service
from lictor.client.requests import Cursor, Tries, check, target
from lictor.client.settings import OptionNames

if TYPE_CHECKING:
    from lictor.client.loop_connections import LoopConnections
    from lictor.client.native_loop import Connect, Native

T = TypeVar("T")


class AsyncClient(Families[Loop]):
    """A client of one agent, for the event loop on which it is first used.

    async with AsyncClient() as client:
        await client.kv.put("a", b"1")
        (await client.lookup("web")).authority
    """

    def _begin(self) -> None:
        self._opened: list[LoopConnections] = []  # one, with the first request; shared with the twins of `using`
        self._native: list[Native] = []  # likewise
        self._make_families(self)

    @property
    def connect(self) -> Connect:
        """The mesh: who is trusted, who this program is, and connections."""
        from lictor.client.native_loop import Connect  # most programs do without

        return Connect(self)

    @property
    def native(self) -> Native:
        """What makes this program a part of the mesh; it begins with the first use."""
        from lictor.client.native_loop import Native

        if self._life.closed:
            raise NoAgent("the client is closed")
        if not self._native:
            self._native.append(Native())
        return self._native[0]

    def using(self, **options: Unpack[OptionNames]) -> AsyncClient:
        """The same client, connections and all, whose requests say something else: `using(consistency="stale")`."""
        return self._with(options)

    async def close(self) -> None:
        """End the connections, and let go of the map."""
        self._life.closed = True
        for native in self._native:
            await native.close()
        self.lookups.close()
        for connections in self._opened:
            await connections.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- lookups ------------------------------------------------------------------------------------------------------

    async def lookup(
        self,
        service: str,
        policy: Policy = "random",
        *,
        tag: str | None = None,
        warning: bool = False,
        max_age: float | None = None,
    ) -> Endpoint:
        """An instance of a service; see `Client.lookup`. What the map holds is answered without waiting."""
        try:
            return self.lookups.lookup(service, policy, tag=tag, warning=warning, max_age=max_age)
        except (NotPublished, NoMap) as missing:
            return (await self._ask(service, missing, max_age)).choose(policy, tag, warning)

    async def instances(self, service: str, *, max_age: float | None = None) -> tuple[Endpoint, ...]:
        """Every instance of a service, whatever its health, by node and id. Raises as `lookup` does."""
        return (await self._service(service, max_age)).endpoints

    @asynccontextmanager
    async def connection(
        self, service: str, *, tag: str | None = None, warning: bool = False, max_age: float | None = None
    ) -> AsyncIterator[Endpoint]:
        """An instance to which this process holds the fewest connections, which counts as one more until the end of
        the `async with`. Raises as `lookup` does.
        """
        found = await self._service(service, max_age)
        endpoint = found.take(tag, warning)
        try:
            yield endpoint
        finally:
            found.turns.release(endpoint.key)

    async def _service(self, name: str, max_age: float | None) -> Service:
        try:
            return self.lookups.fresh(name, max_age)
        except (NotPublished, NoMap) as missing:
            return await self._ask(name, missing, max_age)

    async def _ask(self, name: str, missing: ClientError, max_age: float | None) -> Service:
        return await self.run(self._asking.service(name, missing, max_age))

    # -- locks --------------------------------------------------------------------------------------------------------

    def lock(
        self, key: str, *, value: bytes | str = b"", ttl: float = TTL, lock_delay: float | None = None, name: str = ""
    ) -> LoopLock:
        """A lock of which there is one holder in the cluster: see `Client.lock`.

        async with client.lock("app/leader") as lock:
            await lock.lost.wait()
        """
        return LoopLock(self, self._mutex(key, value, ttl, lock_delay, name))

    def semaphore(
        self, prefix: str, limit: int, *, ttl: float = TTL, lock_delay: float | None = None, name: str = ""
    ) -> LoopLock:
        """The same for at most `limit` holders at a time, who all give the same limit."""
        return LoopLock(self, self._semaphore(prefix, limit, ttl, lock_delay, name))

    # -- calls --------------------------------------------------------------------------------------------------------

    async def make(self, call: Call[T]) -> T:
        """A call's value. Raises `ClientError`."""
        return call.read(await self._reply(call))

    async def answer(self, call: Call[T]) -> Answer[T]:
        """The same, and what is known of it."""
        return answer_of(call, await self._reply(call))

    async def watch(self, call: Call[T], wait: float) -> AsyncIterator[T]:
        """A call's value, and then its new value after each change."""
        cursor = Cursor(call, wait, self.options, self._chance)
        while True:
            try:
                answer = await self.answer(cursor.next())
                news = cursor.take(answer)
            except ClientError as error:
                await asyncio.sleep(cursor.pause(error))
                continue
            if news:
                yield answer.value

    async def run(self, flow: Flow[T]) -> T:
        """Carry out a flow."""
        send: Any = None
        error: ClientError | None = None
        while True:
            try:
                step = flow.throw(error) if error is not None else flow.send(send)
            except StopIteration as stop:
                found: T = stop.value
                return found
            send, error = None, None
            try:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    send = True
                elif isinstance(step, WithAnswer):
                    send = await self.answer(step.call)
                else:
                    send = await self.make(step)
            except ClientError as raised:
                error = raised

    async def _reply(self, call: Call[Any]) -> Reply:
        tries = Tries(call, self.options, self._chance)
        wanted = target(call, self.settings, self.options)
        if self._life.closed:
            raise NoAgent("the client is closed")
        if not self._opened:
            from lictor.client.loop_connections import LoopConnections

            self._opened.append(LoopConnections(self.settings))
        while True:
            try:
                return check(call, await self._opened[0].ask(wanted, self.options.connect_timeout))
            except ClientError as error:
                pause = tries.pause(error)
            await asyncio.sleep(pause)


class LoopLock:
    """A lock or a semaphore, for one holder. While it is held a task renews its session; `lost` is set when it is held
    no more, without having been released.
    """

    def __init__(self, client: AsyncClient, place: Place) -> None:
        self._client = client
        self._place = place
        self._keeper: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether it is held, for all that is known."""
        return self._keeper is not None and not self.lost.is_set()

    async def acquire(self, timeout: float | None = None) -> bool:
        """Wait until it is held; False after `timeout` seconds (None: never). Raises `ClientError`."""
        if self._keeper is not None:
            raise LockError("the lock is held already, or was lost and not released")
        if not await self._client.run(locks.acquire(self._place, time.monotonic, timeout)):
            return False
        self.lost.clear()
        self._keeper = asyncio.create_task(self._keep())
        return True

    async def release(self) -> None:
        """Give it back; harmless where it is not held. Raises `ClientError`, and then it is free after its TTL."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await self._client.run(self._place.release())

    async def _keep(self) -> None:
        await self._client.run(locks.keep(self._place))
        self.lost.set()

    async def __aenter__(self) -> LoopLock:
        await self.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()
