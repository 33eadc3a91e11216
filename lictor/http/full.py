"""HTTP in full, through aiohttp's own connection handler: bodies, pipelining, streams, and whatever is not plain."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from logging import Logger
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from lictor.agent.logs import logger
from lictor.http import answering, forwarding
from lictor.http.connection import Connection
from lictor.http.reply import Encoded, Reply, Stream, encode, text_reply
from lictor.http.request import Request
from lictor.http.routes import ACTION, READ, WRITE, Endpoint, ReadFunction
from lictor.model.errors import LictorError, NoLeader, TooLarge
from lictor.store.store import View
from lictor.store.watch import Topic

if TYPE_CHECKING:
    from lictor.agent.client import Client
    from lictor.http.api import Api, Reading
    from lictor.http.server import HttpServer

T = TypeVar("T")

log = logger("agent.http")
FOREVER = 10 * 365 * 86400.0  # aiohttp must not end idle connections: it does not see the requests answered before it
CHUNK = 64 * 1024
GONE_INTERVAL = 1.0  # seconds between two looks at whether the reader of a silent stream is still there


class _Protocol(RequestHandler):
    """aiohttp's connection handler, but for what it says of bytes that are no HTTP: it would repeat them, with the
    token that may be in them, in its answer and in the log.
    """

    api: "Api"

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Refuse what cannot be read, and close the connection."""
        log.debug("refused what is no HTTP request", remote=request.remote, problem=type(exc).__name__)
        if self.transport is not None:
            encoded = encode(text_reply("400 Bad Request", 400), self.api.common_head, close=True)
            self.transport.write(self.api.written(encoded))
        return _Sent(keep_alive=False)


