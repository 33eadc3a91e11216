"""The HTTP door's listeners and its connections."""

import asyncio
import contextlib
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from lictor.http.api import Api
from lictor.http.connection import Connection

if TYPE_CHECKING:
    from lictor.http.full import FullHandler


class HttpServer:
    """The listeners of one agent. Start any number of addresses, then `close`."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.requests = 0
        self.refused = 0
        self._connections: dict[Connection, None] = {}
        self._per_client: dict[str, int] = {}
        self._listeners: list[asyncio.AbstractServer] = []
        self._unix: list[Path] = []
        self._closed = False
        self._full: FullHandler | None = None
        self._writing = 0  # plain writes that are under way
        self._written: asyncio.Future[None] | None = None  # set once there are none, while the door closes
        self.addresses: list[str] = []

    # -- listeners ----------------------------------------------------------------------------------------------------

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen on an address; port 0 takes a free one. Returns the port. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self), host, port, ssl=tls, backlog=1024, reuse_address=True, start_serving=True
        )
        self._listeners.append(server)
        bound = int(server.sockets[0].getsockname()[1])
        shown = f"[{host}]" if ":" in host else host
        self.addresses.append(f"{'https' if tls else 'http'}://{shown}:{bound}")
        return bound

    async def listen_unix(self, path: Path, mode: int | None, owner: tuple[int, int] | None) -> None:
        """Listen on a unix socket; one left behind by an earlier run is replaced. Raises `OSError`."""
        if path.is_socket():
            path.unlink()
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Connection(self), str(path), backlog=1024)
        if mode is not None:
            os.chmod(path, mode)
        if owner is not None:
            os.chown(path, *owner)
        self._listeners.append(server)
        self._unix.append(path)
        self.addresses.append(f"unix://{path}")

    async def close(self, grace: float = 1.0) -> None:
        """Stop listening, then end the connections: those that wait at once, the others within `grace` seconds."""
        self._closed = True
        for server in self._listeners:
            server.close()
        self._listeners.clear()
        for path in self._unix:
            with contextlib.suppress(OSError):
                path.unlink()
        self._unix.clear()
        ends = [self._finish_writes(grace)]
        if self._full is not None:
            ends.append(self._full.close(grace))
        await asyncio.gather(*ends)
        for connection in list(self._connections):
            connection.close()
        self.api.freshness.confirmations.close()
        self.api.answers.clear()

    async def _finish_writes(self, grace: float) -> None:
        if self._writing:
            self._written = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._written

    def write_began(self) -> None:
        """A plain write is under way."""
        self._writing += 1

    def write_ended(self) -> None:
        """It has ended."""
        self._writing -= 1
        if not self._writing and self._written is not None and not self._written.done():
            self._written.set_result(None)

    # -- connections --------------------------------------------------------------------------------------------------

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; False where its client has as many as it may, and at the end, when one may still come
        that was on its way.
        """
        if self._closed:
            return False
        limit, peer = self.api.settings.max_connections_per_client, connection.peer
        count = self._per_client.get(peer, 0)
        if peer and limit and count >= limit:
            self.refused += 1
            return False
        self._per_client[peer] = count + 1
        self._connections[connection] = None
        return True

    def gone(self, connection: Connection) -> None:
        """Uncount a connection."""
        if self._connections.pop(connection, self) is None:
            left = self._per_client[connection.peer] - 1
            if left:
                self._per_client[connection.peer] = left
            else:
                del self._per_client[connection.peer]

    @property
    def open_connections(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    def inner(self) -> asyncio.Protocol:
        """A new handler of HTTP in full, for one connection."""
        if self._full is None:
            # aiohttp takes a quarter of an agent's start to import, and the first plain request does without it.
            from lictor.http.full import FullHandler

            self._full = FullHandler(self)
        return self._full.protocol()
