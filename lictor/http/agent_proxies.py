"""`/v1/agent/connect/proxies`: the sidecars of this agent and the processes that serve them. Lictor's own."""

import asyncio
from typing import Annotated, Any

import msgspec

from lictor.agent.deaf_listeners import MOST, Deaf
from lictor.agent.launcher import ProcessState
from lictor.http.api import Api
from lictor.http.bodies import DECODE_FAILED, read_json
from lictor.http.intentions import require_mesh
from lictor.http.reply import Reply
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.model.authorizer import READ, WRITE
from lictor.model.check import aggregate
from lictor.model.errors import InvalidRequest, NotFound
from lictor.model.service import CONNECT_PROXY

family = Family()


class Sidecar(msgspec.Struct, frozen=True, rename="pascal"):
    """A sidecar, the status of its checks together, and the process that serves it where this agent starts it; null
    where somebody else does. `deaf`: where its proxy cannot listen, as that has told of late.
    """

    id: str = msgspec.field(name="ID")
    service: str
    address: str
    port: int
    launch: str
    upstreams: int
    status: str
    deaf: tuple[Deaf, ...]
    process: ProcessState | None


class _Body(msgspec.Struct, frozen=True, rename="pascal"):
    deaf: Annotated[tuple[Deaf, ...], msgspec.Meta(max_length=MOST)] = ()


@family.action("GET", "/v1/agent/connect/proxies")
async def proxies(api: Api, request: Request) -> Any:
    """Every sidecar, by id."""
    agent = api.agent
    request.require("agent", agent.node_name, READ)
    processes = agent.launcher.processes() if agent.launcher is not None else {}
    deaf = agent.deaf.reports(_now())
    return [
        Sidecar(
            id=service.id,
            service=service.proxy.destination_service_name,
            address=service.address or agent.advertise,
            port=service.port,
            launch=service.proxy.launch,
            upstreams=len(service.proxy.upstreams),
            status=aggregate(agent.local.checks_of(service.id)),
            deaf=deaf.get(service.id, ()),
            process=processes.get(service.id),
        )
        for service in sorted(agent.local.services.values(), key=lambda one: one.id)
        if service.kind == CONNECT_PROXY
    ]


@family.action("PUT", "/v1/agent/connect/proxies/:proxy_id")
async def report(api: Api, request: Request) -> Any:
    """A proxy names the addresses that it cannot listen on: all of them. It counts for 90 seconds."""
    require_mesh(api)
    proxy = request.vars["proxy_id"]
    service = api.agent.local.services.get(proxy)
    if service is None or service.kind != CONNECT_PROXY:
        raise NotFound(f'unknown proxy service ID: "{proxy}"')
    request.require("service", service.proxy.destination_service_name, WRITE)
    try:
        body = msgspec.convert(read_json(request), _Body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{DECODE_FAILED}{error}") from None
    api.agent.deaf.report(proxy, body.deaf, _now())
    return Reply()


def _now() -> float:
    return asyncio.get_running_loop().time()
