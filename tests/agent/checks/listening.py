"""Servers that tests probe: anything that speaks over an asyncio stream, and ports where nobody listens."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from lictor.agent.checks.result import Result
from tests.ports import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A TCP server on loopback; yields its host:port. Connections are closed when the handler returns."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"{host}:{port}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A handler that reads until the other side is gone."""
    while await reader.read(65536):
        pass


@asynccontextmanager
async def closed_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> AsyncIterator[str]:
    """A host:port of loopback where connections are refused: bound, so that nobody else takes it, not listening.

    For datagrams a bound socket would swallow them, so there the port is one that nobody else takes either.
    """
    if kind == socket.SOCK_DGRAM:
        yield f"127.0.0.1:{free_port()}"
        return
    with socket.socket(socket.AF_INET, kind) as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


async def in_time(
    probe: Callable[[float], Awaitable[Result]], seconds: float, wanted: Callable[[Result], object]
) -> Result:
    """A result of a probe that has so many seconds. On a machine that stood still meanwhile it may have had too little
    for what comes before the end; then it has more, a few times."""
    for times in (1, 5, 25, 100):
        result = await probe(seconds * times)
        if wanted(result):
            break
    return result
