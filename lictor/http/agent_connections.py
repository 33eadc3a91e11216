"""`/v1/agent/connect/connections`: the live connections into this agent's services, as their proxies tell of them.
Lictor's own.
"""

import asyncio
from typing import Annotated, Any

import msgspec

from lictor.agent.live_connections import MAX_REPORTERS, MAX_SOURCES, Count, Inbound, Report
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
    reporter: Annotated[str, msgspec.Meta(max_length=64)] = ""


class _Requester(msgspec.Struct, frozen=True, rename="pascal"):
    source_uri: str = msgspec.field(name="SourceURI")
    age: float


class Shown(msgspec.Struct, frozen=True, rename="pascal"):
    """A proxy's report: the service it is for, who is connected, and how many seconds ago it said so; where its
    requests are looked at, who made some, and how many seconds ago the last of them was.
    """

    destination: str
    inbound: list[_Caller]
    requests: list[_Requester]
    age: float


@family.action("PUT", "/v1/agent/connect/connections/:proxy_id")
async def report(api: Api, request: Request) -> Any:
    """A proxy, or a service that needs none, says who is connected to it: all of them. It counts for 90 seconds. Of
    such a service several programs may tell, each with a `Reporter` of its own, by the service's id or its name.
    """
    require_mesh(api)
    proxy, destination = _found(api, request.vars["proxy_id"])
    request.require("service", destination, WRITE)
    try:
        body = msgspec.convert(read_json(request), _Body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{DECODE_FAILED}{error}") from None
    if len(body.inbound) > MAX_SOURCES:
        raise InvalidRequest(f"at most {MAX_SOURCES} sources can be told of, not {len(body.inbound)}")
    inbound = [Inbound(one.source_uri, one.connections) for one in body.inbound if len(one.source_uri) <= LONGEST]
    connections = api.agent.connections
    if not body.reporter:
        connections.report(proxy, destination, inbound, _now())
    elif not connections.report_beside(proxy, body.reporter, destination, inbound, _now()):
        raise InvalidRequest(f"at most {MAX_REPORTERS} programs can tell of one service")
    return Reply()


def _found(api: Api, proxy: str) -> tuple[str, str]:
    """The id of a proxy of this agent and the service that it is for; of a service that needs no proxy, its own. Raises
    `NotFound`.
    """
    services = api.agent.local.services
    service = services.get(proxy)
    if service is None:
        named = (one for one in services.values() if one.service == proxy and one.kind != CONNECT_PROXY)
        service = min(named, key=lambda one: (not one.connect.native, one.id), default=None)
    if service is None:
        raise NotFound(f'unknown proxy service ID: "{proxy}"')
    if service.kind == CONNECT_PROXY:
        return service.id, service.proxy.destination_service_name
    return service.id, service.service


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
    requests = [_Requester(source_uri=one.source, age=round(now - one.time, 3)) for one in found.requests]
    return Shown(found.destination, inbound, requests, round(now - found.time, 3))


def _now() -> float:
    return asyncio.get_running_loop().time()
