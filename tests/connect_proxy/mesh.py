"""Proxies on loopback sockets, with everything real but the agent: for the tests of what happens to bytes."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from lictor.agent.logs import logger
from lictor.connect_proxy.access_log import AccessLog
from lictor.connect_proxy.authorizing import Authorizer
from lictor.connect_proxy.certificates import Identity
from lictor.connect_proxy.endpoints import Endpoints, Target
from lictor.connect_proxy.idle import Idle
from lictor.connect_proxy.inbound import InboundListener
from lictor.connect_proxy.listener import bind
from lictor.connect_proxy.outbound import OutboundListener
from lictor.connect_proxy.passage import Deadlines
from lictor.connect_proxy.settings import Address, InboundSettings, OutboundSettings
from lictor.model.intention import Intention
from lictor.model.service import AccessLogs
from tests.connect_proxy.authority import Authority

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and its end after it."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def intention(source: str, action: str, precedence: int = 9) -> Intention:
    """An intention with an action."""
    return Intention(source_name=source, destination_name="web", action=action, precedence=precedence)


ALLOW_ALL = [intention("*", "allow", 8)]


class Mesh:
    """An authority, a service `web`, and proxies in front of it and of its clients. All is closed by `close`."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop)
        self.idle = Idle(self.loop)
        self.authority = Authority()
        self.connections = 0
        self.access = AccessLog(AccessLogs())
        self.chance = random.Random(1).random
        self._servers: list[asyncio.AbstractServer] = []
        self._listeners: list[InboundListener | OutboundListener] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._handlers: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Mesh:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End everything that was made."""
        for writer in self._writers:
            writer.transport.abort()
        for listener in self._listeners:
            await listener.drain(0)
        for server in self._servers:
            server.close()
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        self.deadlines.close()
        self.idle.close()
        await asyncio.sleep(0)

    async def service(self, handler: Handler = echo, path: str = "") -> Address:
        """A local service."""

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            task = asyncio.current_task()
            assert task is not None
            self._handlers.add(task)
            try:
                await handler(reader, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                self._handlers.discard(task)
                writer.close()

        if path:
            self._servers.append(await asyncio.start_unix_server(run, path))
            return Address(path=path)
        server = await asyncio.start_server(run, "127.0.0.1", 0)
        self._servers.append(server)
        return Address("127.0.0.1", server.sockets[0].getsockname()[1])

    async def inbound(
        self,
        target: Address,
        intentions: list[Intention] | None = None,
        *,
        service: str = "web",
        identity: Identity | None = None,
        access: AccessLog | None = None,
        clock: Callable[[], float] | None = None,
        **settings: Any,
    ) -> InboundListener:
        """A service's proxy, as what other proxies connect to. It lets everybody in unless told otherwise."""
        authorizer = Authorizer()
        authorizer.update(ALLOW_ALL if intentions is None else intentions, False)
        given = {"clock": clock} if clock is not None else {}
        listener = InboundListener(
            self.loop,
            self.deadlines,
            self.idle,
            service,
            InboundSettings(bind=Address("127.0.0.1", 0), target=target, **settings),
            identity or self.authority.identity(service),
            authorizer,
            logger("test"),
            access or self.access,
            **given,
        )
        listener.hold(bind(listener.address))
        await listener.serve()
        self._listeners.append(listener)
        return listener

    async def outbound(
        self,
        *targets: Target,
        service: str = "client",
        identity: Identity | None = None,
        path: str = "",
        access: AccessLog | None = None,
        **settings: Any,
    ) -> OutboundListener:
        """A client's proxy with the upstream `web` at some endpoints."""
        given = OutboundSettings(
            bind=Address(path=path) if path else Address("127.0.0.1", 0), name="web", datacenter="dc1", **settings
        )
        endpoints = Endpoints(self.chance, given.ejection)
        endpoints.update(targets)
        listener = OutboundListener(
            self.loop,
            self.deadlines,
            self.idle,
            service,
            given,
            identity or self.authority.identity(service),
            endpoints,
            logger("test"),
            access or self.access,
        )
        listener.hold(bind(listener.address, given.mode))
        await listener.serve()
        self._listeners.append(listener)
        return listener

    async def pair(self, handler: Handler = echo, **settings: Any) -> tuple[InboundListener, OutboundListener]:
        """A service and a client with a proxy each."""
        inbound = await self.inbound(await self.service(handler), **settings)
        return inbound, await self.outbound(target(inbound))

    async def connect(self, listener: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A plain connection to a listener."""
        if listener.address.path:
            reader, writer = await asyncio.open_unix_connection(listener.address.path)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", port(listener))
        self._writers.append(writer)
        return reader, writer

    async def connect_tls(
        self, listener: InboundListener, context: ssl.SSLContext
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a proxy with TLS, as another proxy makes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port(listener), ssl=context, server_hostname="")
        self._writers.append(writer)
        return reader, writer


async def both_ways(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
    through: Callable[[bytes], bytes] = bytes,
) -> None:
    """Be in the middle of a connection; what goes forward goes through a function. Ends with either of its ends."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, change: Callable[[bytes], bytes]) -> None:
        while data := await source.read(65536):
            sink.write(change(data))
            await sink.drain()
        sink.write_eof()

    pumps = [
        asyncio.ensure_future(pump(reader, far_writer, through)),
        asyncio.ensure_future(pump(far_reader, writer, bytes)),
    ]
    try:
        await asyncio.gather(*pumps)
    except (OSError, RuntimeError):
        pass  # an end is gone
    finally:
        for one in pumps:
            one.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


def port(listener: Any) -> int:
    """Where a listener listens."""
    sock: socket.socket = listener.sock
    return int(sock.getsockname()[1])


def target(listener: Any, service: str = "web", weight: int = 1) -> Target:
    """A listener as an endpoint."""
    return Target("127.0.0.1", port(listener), service, "dc1", weight)


async def say(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> bytes:
    """Write, and read as many bytes."""
    reader, writer = streams
    writer.write(data)
    return await reader.readexactly(len(data))


async def is_refused(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes = b"hello") -> bool:
    """Whether nothing comes back of what is written."""
    reader, writer = streams
    try:
        writer.write(data)
        return await reader.read(65536) == b""
    except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        return True
