"""The network between agents as it is: connections over TCP, with TLS where contexts for it are given."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from lictor.model.errors import TooLarge
from lictor.model.seldom import Seldom
from lictor.model.transport import OnCall, OnMessage, OnStream, Transport, Unreachable
from lictor.rpc import frame
from lictor.rpc.connection import log
from lictor.rpc.frame import CALL, MESSAGE, STREAM
from lictor.rpc.handlers import Handlers
from lictor.rpc.limits import Limits
from lictor.rpc.link import Link
from lictor.rpc.listener import Listener
from lictor.rpc.security import Security

_REPEATED = 60.0  # seconds between two lines about the same trouble with an address


class Network(Transport):
    """Connections to other agents, and from them. Made on a running loop; handlers must be there before `listen`."""

    def __init__(
        self, chance: random.Random, *, security: Security | None = None, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self._longest = frame.longest_body(self.limits.frame)
        self._chance = chance
        self._security = security or Security()
        self._loop = asyncio.get_running_loop()
        self._handlers = Handlers()
        self._listener = Listener(self.limits, self._handlers, self._security)
        self._links: dict[str, Link] = {}
        self._kept: frozenset[str] = frozenset()
        self._seldom = Seldom(log, self._loop.time, _REPEATED)
        self._lost: list[Callable[[str], None]] = []
        self._closed = False
        self._beat = self._loop.call_later(self.limits.beat, self._on_beat)

    def configure(self, security: Security, limits: Limits) -> None:
        """Make and take connections in another way from now on; those that there are stay as they are."""
        self.limits = self._listener.limits = limits
        self._longest = frame.longest_body(limits.frame)
        self._security = self._listener.security = security
        for link in self._links.values():
            link.limits, link.security = limits, security

    # What comes

    def on_message(self, method: str, handler: OnMessage, *, agents: bool = False) -> None:
        """Have messages of a method handled. The handler must be quick: it runs as the bytes arrive. Without `agents`
        only servers may send them.
        """
        self._handlers.messages[method] = handler
        self._handlers.admit(MESSAGE, method, agents)

    def on_call(self, method: str, handler: OnCall, *, agents: bool = False) -> None:
        """Have calls of a method answered. What it raises of `LictorError` is raised again at the caller. Without
        `agents` only servers may call.
        """
        self._handlers.calls[method] = handler
        self._handlers.admit(CALL, method, agents)

    def on_stream(self, method: str, handler: OnStream, *, agents: bool = False) -> None:
        """Have streams of a method answered, until the handler ends or the caller goes away. Without `agents` only
        servers may ask for them.
        """
        self._handlers.streams[method] = handler
        self._handlers.admit(STREAM, method, agents)

    def on_lost(self, told: Callable[[str], None]) -> None:
        """Have it told, with the address, when a connection that this side made has broken."""
        self._lost.append(told)

    async def listen(self, host: str, port: int) -> int:
        """Accept connections at an address, with port 0 at any that is free. Returns the port. Raises OSError."""
        return await self._listener.listen(host, port)

    # What goes

    def send(self, address: str, method: str, body: bytes) -> bool:
        """Send a message. Returns False where it was dropped: nobody is there, too much is on its way already, or no
        frame can hold it. The first to an address begins to connect, and waits for the connection.
        """
        link = self._links.get(address)
        if link is None:
            if self._closed:
                return False
            link = self._link(address)
        if len(body) > self._longest:
            self._seldom.error(
                "long", "a message of %d bytes to %s was dropped: at most %d fit", len(body), address, self._longest
            )
            return False
        return link.send(method, body)

    async def call(self, address: str, method: str, body: bytes, timeout: float) -> bytes:
        """Call, and return the answer. `timeout` is in seconds. Raises `Unreachable` and the callee's `LictorError`;
        `TooLarge` for what no frame can hold.
        """
        self._check(body)
        deadline = self._loop.time() + timeout
        link = self._link(address)
        connection = link.at_hand()
        if connection is None:
            try:
                async with asyncio.timeout_at(deadline):
                    connection = await link.ready()
            except TimeoutError:
                raise Unreachable(f"{address}: no connection with room for {method} within {timeout:g} s") from None
        return await connection.call(method, body, deadline)

    async def stream(self, address: str, method: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """Ask for a stream. Iterating raises `Unreachable` where it breaks off, and the callee's `LictorError`;
        `TooLarge` for what no frame can hold.
        """
        self._check(body)
        connection = await self._link(address).ready()
        async with aclosing(connection.stream(method, body)) as pieces:
            async for piece in pieces:
                yield piece

    def _check(self, body: bytes) -> None:
        """Raise `TooLarge` before waiting for a connection in vain."""
        if len(body) > self._longest:
            raise TooLarge(f"{len(body)} bytes are too many for one call between agents: {self._longest} are allowed")

    def _link(self, address: str) -> Link:
        link = self._links.get(address)
        if link is None:
            if self._closed:
                raise Unreachable(f"{address}: this agent stops")
            if len(self._links) >= self.limits.outgoing:
                self._make_room()
            link = Link(address, self.limits, self._chance, self._tell, self._security, self._seldom)
            self._links[address] = link
        return link

    def _make_room(self) -> None:
        """Let go of the address that nobody used for longest, those without a connection first."""
        spare = {address: since for address, link in self._links.items() if (since := link.spare) is not None}
        if spare:
            self._links.pop(min(spare, key=lambda address: spare[address])).drop("others are needed more")

    def keep(self, addresses: Iterable[str]) -> None:
        """Have connections to these addresses, and no others, also while nobody needs them. They are made again when
        they break, so that the next call need not wait for that.
        """
        if self._closed:
            return
        self._kept = frozenset(addresses)
        for address, link in self._links.items():
            link.kept = address in self._kept
        for address in sorted(self._kept):
            link = self._link(address)
            link.kept = True
            link.beat()

    def is_up(self, address: str) -> bool:
        """Whether there is a connection to an address, from which nothing is missing that should have been heard.

        Where calls wait, a server that is dead, or does not run on, is noticed within about six beats (see `Limits`),
        otherwise within nine; calls that wait fail with `Unreachable` then.
        """
        link = self._links.get(address)
        return link is not None and link.connection is not None

    def _tell(self, address: str) -> None:
        for told in self._lost:
            try:
                told(address)
            except Exception:
                log.exception("what was to be told of the lost connection to %s failed", address)

    # Its life

    def _on_beat(self) -> None:
        self._beat = self._loop.call_later(self.limits.beat, self._on_beat)
        for address, link in list(self._links.items()):
            if not link.beat():
                del self._links[address]
        self._listener.beat()

    async def close(self) -> None:
        """End all connections. What waits for an answer fails with `Unreachable`."""
        self._closed = True
        self._beat.cancel()
        links, self._links = self._links, {}
        await asyncio.gather(self._listener.close(), *(link.close() for link in links.values()))
