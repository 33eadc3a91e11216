"""What an agent that is no server has of the servers: whom it asks, what it tells them, what it passes on to them.

A call goes to one server after the other until one answers, or nobody has for `performance.rpc_hold_timeout`. What may
take effect twice travels with a number, under which it counts once.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.forwarding import (
    REQUEST,
    RESOLVE,
    STREAM,
    Answered,
    Asked,
    Numbers,
    Question,
    decode_answered,
    encode,
)
from lictor.agent.logs import logger
from lictor.agent.metrics import Metrics
from lictor.agent.replica import NotCoverable, PartialReplica
from lictor.agent.replica_file import ReplicaFile, forget
from lictor.agent.rpc_limits import network_limits
from lictor.agent.rpc_tls import rpc_tls
from lictor.agent.servers import Servers, rebalance_after
from lictor.model.command import Command
from lictor.model.errors import LictorError, NoLeader, RateExceeded, Refused, Unsupported
from lictor.model.transport import UNREADABLE, Unreachable
from lictor.rpc.network import Network
from lictor.rpc.rate import Bucket
from lictor.rpc.security import Security
from lictor.server.for_agents import APPLY, Applied, decode_applied, encode_command
from lictor.store.numbered_results import decode_result
from lictor.store.store import Store
from lictor.store.watch import Topic

RESOLVE_SECONDS = 5.0
REACH_SECONDS = 2.0
PAUSE = 0.1  # seconds between two rounds of servers that do not answer

T = TypeVar("T")
log = logger("agent.client")


class NoServers(NoLeader):
    """No server is known, or none answers."""

    def __init__(self, reason: str = "") -> None:
        LictorError.__init__(self, reason or "No known Consul servers")


class Client:
    """See above. Made on a running loop. `members` is how many agents there are, `folder` that of the agent's data, if
    it keeps any. Raises `LictorError` for TLS files that cannot be used.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        store: Store,
        members: Callable[[], int],
        metrics: Metrics,
        folder: Path | None = None,
    ) -> None:
        self._config = config
        self._members = members
        self._chance = random.SystemRandom()
        self._loop = asyncio.get_running_loop()
        self.network = Network(self._chance, security=rpc_tls(config), limits=network_limits(config))
        self.servers = Servers(self._chance)
        self.replica = PartialReplica(
            store,
            self.network,
            self._whom,
            self._chance,
            failed=self._failed,
            admit=self._admit,
            datacenter=config.datacenter,
            ttl=config.cache.entry_ttl,
            rate=config.cache.entry_fetch_rate,
            burst=config.cache.entry_fetch_max_burst,
        )
        self.file: ReplicaFile | None = None
        if folder is not None and config.cache.persist:
            self.file = ReplicaFile(folder, self.replica, config.datacenter)
        elif folder is not None:
            forget(folder)
        self._numbers = Numbers(self._chance)
        self._bucket = _bucket(config, self._loop.time())
        self._found = asyncio.Event()
        self._silent: set[str] = set()  # servers of which the log says that they do not answer
        self._rebalancing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._metrics = metrics
        self._calls = metrics.counter("client.rpc")
        self._limited = metrics.counter("client.rpc.exceeded")

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Hold what an earlier run has kept, and begin to take another server now and then."""
        if self.file is not None:
            self.file.load()
        self._rebalancing = self._loop.create_task(self._rebalance())

    async def close(self) -> None:
        """End all connections."""
        if self._rebalancing is not None:
            self._rebalancing.cancel()
            await asyncio.gather(self._rebalancing, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        if self.file is not None:
            await self.file.close()
        await self.replica.close()
        await self.network.close()

    def reload(self, config: RuntimeConfig, security: Security) -> None:
        """Use what the certificate files hold now, and the keys of TLS, limits and the cache."""
        self.network.configure(security, network_limits(config))
        self._config = config
        self._bucket = _bucket(config, self._loop.time())
        cache = config.cache
        self.replica.configure(cache.entry_ttl, cache.entry_fetch_rate, cache.entry_fetch_max_burst)

    def learn(self, addresses: Iterable[str]) -> None:
        """These are the servers' addresses from now on."""
        self.servers.learn(addresses)
        self.replica.hurry()
        if len(self.servers):
            self._found.set()
        else:
            self._found.clear()

    async def _rebalance(self) -> None:
        while True:
            await asyncio.sleep(rebalance_after(self._members(), len(self.servers), self._chance))
            self.servers.rebalance()

    # -- calls --------------------------------------------------------------------------------------------------------

    async def apply(self, command: Command) -> Any:
        """Have the servers apply a command that does no harm twice. Returns its result; raises what it failed with, or
        `NoServers`.
        """
        body = encode_command(command)

        async def once(address: str) -> Applied:
            return decode_applied(await self.network.call(address, APPLY, body, self._timeout))

        applied: Applied = await self._ask(once)
        result = decode_result(applied.result)
        if isinstance(result, LictorError):
            raise result
        await self.reach(applied.index)
        return result

    @property
    def _timeout(self) -> float:
        return self._config.limits.rpc_client_timeout

    async def request(self, asked: Asked, seconds: float = 0.0) -> Answered:
        """Have a server answer a request, which may wait for `seconds` there. One that is no GET is numbered here."""
        if asked.method in ("GET", "HEAD"):
            return await self._request(asked, seconds)
        number, low = self._numbers.begin()
        try:
            numbered = msgspec.structs.replace(asked, origin=self._numbers.origin, number=number, low=low)
            return await self._request(numbered, seconds)
        finally:
            self._numbers.end(number)

    async def _request(self, asked: Asked, seconds: float) -> Answered:
        body = encode(asked)
        timeout = seconds + self._timeout
        left = len(self.servers)

        async def once(address: str) -> Answered:
            nonlocal left
            left -= 1
            answered = decode_answered(await self.network.call(address, REQUEST, body, timeout))
            if answered.leaderless and left > 0:
                raise Unreachable(f"{address}: it knows of no leader")  # another one may
            return answered

        return await self._ask(once)

    async def stream(self, asked: Asked) -> AsyncGenerator[bytes, None]:
        """A server's answer piece by piece, the first one its head. Raises `LictorError`; once it has begun, it is
        not asked for again.
        """
        address = self._pick()
        try:
            async with aclosing(self.network.stream(address, STREAM, encode(asked))) as pieces:
                async for piece in pieces:
                    yield piece
        except Unreachable as error:
            self._failed(address, error)
            raise Refused(f"rpc error making call: {error}") from None

    async def call(self, method: str, body: bytes) -> bytes:
        """Have a server answer a call that does no harm twice. Raises what it answers with, or `NoServers`."""

        async def once(address: str) -> bytes:
            return await self.network.call(address, method, body, self._timeout)

        return await self._ask(once)

    async def resolve(self, data: bytes, sender: str, tcp: bool) -> bytes:
        """Have a server answer a DNS request."""
        body = encode(Question(data, sender, tcp))

        async def once(address: str) -> bytes:
            return await self.network.call(address, RESOLVE, body, RESOLVE_SECONDS)

        return await self._ask(once)

    # -- what is held of the servers' state ---------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether anything is."""
        return self.replica.active

    def covers(self, seen: tuple[Topic, ...]) -> bool:
        """Whether all is that a read looked at."""
        return self.replica.covers(seen)

    async def cover(self, seen: tuple[Topic, ...]) -> bool:
        """Hold that from now on. Returns whether it can be. Raises `LictorError` where no server answers."""
        try:
            await self.replica.want(seen)
        except NotCoverable:
            return False
        return True

    async def hold(self, looks_at: Callable[[], tuple[Topic, ...]]) -> bool:
        """Do the same for what a read looks at, which may be more once it finds more."""
        try:
            await self.replica.hold(looks_at)
        except NotCoverable:
            return False
        return True

    def cover_soon(self, seen: tuple[Topic, ...]) -> None:
        """Begin to."""
        task = self._loop.create_task(self._cover_quietly(seen))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def hold_soon(self, looks_at: Callable[[], tuple[Topic, ...]]) -> None:
        """Begin to hold what a read looks at."""
        if not self.replica.covers(looks_at()):
            task = self._loop.create_task(self._hold_quietly(looks_at))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _hold_quietly(self, looks_at: Callable[[], tuple[Topic, ...]]) -> None:
        with contextlib.suppress(LictorError):
            await self.hold(looks_at)

    async def _cover_quietly(self, seen: tuple[Topic, ...]) -> None:
        with contextlib.suppress(LictorError):
            await self.cover(seen)

    async def confirm(self, consistent: bool) -> None:
        """Return once what is held is as new as all that was acknowledged before. Raises `NoLeader`."""
        await self.replica.confirm(consistent)

    async def reach(self, index: int) -> None:
        """Return once what is held is as new as that index or, where the servers do not tell in time, without."""
        if not self.replica.active:
            return
        with contextlib.suppress(TimeoutError, LictorError):
            async with asyncio.timeout(REACH_SECONDS):
                await self.replica.reach(index)

    @property
    def knows_leader(self) -> bool:
        """Whether the server that it comes from has a leader."""
        return self.replica.knows_leader

    @property
    def age(self) -> float:
        """Seconds since what is held was the newest there is; infinite for never."""
        return self.replica.age

    # -- whom to ask --------------------------------------------------------------------------------------------------

    def _pick(self) -> str:
        """Whom to ask. Raises `NoServers`, `RateExceeded`."""
        self._admit()
        address = self.servers.pick(self._loop.time())
        if not address:
            raise NoServers
        return address

    def _admit(self) -> None:
        """Servers are to be asked for something. Raises `RateExceeded`."""
        if not self._bucket.take(self._loop.time()):
            self._limited.add()
            raise RateExceeded
        self._calls.add()

    async def _ask(self, once: Callable[[str], Awaitable[T]]) -> T:
        deadline = self._loop.time() + self._config.performance.rpc_hold_timeout
        tries = 0
        while True:
            if not len(self.servers):
                await self._until_found(deadline)
            address = self._pick()
            tries += 1
            try:
                answer = await once(address)
                self._silent.discard(address)
                return answer
            except (Unreachable, Unsupported) as error:  # one that has just started does not know all calls yet
                self._failed(address, error)
                failure = str(error)
            except UNREADABLE as error:
                failure = f"{address}: its answer cannot be read: {error}"
            if self._loop.time() >= deadline:
                raise NoServers(f"rpc error making call: {failure}")
            if tries % max(1, len(self.servers)) == 0:
                await asyncio.sleep(PAUSE)

    async def _until_found(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._found.wait()
        except TimeoutError:
            raise NoServers from None

    def _whom(self) -> str:
        return self.servers.pick(self._loop.time())

    def _failed(self, address: str, error: Exception) -> None:
        self._metrics.counter("client.rpc.failed", server=address).add()
        if address not in self._silent:
            self._silent.add(address)
            log.warn("a server does not answer, asking another one", server=address, error=str(error))
        self.servers.failed(address, self._loop.time())


def _bucket(config: RuntimeConfig, now: float) -> Bucket:
    return Bucket(config.limits.rpc_rate, config.limits.rpc_max_burst, now)
