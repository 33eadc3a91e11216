"""An HTTP client that knows what it does not know: whether a request that failed was ever sent.

Ready-made clients repeat a request whose connection broke, or do not tell a refused connection from a lost answer. A
history would be false by either: a repeated compare-and-set refuses itself.
"""

import asyncio
from typing import Final

import msgspec

from jepsen.programs import HTTP_PORT

_MAX_ANSWER: Final = 64 * 1024 * 1024


class NotSent(Exception):
    """The request did not reach the server, so it has no effect."""


class Lost(Exception):
    """The request was sent and there is no answer: it may have taken effect, or may still do so."""


class Answer(msgspec.Struct, frozen=True):
    """What a server answered. The names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def usable(self) -> bool:
        return not self.reader.at_eof() and self.reader.exception() is None and not self.writer.is_closing()

    def close(self) -> None:
        self.writer.transport.abort()


class Client:
    """One client's connections, one an address, kept open. One request at a time to an address."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._connections: dict[str, _Connection] = {}

    async def ask(
        self, address: str, method: str, path: str, body: bytes = b"", timeout: float | None = None
    ) -> Answer:
        """Send a request and return its answer, whatever its status. Raises `NotSent` and `Lost`."""
        seconds = timeout or self._timeout
        deadline = asyncio.get_running_loop().time() + seconds
        connection = self._connections.pop(address, None)
        if connection is None or not connection.usable:
            connection = await self._connect(address, deadline)
        head = f"{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            async with asyncio.timeout_at(deadline):
                connection.writer.write(head.encode() + body)
                await connection.writer.drain()
                answer = await _read(connection.reader)
        except TimeoutError:
            connection.close()
            raise Lost(f"no answer within {seconds:g} s") from None
        except (OSError, EOFError, ValueError) as error:
            connection.close()
            raise Lost(str(error) or type(error).__name__) from None
        except asyncio.CancelledError:
            connection.close()
            raise
        if answer.headers.get("connection", "").lower() == "close":
            connection.close()
        else:
            self._connections[address] = connection
        return answer

    async def _connect(self, address: str, deadline: float) -> _Connection:
        try:
            async with asyncio.timeout_at(deadline):
                return _Connection(*await asyncio.open_connection(address, HTTP_PORT, limit=_MAX_ANSWER))
        except TimeoutError:
            raise NotSent("no connection in time") from None
        except OSError as error:
            raise NotSent(error.strerror or str(error)) from None

    def close(self) -> None:
        """Drop every connection."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


async def _read(reader: asyncio.StreamReader) -> Answer:
    """Read an answer. Raises `ValueError` for what is none, and `EOFError` where it ends early."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ", 2)[1])
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        pieces = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            pieces.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return Answer(status, headers, b"".join(pieces))
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= _MAX_ANSWER:
        raise ValueError(f"an answer of {length} bytes")
    return Answer(status, headers, await reader.readexactly(length))
