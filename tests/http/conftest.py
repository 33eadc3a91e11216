"""An agent with its HTTP door open on a free port, in the test's own process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from lictor.agent.agent import Agent
from lictor.agent.config import load, parse_flags
from lictor.http.door import http_settings, open_door
from lictor.http.server import HttpServer
from tests.agent.processes import QUICK
from tests.patience import PATIENCE, soon
from tests.ports import free_port


class Door:
    """The door, with a client for it."""

    def __init__(self, agent: Agent, http: HttpServer, port: int, client: aiohttp.ClientSession) -> None:
        self.agent = agent
        self.http = http
        self.port = port
        self.client = client

    def url(self, path: str) -> str:
        """The whole address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of a GET."""
        return await self.call("GET", path, headers=headers)

    async def json(self, path: str) -> Any:
        """The JSON of a GET that must succeed."""
        async with self.client.get(self.url(path)) as response:
            assert response.status == 200, await response.text()
            return await response.json(content_type=None)

    async def put(self, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of a PUT; a body that is neither bytes nor text goes out as JSON."""
        data = {"data": body} if isinstance(body, bytes | str) or body is None else {"json": body}
        async with self.client.put(self.url(path), **data) as response:
            return response.status, await response.read()

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of any request."""
        async with self.client.request(method, self.url(path), **options) as response:
            return response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read()

    @contextlib.asynccontextmanager
    async def socket(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of one answer with a Content-Length from a bare connection."""
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head, await reader.readexactly(length)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds; fails with `what` was expected after a generous time."""
    await soon(condition, what)


@contextlib.asynccontextmanager
async def open_agent(*flags: str, before: Callable[[Agent], None] = lambda agent: None) -> AsyncIterator[Door]:
    """A `-dev` agent with further flags, its HTTP door open; `before` is called before it starts."""
    gossip = [f"-serf-lan-port={free_port()}", f"-serf-wan-port={free_port()}"]
    config, _ = load(
        parse_flags(["-dev", "-node=n1", "-bind=127.0.0.1", "-hcl", QUICK, *gossip, *flags]), [], [], "host"
    )
    agent = Agent(config)
    before(agent)
    await agent.start()
    http = open_door(agent, http_settings(config))
    port = await http.listen("127.0.0.1", 0)
    async with aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}) as client:
        try:
            yield Door(agent, http, port, client)
        finally:
            await http.close()
            await agent.close()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """A fresh agent and its door."""
    async with open_agent() as opened:
        yield opened
