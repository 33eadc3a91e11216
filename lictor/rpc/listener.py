"""The side that is called: sockets that listen, and the connections that came in, bounded in number.

Where certificates are there but nobody has to show one, plain connections are taken beside those with TLS, so that a
cluster can be moved to TLS one agent at a time; the first byte tells which it is.
"""

import asyncio
import errno
import socket
from collections import Counter
from functools import partial

from lictor.model.host_port import join_host_port, split_host_port
from lictor.model.seldom import Seldom
from lictor.rpc import frame
from lictor.rpc.connection import log
from lictor.rpc.handlers import Handlers
from lictor.rpc.incoming import Incoming
from lictor.rpc.limits import Limits
from lictor.rpc.security import NO_TLS_FROM_CALLER, TLS_FROM_CALLER, Security, caller_trouble

_BACKLOG = 512
_FIRST = 64 * 1024  # bytes
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_PAUSE = 1.0  # seconds
_TLS_HANDSHAKE = b"\x16"  # the first byte of a TLS connection (RFC 8446, section 5.1)
_NO_TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"  # a fatal one, protocol_version (section 6): by it a caller sees TLS


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
        self._taken = 0
        self._owing: list[Incoming] = []
        self._beats = 0  # since all were looked at
        self._seldom = Seldom(log, self._loop.time)

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
                    self._seldom.error("exhausted", "cannot accept connections between agents: %s", error.strerror)
                # Other errors are those of one connection, gone before it was taken.
                await asyncio.sleep(_EXHAUSTED_PAUSE if error.errno in _EXHAUSTED else 0)
                continue
            host, caller = address[0], join_host_port(address[0], address[1])
            if len(self._serving) >= self.limits.incoming:
                accepted.close()
                self._complain(caller, f"there are {self.limits.incoming} connections already", "number")
            elif self._hosts[host] >= self.limits.incoming_per_host:
                accepted.close()
                self._complain(caller, f"it has {self.limits.incoming_per_host} connections already", "number")
            else:
                self._hosts[host] += 1
                connection = Incoming(caller, self.limits, self._handlers, self.security.required_name, self)
                task = self._loop.create_task(self._serve(connection, accepted, caller))
                self._serving[task] = connection
                task.add_done_callback(partial(self._served, host, accepted))

    def _served(self, host: str, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        accepted.close()  # it is, but where the task was ended before it began
        del self._serving[task]
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]

    async def _serve(self, connection: Incoming, accepted: socket.socket, caller: str) -> None:
        """See a connection through from its first byte to its last."""
        tls = self.security.server_tls
        try:
            if tls is not None and not await self._begins_tls(accepted):
                if not self.security.plain_too:
                    self._turn_away(accepted, caller)
                    return
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
            self._complain(caller, caller_trouble(error), "tls" if tls is not None else "")
        else:
            await connection.over
            if connection.closed == frame.SPEAKS_TLS:
                self._complain(caller, TLS_FROM_CALLER, "tls")
            elif connection.cut_off:
                self._complain(caller, connection.closed)

    def _turn_away(self, accepted: socket.socket, caller: str) -> None:
        """End a connection that does not begin with TLS, and let the other side see why."""
        try:
            accepted.send(_NO_TLS_ALERT)
            accepted.recv(_FIRST)  # what is not taken would end the connection before the alert is read
        except OSError:
            pass
        accepted.close()
        self._complain(caller, NO_TLS_FROM_CALLER, "tls")

    async def _begins_tls(self, accepted: socket.socket) -> bool:
        """Whether the first byte that comes is TLS's. It stays to be read. Raises OSError and TimeoutError."""
        readable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(accepted.fileno(), _settle, readable)
        begins: bool | None = None
        try:
            async with asyncio.timeout(self.limits.setup):
                await readable
            # Who says nothing and goes is no mistake of anybody's.
            begins = accepted.recv(1, socket.MSG_PEEK) in (_TLS_HANDSHAKE, b"")
            return begins
        finally:
            self._loop.remove_reader(accepted.fileno())
            if begins is None:
                accepted.close()  # from the next step on it is the loop's to close

    def _complain(self, address: str, reason: str, cause: str = "") -> None:
        """Log that a connection was ended on purpose, but not for each one of a flood."""
        self._seldom.warning(cause, "ended a connection from %s: %s", address, reason)

    # -- what the connections have in common

    def hold(self, more: int) -> None:
        """Keep what all connections hold of unfinished frames within its bound."""
        self._held += more
        while self._held > self.limits.partial:
            self._worst().abort("all connections together hold too much that is not finished")

    def _worst(self) -> Incoming:
        """Whose unfinished frame is to go: of those that have not shown that they are servers, if there are any, of the
        host that holds most for longest.
        """
        now = self._loop.time()
        holding = [connection for connection in self._serving.values() if connection.held]
        holding = [connection for connection in holding if not connection.trusted] or holding
        weights = {connection: connection.held * (1.0 + now - connection.held_since) for connection in holding}
        hosts: dict[str, float] = {}
        for connection, weight in weights.items():
            name = split_host_port(connection.peer, 0)[0]
            hosts[name] = hosts.get(name, 0.0) + weight
        host = max(hosts, key=lambda name: hosts[name])
        return max(
            (connection for connection in holding if split_host_port(connection.peer, 0)[0] == host),
            key=lambda connection: weights[connection],
        )

    def take(self, size: int) -> bool:
        """Room for a question, or an answer that waits; False where there is none."""
        if self._taken and self._taken + size > self.limits.asked:
            return False
        self._taken += size
        return True

    def give(self, size: int) -> None:
        """What was taken is not needed any more."""
        self._taken -= size

    def owe(self, connection: Incoming) -> None:
        """A connection owes its caller a sign of life with the next beat."""
        self._owing.append(connection)

    def failed(self, method: str, caller: str, error: Exception) -> None:
        """A handler failed in a way that nobody foresaw."""
        self._seldom.error(method, "the handler of %s failed for %s", method, caller, exc_info=error)

    def beat(self) -> None:
        """Called once a beat. All connections are looked at only now and then: there may be thousands, of which most
        say nothing.
        """
        owing, self._owing = self._owing, []
        for connection in owing:
            connection.sign()
        limits = self.limits
        self._beats += 1
        if self._beats >= limits.idle_beats + 2 * limits.silent_beats:
            for connection in list(self._serving.values()):
                if connection.heard:
                    connection.heard = False
                elif connection.greeted:
                    connection.abort(f"nothing was heard of it for {limits.beat * self._beats:g} s")
            self._beats = 0

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
