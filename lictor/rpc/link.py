"""The way to one address: at most one connection, made when it is needed, and made again after it broke.

After a failure the next attempt waits, longer each time and never exactly as long as another agent does. Messages wait
for a connection that is being made; while none is, nobody is there, and they are dropped.
"""

import asyncio
import errno
import os
import random
import socket
from collections.abc import Callable

from lictor.model.host_port import split_host_port
from lictor.model.seldom import Seldom
from lictor.model.transport import Unreachable
from lictor.rpc import frame
from lictor.rpc.connection import CLOSED, log
from lictor.rpc.limits import Limits
from lictor.rpc.outgoing import Outgoing
from lictor.rpc.security import CLOSED_THERE, TLS_THERE, Security, server_trouble

_PROVEN = 5.0  # seconds that a connection must have lived for the next attempt to come soon
_STOPPING = "this agent stops"


class Link:
    """The way to an address, secured as `security` says. `on_lost` is called when a connection that was there has
    broken. While it is `kept`, there is a connection also when nobody needs one.
    """

    def __init__(
        self,
        address: str,
        limits: Limits,
        chance: random.Random,
        on_lost: Callable[[str], None],
        security: Security,
        seldom: Seldom,
    ) -> None:
        self.address = address
        self.kept = False
        self.security = security
        self.connection: Outgoing | None = None
        self.limits = limits
        self._chance = chance
        self._on_lost = on_lost
        self._seldom = seldom
        self._loop = asyncio.get_running_loop()
        self._attempt: asyncio.Task[None] | None = None
        self._connecting = False  # and not waiting to
        self._callers: list[asyncio.Future[Outgoing]] = []
        self._messages: list[tuple[str, bytes]] = []
        self._messages_size = 0
        self._failures = 0
        self._not_before = 0.0
        self._since = 0.0  # when the connection was made
        self._used = True  # since the last beat
        self._used_at = self._loop.time()

    def send(self, method: str, body: bytes) -> bool:
        """Send a message, or drop it and return False. Raises `TooLarge`."""
        self._used = True
        connection = self.connection
        if connection is not None:
            return connection.send(method, body)
        self._begin()
        if not self._connecting:
            return False
        if self._messages and self._messages_size + len(body) > self.limits.waiting:
            return False
        self._messages.append((method, body))
        self._messages_size += len(body) + frame.OVERHEAD
        return True

    def at_hand(self) -> Outgoing | None:
        """The connection, if there is one with room for a call."""
        self._used = True
        connection = self.connection
        return connection if connection is not None and connection.has_room() else None

    async def ready(self) -> Outgoing:
        """The connection, once there is one with room. Raises `Unreachable` where the next attempt fails."""
        self._used = True
        connection = self.connection
        if connection is None:
            self._begin()
            caller: asyncio.Future[Outgoing] = self._loop.create_future()
            self._callers.append(caller)
            connection = await caller
        await connection.room()
        return connection

    def _begin(self) -> None:
        if self._attempt is None:
            pause = self._not_before - self._loop.time()
            self._connecting = pause <= 0
            self._attempt = self._loop.create_task(self._connect(pause))

    async def _connect(self, pause: float) -> None:
        if pause > 0:
            await asyncio.sleep(pause)
            self._connecting = True
        try:
            connection = await self._open()
        except (OSError, TimeoutError, ValueError, Unreachable) as error:
            self._failed(_reason(error, self.security.client_tls is not None) or "no answer in time")
        else:
            self._opened(connection)

    async def _open(self) -> Outgoing:
        host, port = split_host_port(self.address, 0)
        connected = await self._connected(host, port)
        tls = self.security.client_tls
        connection = Outgoing(self.address, self.limits, self._ended)
        try:
            await self._loop.create_connection(
                lambda: connection,
                sock=connected,
                ssl=tls,
                server_hostname=self.security.server_name if tls is not None else None,
                ssl_handshake_timeout=self.limits.setup if tls is not None else None,
            )
            async with asyncio.timeout(self.limits.setup):
                await connection.greeting
            if connection.closed:
                raise Unreachable(connection.closed)
        except BaseException as error:
            connection.abort(str(error) or "it took too long")
            raise
        return connection

    async def _connected(self, host: str, port: int) -> socket.socket:
        """A socket that is connected to the first of the host's addresses that takes it."""
        failure: Exception = OSError("it has no address")
        for family, kind, protocol, _, address in await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            connecting = socket.socket(family, kind, protocol)
            try:
                connecting.setblocking(False)
                async with asyncio.timeout(self.limits.connect):
                    await self._loop.sock_connect(connecting, address)
                return connecting
            except (OSError, TimeoutError) as error:
                connecting.close()
                failure = error
            except BaseException:
                connecting.close()
                raise
        raise failure

    def _opened(self, connection: Outgoing) -> None:
        log.debug("connected to %s", self.address)
        self._attempt, self._connecting = None, False
        self._since = self._loop.time()
        self.connection = connection
        messages, self._messages, self._messages_size = self._messages, [], 0
        for method, body in messages:
            connection.send(method, body)
        callers, self._callers = self._callers, []
        for caller in callers:
            if not caller.done():
                caller.set_result(connection)

    def _failed(self, reason: str) -> None:
        self._seldom.warning(f"{self.address} {reason}", "cannot connect to %s: %s", self.address, reason)
        self._retreat()
        self._drop(reason)

    def _retreat(self) -> None:
        """Let the next attempt wait."""
        pause = min(self.limits.retry * 2.0 ** min(self._failures, 16), self.limits.retry_most)
        self._failures += 1
        self._not_before = self._loop.time() + pause * self._chance.uniform(0.5, 1.0)

    def _drop(self, reason: str) -> None:
        """Nothing that waited for the attempt waits any more."""
        self._attempt, self._connecting = None, False
        self._messages, self._messages_size = [], 0
        callers, self._callers = self._callers, []
        for caller in callers:
            if not caller.done():
                caller.set_exception(Unreachable(f"cannot connect to {self.address}: {reason}"))
                caller.exception()  # its task may be cancelled before it looks

    def _ended(self, connection: Outgoing) -> None:
        if self.connection is not connection:
            return
        self.connection = None
        self._seldom.info(f"{self.address} lost", "lost the connection to %s: %s", self.address, connection.closed)
        if self._loop.time() - self._since >= _PROVEN:
            self._failures = 0
        self._retreat()
        self._on_lost(self.address)

    def beat(self) -> bool:
        """Called once a beat. Returns whether the link is still of use."""
        now = self._loop.time()
        connection = self.connection
        if self.kept and connection is None:
            self._begin()
        if self._used or self.kept or (connection is not None and connection.busy):
            self._used, self._used_at = False, now
        elif self._attempt is None and now - self._used_at > self._patience():
            if connection is not None:
                self.connection = None
                connection.close("nobody used it")
            return False
        if connection is not None:
            connection.beat()
        return True

    def _patience(self) -> float:
        return self.limits.idle if self.connection is not None else self.limits.forget

    @property
    def spare(self) -> float | None:
        """Since when nobody uses it, as a time of the loop; None while somebody does."""
        connection = self.connection
        if self.kept or self._callers or (connection is not None and connection.busy):
            return None
        return self._used_at if connection is not None else self._used_at - self.limits.idle

    def drop(self, reason: str) -> None:
        """Let go of it at once."""
        attempt, connection, self.connection = self._attempt, self.connection, None
        self._drop(reason)
        if attempt is not None:
            attempt.cancel()
        if connection is not None:
            connection.close(reason)

    async def close(self) -> None:
        """Drop what waits, and end the connection."""
        attempt, connection, self.connection = self._attempt, self.connection, None
        self._drop(_STOPPING)
        if attempt is not None:
            attempt.cancel()
            await asyncio.wait([attempt])
        if connection is not None:
            connection.close(_STOPPING)
            await connection.over


def _reason(error: Exception, tls: bool) -> str:
    """Why there is no connection, in few words; `tls`: whether it was to be secured."""
    trouble = server_trouble(error)
    if trouble:
        return trouble
    if str(error).endswith(frame.SPEAKS_TLS):
        return TLS_THERE
    if tls and str(error).endswith(CLOSED):
        return CLOSED_THERE
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)  # asyncio's own text hides it
    return str(error)
