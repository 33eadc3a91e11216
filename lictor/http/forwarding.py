"""Requests between doors: a client agent passes on what it does not answer itself, and a server answers it.

What comes back are the bytes of the answer, but for what every answer of an agent has by its own configuration, and the
date. So the agent that was asked neither reads nor makes anything; it puts the parts together.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from lictor.agent.forwarding import (
    PASSED_ON,
    REQUEST,
    STREAM,
    Answered,
    Asked,
    Block,
    block,
    decode_answered,
    decode_asked,
    encode,
)
from lictor.http import answering
from lictor.http.freshness import AGE
from lictor.http.reply import Encoded, Reply, Stream
from lictor.http.reply import encode as encode_reply
from lictor.http.request import Request
from lictor.http.routes import READ, Endpoint
from lictor.http.translating import translated
from lictor.model.errors import InvalidRequest, LictorError, NoLeader, NoPath, Refused
from lictor.model.transport import UNREADABLE, Caller, Transport
from lictor.server.datacenters import Datacenters, Origin

if TYPE_CHECKING:
    from lictor.agent.client import Client
    from lictor.http.api import Api

_DATE = b"Date: "
_NO_LEADER = str(NoLeader()).encode()


class _Away:
    """Whoever asked by way of another agent: when they go away, the task that answers them is cancelled."""

    when_lost: Callable[[], None] | None = None


# -- the agent that was asked -----------------------------------------------------------------------------------------


def asked(request: Request, node: str) -> Asked:
    """A request as it is passed on."""
    target = f"{request.raw_path}?{request.raw_query}" if request.raw_query else request.raw_path
    headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
    return Asked(request.method, target, headers, request.peer, node, request.body, translate=request.translate_for)


async def forward(api: "Api", client: "Client", request: Request) -> Encoded:
    """A server's answer. Raises `LictorError` where there is none."""
    answered = await client.request(asked(request, api.agent.node_name), _patience(api, request))
    if request.method not in ("GET", "HEAD"):
        await client.reach(answered.index)  # whoever has written reads it here
    return _joined(api, answered)


async def forward_elsewhere(api: "Api", datacenter: str, request: Request) -> Encoded:
    """The answer of another datacenter, asked by this server. Raises `LictorError` where there is none."""
    api.guard(request)
    return _joined(api, await _asked_elsewhere(api, datacenter, asked(request, api.agent.node_name), request))


async def _asked_elsewhere(api: "Api", datacenter: str, found: Asked, request: Request) -> Answered:
    wan = api.agent.wan
    if wan is None:
        raise NoPath
    timeout = _patience(api, request) + api.agent.config.limits.rpc_client_timeout
    try:
        return decode_answered(await wan.request(datacenter, found, timeout))
    except UNREADABLE as error:
        raise Refused(f"rpc error making call: the answer of datacenter {datacenter} cannot be read: {error}") from None


def _patience(api: "Api", request: Request) -> float:
    """How long a request may have to wait for its answer where it is answered, in seconds."""
    if not request.index:
        return 0.0
    wait, settings = request.wait, api.settings
    return 2 * (min(wait, settings.wait_max) if wait else settings.wait_default)


def stream_elsewhere(api: "Api", datacenter: str, request: Request) -> AsyncGenerator[bytes, None]:
    """The pieces of another datacenter's answer, the first of them its head. Raises `LictorError`."""
    api.guard(request)
    wan = api.agent.wan
    if wan is None:
        raise NoPath
    return wan.datacenters.stream(datacenter, STREAM, encode(asked(request, api.agent.node_name)))


async def forward_stream(api: "Api", client: "Client", request: Request) -> Stream:
    """A server's answer that comes a piece at a time. Raises `LictorError` where it has not begun."""
    return await streamed(client.stream(asked(request, api.agent.node_name)))


async def streamed(pieces: AsyncGenerator[bytes, None]) -> Stream:
    """Pieces that come from a server as an answer. Raises `LictorError` where it has not begun."""
    try:
        head = decode_head(await anext(pieces))
    except StopAsyncIteration:
        raise Refused("rpc error making call: the answer is empty") from None
    return Stream(pieces, head.content_type, head.headers)


