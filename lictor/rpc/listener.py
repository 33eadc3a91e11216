"""The side that is called: sockets that listen, and the connections that came in, bounded in number.

Where certificates are there but nobody has to show one, plain connections are taken beside those with TLS, so that a
cluster can be moved to TLS one agent at a time; the first byte tells which it is.
"""

import asyncio
import errno
import socket
from collections import Counter
from functools import partial

from lictor.model.host_port import join_host_port
from lictor.rpc.connection import log
from lictor.rpc.handlers import Handlers
from lictor.rpc.incoming import Incoming
from lictor.rpc.limits import Limits
from lictor.rpc.security import Security

_BACKLOG = 512
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_PAUSE = 1.0  # seconds
_COMPLAINT_PAUSE = 10.0  # seconds between two lines about strangers
_TLS_HANDSHAKE = b"\x16"  # the first byte of a TLS connection (RFC 8446, section 5.1)


class Listener:
    """Accepts connections, secured as `security` says, and hands what comes over them to the handlers."""

    def __init__(self, limits: Limits, handlers: Handlers, security: Security) -> None:
        self.security = security
        self.limits = limits
        self._handlers = handlers
        self._loop = asyncio.get_running_loop()
        self._listening: list[tuple[asyncio.Task[None], socket.socket]] = []
        self._serving: dict[asyncio.Task[None], Incoming] = {}
        self._hosts: Counter[str] = Counter()
        self._held = 0
        self._complain_after = 0.0

    async def listen(self, host: str, port: int) -> int:
        """Listen on an address as well. Port 0 takes a free one; returns the port. Raises OSError."""
        infos = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = infos[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setblocking(False)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        self._listening.append((self._loop.create_task(self._accept(listening)), listening))
        bound: int = listening.getsockname()[1]
        return bound

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, address = await self._loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    log.error("cannot accept connections between agents: %s", error.strerror)
                # Other errors are those of one connection, gone before it was taken.
                await asyncio.sleep(_EXHAUSTED_PAUSE if error.errno in _EXHAUSTED else 0)
                continue
            host, caller = address[0], join_host_port(address[0], address[1])
            if len(self._serving) >= self.limits.incoming:
                accepted.close()
                self._complain(caller, f"there are {self.limits.incoming} connections already")
            elif self._hosts[host] >= self.limits.incoming_per_host:
                accepted.close()
                self._complain(caller, f"it has {self.limits.incoming_per_host} connections already")
            else:
                self._hosts[host] += 1
                connection = Incoming(caller, self.limits, self._handlers, self.security.required_name, self._count)
                task = self._loop.create_task(self._serve(connection, accepted, caller))
                self._serving[task] = connection
                task.add_done_callback(partial(self._served, host))

    def _served(self, host: str, task: asyncio.Task[None]) -> None:
        del self._serving[task]
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]

    async def _serve(self, connection: Incoming, accepted: socket.socket, caller: str) -> None:
        """See a connection through from its first byte to its last."""
        tls = self.security.server_tls
        try:
            if tls is not None and self.security.plain_too and not await self._begins_tls(accepted):
                tls = None
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=tls,
                ssl_handshake_timeout=self.limits.setup if tls is not None else None,
            )
        except TimeoutError:
            self._complain(caller, "it did not say what it is in time")
        except OSError as error:
            self._complain(caller, str(error))
        else:
            await connection.over
            if connection.cut_off:
                self._complain(caller, connection.closed)

    async def _begins_tls(self, accepted: socket.socket) -> bool:
        """Whether the first byte that comes is TLS's. It stays to be read. Raises OSError and TimeoutError."""
        readable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(accepted.fileno(), _settle, readable)
        begins: bool | None = None
        try:
            async with asyncio.timeout(self.limits.setup):
                await readable
            begins = accepted.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE
            return begins
        finally:
            self._loop.remove_reader(accepted.fileno())
            if begins is None:
                accepted.close()  # from the next step on it is the loop's to close

    def _complain(self, address: str, reason: str) -> None:
        """Log that a connection was ended on purpose, but not for each one of a flood."""
        now = self._loop.time()
        if now >= self._complain_after:
            self._complain_after = now + _COMPLAINT_PAUSE
            log.warning("ended a connection from %s: %s", address, reason)

    def _count(self, more: int) -> None:
        """Keep what all connections hold of unfinished frames within its bound: the one that holds most is ended."""
        self._held += more
        if self._held > self.limits.partial:
            largest = max(self._serving.values(), key=lambda connection: connection.held)
            largest.abort("all connections together hold too much that is not finished")

    def beat(self) -> None:
        """Called once a beat."""
        for connection in list(self._serving.values()):
            connection.beat()

    async def close(self) -> None:
        """Listen no more, and end all connections and what they run."""
        tasks = [task for task, _ in self._listening]
        for task, listening in self._listening:
            task.cancel()
            listening.close()
        self._listening.clear()
        for serving, connection in self._serving.items():
            tasks += [serving, *connection.tasks]
            if connection.connected:
                connection.close("this agent stops")
            else:
                serving.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _settle(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
