"""`/v1/agent/connect/connections`: the live connections into this agent's services, as their proxies tell of them.
Lictor's own.
"""

import asyncio
from typing import Any

import msgspec

from lictor.agent.live_connections import MAX_SOURCES, Count, Inbound, Report
from lictor.http.api import Api
from lictor.http.bodies import DECODE_FAILED, read_json
from lictor.http.intentions import require_mesh
from lictor.http.reply import Reply
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.model.authorizer import READ, WRITE
from lictor.model.errors import InvalidRequest, NotFound
from lictor.model.service import CONNECT_PROXY
from lictor.model.spiffe import LONGEST

family = Family()


class _Caller(msgspec.Struct, frozen=True, rename="pascal"):
    source_uri: str = msgspec.field(name="SourceURI")
    connections: Count


class _Body(msgspec.Struct, frozen=True, rename="pascal"):
    inbound: tuple[_Caller, ...] = ()


class Shown(msgspec.Struct, frozen=True, rename="pascal"):
    """A proxy's report: the service it is for, who is connected, and how many seconds ago it said so."""

    destination: str
    inbound: list[_Caller]
    age: float


@family.action("PUT", "/v1/agent/connect/connections/:proxy_id")
async def report(api: Api, request: Request) -> Any:
    """A proxy, or a native service, says who is connected to it: all of them. It counts for 90 seconds."""
    require_mesh(api)
    proxy = request.vars["proxy_id"]
    destination = _destination(api, proxy)
    request.require("service", destination, WRITE)
    try:
        body = msgspec.convert(read_json(request), _Body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{DECODE_FAILED}{error}") from None
    if len(body.inbound) > MAX_SOURCES:
        raise InvalidRequest(f"at most {MAX_SOURCES} sources can be told of, not {len(body.inbound)}")
    inbound = [Inbound(one.source_uri, one.connections) for one in body.inbound if len(one.source_uri) <= LONGEST]
    api.agent.connections.report(proxy, destination, inbound, _now())
    return Reply()


def _destination(api: Api, proxy: str) -> str:
    """The service that a proxy of this agent is for. Raises `NotFound`."""
    service = api.agent.local.services.get(proxy)
    if service is None:
        raise NotFound(f'unknown proxy service ID: "{proxy}"')
    return service.proxy.destination_service_name if service.kind == CONNECT_PROXY else service.service


@family.action("GET", "/v1/agent/connect/connections")
async def every(api: Api, request: Request) -> Any:
    """What the proxies of this agent have said of late, by their ids."""
    require_mesh(api)
    request.require("agent", api.agent.node_name, READ)
    now = _now()
    return {proxy: _shown(one, now) for proxy, one in api.agent.connections.reports(now).items()}


@family.action("GET", "/v1/agent/connect/connections/:proxy_id")
async def one(api: Api, request: Request) -> Any:
    """What one proxy has said; status 404 where that is nothing."""
    require_mesh(api)
    proxy, now = request.vars["proxy_id"], _now()
    found = api.agent.connections.reports(now).get(proxy)
    if found is None:
        raise NotFound(f'proxy "{proxy}" has not told of its connections')
    request.require("service", found.destination, READ)
    return _shown(found, now)


def _shown(found: Report, now: float) -> Shown:
    inbound = [_Caller(source_uri=one.source, connections=one.connections) for one in found.inbound]
    return Shown(found.destination, inbound, round(now - found.time, 3))


def _now() -> float:
    return asyncio.get_running_loop().time()