class FullHandler:
    """Answers the requests of every connection that needs HTTP in full."""

    def __init__(self, server: "HttpServer") -> None:
        self.server = server
        self.api = server.api
        self._limit = self.api.settings.max_header_bytes
        self._web = web.Server(self._handle)

    def protocol(self) -> asyncio.Protocol:
        """A new handler for one connection. Bodies stay packed where they are: Consul does not look at their encoding
        either, and what a few packed bytes unpack to has no bound.
        """
        protocol = _Protocol(
            self._web,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=FOREVER,
            access_log=cast(Logger, None),  # what aiohttp takes for "none", whatever its annotation says
            max_line_size=self._limit,
            max_field_size=self._limit,
            auto_decompress=False,
        )
        protocol.api = self.api
        return cast(asyncio.Protocol, protocol)

    async def close(self, grace: float) -> None:
        """End every connection, the idle ones at once, the others within `grace` seconds."""
        self._web.pre_shutdown()  # ends those that wait for a request, which `shutdown` would give the whole grace
        await self._web.shutdown(grace)

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer a request that came by aiohttp's way, to its last byte."""
        self.server.requests += 1
        transport = http.transport
        connection = transport.get_protocol() if transport is not None else None
        try:
            response = await self._respond(http, connection.peer if isinstance(connection, Connection) else "")
        except ConnectionError:
            raise
        except web.RequestPayloadError:
            response = await self._send(http, text_reply("400 Bad Request: the body cannot be read", 400), close=True)
        except Exception as fault:
            response = await self._send(http, self.api.fault_reply(fault), close=True)
        finally:
            if isinstance(connection, Connection):
                connection.handled()
        return response

    async def _respond(self, http: web.BaseRequest, peer: str) -> web.StreamResponse:
        headers: dict[str, str] = {}
        for name, value in http.headers.items():
            headers.setdefault(name.lower(), value)
        try:
            request = Request(http.method, _origin_form(http.raw_path), headers, peer)
        except LictorError as error:
            return await self._send(http, self.api.error_reply(error))
        if request.clean_path != request.path:
            await self._drain(http)
            return await self._send(http, self.api.moved(request, request.clean_path))
        found = self.api.routes.find(request.path)
        if found is None:
            return await self._send(http, self.api.not_found(request))
        methods, values = found
        if http.method not in methods:
            await self._drain(http)
            return await self._send(http, self.api.not_allowed(list(methods), http.method))
        endpoint, names = methods[http.method]
        if self.api.settings.translate_wan_addrs:
            request.translate_for = self.api.agent.datacenter
        try:
            request.body = await self._body(http, endpoint)
        except LictorError as error:
            return await self._send(http, self.api.error_reply(error), close=True)
        client = self.api.agent.client
        elsewhere = self.api.elsewhere(endpoint, request)
        if client is not None and (endpoint.at_servers or elsewhere):
            return await self._at_servers(http, client, endpoint, names, values, request)
        if elsewhere:
            return await self._elsewhere(http, elsewhere, endpoint, request)
        if endpoint.kind in (ACTION, WRITE):
            work = self.api.act(endpoint, names, values, request)
            # What only reads may wait for minutes; what writes goes on where its client goes away.
            result = await self._while_there(http, work) if endpoint.method == "GET" else await work
            if result is None:
                return _Sent(keep_alive=False)
            if isinstance(result, Stream):
                return await self._stream(http, result)
            return await self._send(http, result)
        return await self._read(http, endpoint, names, values, request)

    async def _at_servers(
        self,
        http: web.BaseRequest,
        client: "Client",
        endpoint: Endpoint,
        names: tuple[str, ...],
        values: list[str],
        request: Request,
    ) -> web.StreamResponse:
        """Answer from what this agent holds of the servers' state, or have a server answer."""
        looks_at: Callable[[], tuple[Topic, ...]] | None = None
        try:
            elsewhere = bool(self.api.elsewhere(endpoint, request))
            if elsewhere:
                self.api.guard(request)
            else:
                self.api.admit(endpoint, names, values, request)
            held = endpoint.cacheable and self.api.settings.use_cache
            if endpoint.kind == READ and not elsewhere and (held or request.index or client.active):
                reading = self.api.prepare(endpoint, names, values, request)
                here = client.covers(reading.looks_at())
                if here or ((held or request.index) and await client.hold(reading.looks_at)):
                    return await self._answer(http, reading)
            if endpoint.streamed:
                return await self._stream(http, await forwarding.forward_stream(self.api, client, request))
            if endpoint.held is not None and not elsewhere:
                looks_at = partial(self._looked_at, endpoint.held(self.api, request))
                client.hold_soon(looks_at)
            work = forwarding.forward(self.api, client, request)
            # What writes goes on where its client goes away, as it does at a server.
            encoded = await (self._while_there(http, work) if endpoint.kind == READ else work)
        except NoLeader as error:
            if looks_at is None or not client.covers(looks_at()):
                return await self._send(http, self.api.error_reply(error))
            done = await self.api.act(endpoint, names, values, request)
            return await self._send(http, done) if isinstance(done, Reply) else _Sent(keep_alive=False)
        except LictorError as error:
            return await self._send(http, self.api.error_reply(error))
        return await self._send_encoded(http, encoded) if encoded is not None else _Sent(keep_alive=False)

    def _looked_at(self, function: ReadFunction) -> tuple[Topic, ...]:
        """What a read looks at, as things are."""
        view = View(self.api.agent.store)
        with contextlib.suppress(LictorError):  # what is not there yet may be what it misses
            function(view)
        return tuple(view.seen)

    async def _elsewhere(
        self, http: web.BaseRequest, datacenter: str, endpoint: Endpoint, request: Request
    ) -> web.StreamResponse:
        """Have another datacenter answer."""
        try:
            if endpoint.streamed:
                pieces = forwarding.stream_elsewhere(self.api, datacenter, request)
                return await self._stream(http, await forwarding.streamed(pieces))
            work = forwarding.forward_elsewhere(self.api, datacenter, request)
            # What writes goes on where its client goes away.
            encoded = await (self._while_there(http, work) if endpoint.method == "GET" else work)
        except LictorError as error:
            return await self._send(http, self.api.error_reply(error))
        return await self._send_encoded(http, encoded) if encoded is not None else _Sent(keep_alive=False)

    async def _while_there(self, http: web.BaseRequest, work: Coroutine[Any, Any, T]) -> T | None:
        """What a task comes to; None, and its end, once the client has gone, for whom it might wait for minutes."""
        connection = http.transport.get_protocol() if http.transport is not None else None
        if not isinstance(connection, Connection):
            work.close()
            return None
        task = asyncio.ensure_future(work)

        def give_up() -> None:
            task.cancel()

        connection.when_lost = give_up
        try:
            await asyncio.wait((task,))
        finally:
            connection.when_lost = None
            task.cancel()
        return None if task.cancelled() else task.result()

    async def _read(
        self, http: web.BaseRequest, endpoint: Endpoint, names: tuple[str, ...], values: list[str], request: Request
    ) -> web.StreamResponse:
        try:
            return await self._answer(http, self.api.prepare(endpoint, names, values, request))
        except LictorError as error:
            return await self._send(http, self.api.error_reply(error))

    async def _answer(self, http: web.BaseRequest, reading: "Reading") -> web.StreamResponse:
        """Answer a read from the own store. Raises `LictorError`."""
        connection = http.transport.get_protocol() if http.transport is not None else None
        if not isinstance(connection, Connection):
            return _Sent(keep_alive=False)
        encoded = await answering.answer(reading, connection)
        if encoded is None:
            return _Sent(keep_alive=False)
        return await self._send_encoded(http, encoded)

    async def _body(self, http: web.BaseRequest, endpoint: Endpoint) -> bytes:
        limit = self.api.body_limit(endpoint)
        length = http.content_length
        if length is not None and length > limit:
            raise TooLarge(_too_large(f"({length} bytes)", limit, endpoint))
        parts, size = [], 0
        async for part in http.content.iter_chunked(CHUNK):
            size += len(part)
            if size > limit:
                raise TooLarge(_too_large("", limit, endpoint))
            parts.append(part)
        return b"".join(parts)

    async def _drain(self, http: web.BaseRequest) -> None:
        size = 0
        async for part in http.content.iter_chunked(CHUNK):
            size += len(part)
            if size > CHUNK * 16:
                return

    async def _send(self, http: web.BaseRequest, reply: Reply, *, close: bool = False) -> web.StreamResponse:
        gzip = "gzip" in http.headers.get("Accept-Encoding", "")
        encoded = encode(
            reply,
            self.api.common_head,
            gzip=gzip,
            head_only=http.method == "HEAD",
            close=close or not http.keep_alive,
        )
        return await self._send_encoded(http, encoded, close=close)

    async def _send_encoded(
        self, http: web.BaseRequest, encoded: Encoded, *, close: bool = False
    ) -> web.StreamResponse:
        """Write finished bytes past aiohttp's own response writer, which then has nothing left to send."""
        transport = http.transport
        response = _Sent(keep_alive=http.keep_alive and not close)
        if transport is not None:
            transport.write(self.api.written(encoded))
            connection = transport.get_protocol()
            if isinstance(connection, Connection):
                await connection.drained()
        return response

    async def _stream(self, http: web.BaseRequest, stream: Stream) -> web.StreamResponse:
        response = web.StreamResponse(headers=dict((*stream.headers, *self.api.settings.response_headers)))
        response.content_type, _, charset = stream.content_type.partition("; charset=")
        if charset:
            response.charset = charset
        await response.prepare(http)
        pieces = stream.pieces
        following: asyncio.Task[bytes] | None = None
        try:
            while True:
                following = asyncio.ensure_future(anext(pieces))
                # Whoever is gone is noticed although there is nothing to write.
                while not (await asyncio.wait((following,), timeout=GONE_INTERVAL))[0]:
                    if http.transport is None or http.transport.is_closing():
                        raise ConnectionResetError
                await response.write(following.result())
        except StopAsyncIteration:
            await response.write_eof()
        except ConnectionError:
            response.force_close()
        finally:
            if following is not None and not following.done():
                following.cancel()
                await asyncio.wait((following,))
            close = cast(Callable[[], Awaitable[Any]] | None, getattr(pieces, "aclose", None))
            if close is not None:
                await close()
        return response


class _Sent(web.StreamResponse):
    """A response whose bytes have been written already."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        return self._keep

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to prepare."""
        return

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""
        return


_DOCUMENTED = {"kv_max_value": "kv_max_value_size", "txn_max_body": "txn_max_req_len"}


def _too_large(size: str, limit: int, endpoint: Endpoint) -> str:
    text = f"Request body{size} too large, max size: {limit} bytes."
    setting = _DOCUMENTED.get(str(endpoint.body_limit))
    return f"{text} See https://www.consul.io/docs/agent/options.html#{setting}." if setting else text


def _origin_form(target: str) -> str:
    """A target without scheme and host, which a client sends that takes this for a proxy (RFC 9112, 3.2.2)."""
    scheme, found, rest = target.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        return target
    path = rest[len(rest.split("/", 1)[0].split("?", 1)[0]) :]
    return path if path.startswith("/") else "/" + path