def _joined(api: "Api", answered: Answered) -> Encoded:
    head = answered.head.removesuffix(_DATE)
    return Encoded(head + api.common_head + _DATE, answered.rest)


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What goes before the pieces of a streamed answer."""

    content_type: str
    headers: tuple[tuple[str, str], ...]


decode_head = msgspec.msgpack.Decoder(Head).decode


# -- the server -------------------------------------------------------------------------------------------------------


def serve_requests(api: "Api", transport: Transport) -> None:
    """Answer what agents pass on from now on."""

    async def answer(caller: Caller, body: bytes) -> bytes:
        found = _decode(body)
        there = await _elsewhere(api, found) if may_be_elsewhere(found) else None
        return encode(there or await _answered(api, found))

    transport.on_call(REQUEST, answer, agents=True)
    transport.on_stream(STREAM, lambda caller, body: _stream_anywhere(api, _decode(body)), agents=True)


def serve_datacenters(api: "Api", datacenters: Datacenters) -> None:
    """Answer what servers of other datacenters pass on from now on. It is not passed on any further."""

    async def answer(origin: Origin, body: bytes) -> bytes:
        return encode(await _answered(api, _decode(body), far=True))

    datacenters.on_call(REQUEST, answer)
    datacenters.on_stream(STREAM, lambda origin, body: _stream(api, _decode(body)))


async def _answered(api: "Api", found: Asked, *, far: bool = False) -> Answered:
    """The answer to what an agent has passed on; `far` is whether it is one of another datacenter."""
    encoded = await _answer(api, found, far)
    before, after = encoded.before, encoded.after
    if encoded.gate == AGE:
        after = api.freshness.lines() + after
    return Answered(before, after, api.agent.store.index, after.endswith(b"\r\n\r\n" + _NO_LEADER))


def may_be_elsewhere(found: Asked) -> bool:
    """Whether it has to be looked whether a request is for another datacenter. That takes a while, and most are reads
    that name none: a parameter may be escaped, and what is no read may be for the primary datacenter unnamed.
    """
    return found.method != "GET" or "dc=" in found.target or "%" in found.target or bool(found.body)


async def _elsewhere(api: "Api", found: Asked) -> Answered | None:
    """Another datacenter's answer to what an agent has passed on; None for what is for this one."""
    endpoint, _, _, request = _endpoint(api, found)
    datacenter = api.elsewhere(endpoint, request)
    if not datacenter:
        return None
    answered = await _asked_elsewhere(api, datacenter, found, request)
    # The index is what the agent waits for of this datacenter's state, and nothing has changed in that.
    return msgspec.structs.replace(answered, index=0, leaderless=False)


async def _stream_anywhere(api: "Api", found: Asked) -> AsyncIterator[bytes]:
    endpoint, _, _, request = _endpoint(api, found)
    datacenter = api.elsewhere(endpoint, request)
    if not datacenter:
        pieces = _stream(api, found)
    elif api.agent.wan is None:
        raise NoPath
    else:
        pieces = api.agent.wan.datacenters.stream(datacenter, STREAM, encode(found))
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece


def _decode(body: bytes) -> Asked:
    try:
        return decode_asked(body)
    except UNREADABLE as error:
        raise InvalidRequest(f"the request cannot be read: {error}") from None


async def _answer(api: "Api", found: Asked, far: bool) -> Encoded:
    gzip = "gzip" in found.headers.get("accept-encoding", "")
    try:
        endpoint, names, values, request = _endpoint(api, found)
        request.from_elsewhere = far
        if endpoint.kind == READ:
            return await _read(api, endpoint, names, values, request, found)
        token = block.set(Block(found)) if found.number else None
        try:
            result = await api.act(endpoint, names, values, request)
        finally:
            if token is not None:
                block.reset(token)
        if isinstance(result, Stream):
            raise Refused("this answer comes a piece at a time")
    except LictorError as error:
        result = api.error_reply(error)
    except Exception as fault:
        result = api.fault_reply(fault)
    return encode_reply(result, b"", gzip=gzip, head_only=found.method == "HEAD")


def _endpoint(api: "Api", found: Asked) -> tuple[Endpoint, tuple[str, ...], list[str], Request]:
    """Who answers a request. Raises `Refused` for what agents answer themselves."""
    request = Request(found.method, found.target, found.headers, found.peer, found.body)
    request.agent_node, request.translate_for = found.node, found.translate
    route = api.routes.find(request.path)
    endpoint, names = route[0].get(found.method, (None, ())) if route is not None else (None, ())
    if route is None or endpoint is None or not (endpoint.at_servers or endpoint.elsewhere):
        raise Refused(f"servers do not answer {found.method} {request.path} for other agents")
    if len(found.body) > api.body_limit(endpoint):
        raise Refused(f"Request body({len(found.body)} bytes) too large, max size: {api.body_limit(endpoint)} bytes.")
    return endpoint, names, route[1], request


async def _read(
    api: "Api", endpoint: Endpoint, names: tuple[str, ...], values: list[str], request: Request, found: Asked
) -> Encoded:
    # The same from another agent is the same, unless the answer depends on where it was asked.
    node = found.node if "_agent" in found.target else ""
    key = b"\0" + encode((found.target, found.headers, node, request.from_elsewhere, found.translate))
    kept = api.answers.answers.get(key)
    if kept is not None and api.freshness.open(kept.gate, kept.max_stale):
        api.hits += 1
        return kept
    api.misses += 1
    reading = api.prepare(endpoint, names, values, request)
    if found.translate:
        read = reading.function
        reading.function = lambda view: translated(read(view), found.translate)
    reading.head = b""
    encoded = await answering.answer(reading, _Away(), key)
    assert encoded is not None  # it ends by being cancelled
    return encoded


async def _stream(api: "Api", found: Asked) -> AsyncGenerator[bytes, None]:
    endpoint, names, values, request = _endpoint(api, found)
    result = await api.act(endpoint, names, values, request)
    if isinstance(result, Reply):
        raise Refused(result.body.decode(errors="replace"))
    yield encode(Head(result.content_type, tuple((name, value) for name, value in result.headers)))
    async for piece in result.pieces:
        yield piece
