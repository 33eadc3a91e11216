"""`/v1/agent/connect/proxies`: the sidecars of this agent and the processes that serve them. Lictor's own."""

from typing import Any

import msgspec

from lictor.agent.launcher import ProcessState
from lictor.http.api import Api
from lictor.http.request import Request
from lictor.http.routes import Family
from lictor.model.authorizer import READ
from lictor.model.check import aggregate
from lictor.model.service import CONNECT_PROXY

family = Family()


class Sidecar(msgspec.Struct, frozen=True, rename="pascal"):
    """A sidecar, the status of its checks together, and the process that serves it where this agent starts it; null
    where somebody else does.
    """

    id: str = msgspec.field(name="ID")
    service: str
    address: str
    port: int
    launch: str
    upstreams: int
    status: str
    process: ProcessState | None


@family.action("GET", "/v1/agent/connect/proxies")
async def proxies(api: Api, request: Request) -> Any:
    """Every sidecar, by id."""
    agent = api.agent
    request.require("agent", agent.node_name, READ)
    processes = agent.launcher.processes() if agent.launcher is not None else {}
    return [
        Sidecar(
            id=service.id,
            service=service.proxy.destination_service_name,
            address=service.address or agent.advertise,
            port=service.port,
            launch=service.proxy.launch,
            upstreams=len(service.proxy.upstreams),
            status=aggregate(agent.local.checks_of(service.id)),
            process=processes.get(service.id),
        )
        for service in sorted(agent.local.services.values(), key=lambda one: one.id)
        if service.kind == CONNECT_PROXY
    ]
