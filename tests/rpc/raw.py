"""The other end of a connection by hand: peers that misbehave, and ways that fall silent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from lictor.rpc.frame import ALIVE, PREAMBLE, Frame, Reader, encode
from tests.rpc.networks import DEADLINE

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_TURNS = 10  # of the loop, within which a connection that is accepted already has its handler


class Peer:
    """A connection whose bytes are ours to choose."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = Reader()

    def write(self, *data: bytes) -> None:
        """Send bytes, unless the connection has ended."""
        if not self.writer.transport.is_closing():
            self.writer.write(b"".join(data))

    def write_end(self) -> None:
        """Send nothing more, unless the connection has ended."""
        if not self.writer.transport.is_closing():
            with contextlib.suppress(OSError):
                self.writer.write_eof()

    def frame(self, kind: int, number: int = 0, method: str = "", body: bytes = b"") -> None:
        """Send a frame."""
        self.write(*encode(kind, number, method, body))

    async def next(self) -> list[Frame]:
        """The frames that come next, signs of life left out."""
        async with asyncio.timeout(DEADLINE):
            while data := await self.reader.read(1 << 16):
                if got := [one for one in self.frames.feed(data) if one[0] != ALIVE]:
                    return got
        raise ConnectionError("the connection ended")

    async def ended(self) -> bool:
        """Wait for the other side to end the connection."""
        async with asyncio.timeout(DEADLINE):
            try:
                while await self.reader.read(1 << 16):
                    pass
            except OSError:
                pass  # uvloop's of a connection that is gone is no ConnectionError
        return True


@contextlib.asynccontextmanager
async def peer(address: str, begin: bytes = PREAMBLE) -> AsyncIterator[Peer]:
    """A connection to an agent."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(begin)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def peers(serve: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[str]:
    """The address of a server that does by hand what it does."""
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await serve(Peer(reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass  # the test is over
        finally:
            running.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        # No more are accepted; asyncio leaves a connection open that it has accepted when its server is closed.
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        server.close()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


class Way:
    """A proxy in between. `silent` lets nothing more through, in either direction, and ends nothing. `opened` counts
    connections, `open` those that there are.
    """

    def __init__(self) -> None:
        self.silent = False
        self.opened = 0
        self.open = 0


@contextlib.asynccontextmanager
async def way(to: str) -> AsyncIterator[tuple[str, Way]]:
    """A way to an address, and the address at which it begins."""
    made = Way()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (data := await reader.read(1 << 16)) or made.silent:
                if made.silent:
                    await asyncio.Event().wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        if not made.silent:
            writer.close()

    async def serve(near: Peer) -> None:
        made.opened += 1
        made.open += 1
        try:
            async with peer(to, b"") as far:
                await asyncio.gather(carry(near.reader, far.writer), carry(far.reader, near.writer))
        finally:
            made.open -= 1

    async with peers(serve) as address:
        yield address, made
