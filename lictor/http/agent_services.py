"""`/v1/agent/service` and `/v1/agent/services`: the services of this agent."""

import hashlib
from typing import Any

import msgspec

from lictor.http.api import Api, Hashed
from lictor.http.bodies import read_json
from lictor.http.reply import Reply, text_reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.errors import InvalidRequest
from lictor.model.goflags import read_bool
from lictor.model.service import ConnectProxyConfig, NodeService, ServiceAddress, ServiceConnect, Weights
from lictor.model.service_definition import decode_service
from lictor.model.service_rules import service_registration_problem, sidecar_problem
from lictor.store.store import View

family = Family()


class AgentService(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A service as its own agent shows it: what is not set is left out, unlike in the catalog."""

    id: str = msgspec.field(name="ID")
    service: str
    tags: tuple[str, ...]
    meta: dict[str, str]
    port: int
    address: str
    weights: Weights
    enable_tag_override: bool
    datacenter: str
    kind: str = ""
    socket_path: str = ""
    tagged_addresses: dict[str, ServiceAddress] | None = None
    content_hash: str = ""
    proxy: dict[str, Any] | None = None
    connect: ServiceConnect | None = None


_SHORT = {"Datacenter": "", "Config": None}


def shown_proxy(proxy: ConnectProxyConfig) -> dict[str, Any]:
    """A proxy block as an agent shows it: upstreams without the fields that are not set."""
    shown: dict[str, Any] = msgspec.to_builtins(proxy)
    for upstream in shown.get("Upstreams", ()):
        for field, empty in _SHORT.items():
            if upstream.get(field, empty) == empty:
                upstream.pop(field, None)
    return shown


class FilteredService(msgspec.Struct, frozen=True, rename="pascal"):
    """The fields of an agent's service that a filter can select."""

    id: str = msgspec.field(name="ID")
    service: str
    tags: tuple[str, ...]
    meta: dict[str, str]
    port: int
    address: str
    weights: Weights
    enable_tag_override: bool
    datacenter: str
    kind: str
    socket_path: str
    tagged_addresses: dict[str, ServiceAddress] | None
    content_hash: str
    proxy: ConnectProxyConfig
    connect: ServiceConnect


def _filtered(service: NodeService, datacenter: str) -> FilteredService:
    return FilteredService(
        service.id,
        service.service,
        service.tags,
        service.meta or {},
        service.port,
        service.address,
        service.weights,
        service.enable_tag_override,
        datacenter,
        service.kind,
        service.socket_path,
        service.tagged_addresses,
        "",
        service.proxy,
        service.connect,
    )


def shown_service(service: NodeService, datacenter: str) -> AgentService:
    """A service as its own agent shows it."""
    return AgentService(
        id=service.id,
        service=service.service,
        tags=service.tags,
        meta=service.meta or {},
        port=service.port,
        address=service.address,
        weights=service.weights,
        enable_tag_override=service.enable_tag_override,
        datacenter=datacenter,
        kind=service.kind,
        socket_path=service.socket_path,
        tagged_addresses=service.tagged_addresses,
        proxy=shown_proxy(service.proxy) if service.kind else None,
        connect=service.connect if service.connect.native else None,
    )


@family.read_local("/v1/agent/services")
def services(api: Api, request: Request) -> ReadFunction:
    """Every service by id. Who gives a `hash`, which is Lictor's own addition, is told that of them all, and waits to
    see it changed.
    """
    accept = request.filter(FilteredService)
    local, datacenter = api.agent.local, api.agent.datacenter

    def read(view: View) -> Any:
        view.saw("agent", "services")
        shown = {
            service_id: shown_service(row, datacenter)
            for service_id, row in sorted(local.services.items())
            if request.authorizer.allows("service", row.service, READ)
            and (accept is None or accept(_filtered(row, datacenter)))
        }
        return Hashed(shown, content_hash(shown)) if request.has("hash") else shown

    return read


@family.read_local("/v1/agent/service/:service_id")
def service(api: Api, request: Request) -> ReadFunction:
    """One service, with the hash of its content, which a caller can wait to see changed."""
    service_id = request.vars["service_id"]
    agent = api.agent

    def read(view: View) -> Any:
        view.saw("agent", "service", service_id)
        row = agent.local.service(service_id)
        if row is None:
            return text_reply(f"unknown service ID: {service_id}", 404)
        request.require("service", row.service, READ)
        shown = shown_service(row, agent.datacenter)
        content = content_hash(shown)
        return Hashed(msgspec.structs.replace(shown, content_hash=content), content)

    return read


def content_hash(shown: AgentService | dict[str, AgentService]) -> str:
    """Sixteen hexadecimal digits that change with a service's content."""
    encoded = msgspec.json.encode(shown, order="sorted")
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


@family.action("PUT", "/v1/agent/service/register")
async def register(api: Api, request: Request) -> Any:
    """Register a service with its checks and its sidecar."""
    definition = decode_service(read_json(request))
    problem = service_registration_problem(definition) or sidecar_problem(definition)
    if problem is not None:
        raise InvalidRequest(problem)
    request.require("service", definition.name, WRITE)
    definition = msgspec.structs.replace(definition, token=definition.token or request.token)
    await api.agent.register_service(definition, replace_checks=request.flag("replace-existing-checks"))
    return Reply()


@family.action("PUT", "/v1/agent/service/deregister/:service_id")
async def deregister(api: Api, request: Request) -> Any:
    """Remove a service, its checks and its sidecar."""
    service_id = request.vars["service_id"]
    row = api.agent.local.service(service_id)
    if row is not None:
        request.require("service", row.service, WRITE)
    await api.agent.deregister_service(service_id)
    return Reply()


@family.action("PUT", "/v1/agent/service/maintenance/:service_id")
async def maintenance(api: Api, request: Request) -> Any:
    """Put a service into maintenance (`enable`, `reason`) or out of it."""
    service_id = request.vars["service_id"]
    if not service_id:
        raise InvalidRequest("Missing service ID")
    enable = read_enable(request)
    row = api.agent.local.service(service_id)
    if row is not None:
        request.require("service", row.service, WRITE)
    await api.agent.set_service_maintenance(service_id, request.get("reason") if enable else None)
    return Reply()


def read_enable(request: Request) -> bool:
    """The `enable` parameter, which must be there."""
    if not request.has("enable"):
        raise InvalidRequest("Missing value for enable")
    text = request.get("enable")
    try:
        return read_bool(text)
    except ValueError:
        raise InvalidRequest(f'Invalid value for enable: "{text}"') from None
