"""`/v1/internal/ui` and the other internal endpoints that the web page asks."""

import time
from typing import Any

from lictor.http.api import Api
from lictor.http.intentions import policy
from lictor.http.reply import Reply
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ
from lictor.model.errors import InvalidRequest
from lictor.store.reads import exports, health, ui
from lictor.store.reads.central import protocol_of
from lictor.store.reads.health import CheckServiceNode
from lictor.store.reads.ui import NodeInfo
from lictor.store.store import View

family = Family(at_servers=True)

MESH_GATEWAY = "mesh-gateway"
TOPOLOGY_KINDS = ("", "ingress-gateway")


def _name(request: Request, what: str) -> str:
    name = request.vars["name"]
    if not name:
        raise InvalidRequest(f"Missing {what} name")
    return name


@family.read("/v1/internal/ui/nodes", lenient=True)
def nodes(api: Api, request: Request) -> ReadFunction:
    """Every node with its services and checks."""
    accept = request.filter(NodeInfo)
    request.require("node", "", READ)
    return lambda view: [row for row in ui.nodes(view) if accept is None or accept(row)]


@family.read("/v1/internal/ui/node/:name", lenient=True)
def node(api: Api, request: Request) -> ReadFunction:
    """One node with its services and checks; status 404 where there is none."""
    name = _name(request, "node")
    request.require("node", name, READ)
    return lambda view: ui.node(view, name) or Reply(404)


@family.read("/v1/internal/ui/services", lenient=True)
def services(api: Api, request: Request) -> ReadFunction:
    """Every service in summary."""
    accept = request.filter(CheckServiceNode)
    request.require("service", "", READ)
    return lambda view: ui.services(view, [r for r in ui.every_instance(view) if accept is None or accept(r)])


@family.read("/v1/internal/ui/service-topology/:name")
def topology(api: Api, request: Request) -> ReadFunction:
    """Who a service calls, and who calls it."""
    name = _name(request, "service")
    if not request.has("kind"):
        raise InvalidRequest("Missing service kind")
    kind = request.get("kind")
    if kind not in TOPOLOGY_KINDS:
        raise InvalidRequest(f'Unsupported service kind "{kind}"')
    request.require("service", name, READ)
    default = policy(api)
    return lambda view: ui.topology(view, name, protocol_of(view, name), default)


@family.read("/v1/internal/ui/gateway-services-nodes/:name")
def gateway_services(api: Api, request: Request) -> ReadFunction:
    """The services of a gateway in summary."""
    name = _name(request, "gateway")
    request.require("service", name, READ)
    domains, datacenter = (api.agent.config.domain, api.agent.config.alt_domain), api.agent.datacenter
    return lambda view: ui.gateway_services(view, name, domains, datacenter)


@family.read("/v1/internal/ui/gateway-intentions/:name")
def gateway_intentions(api: Api, request: Request) -> ReadFunction:
    """The intentions for connections to the services of a gateway."""
    name = _name(request, "gateway")
    request.require("intention", name, READ)
    return lambda view: ui.gateway_intentions(view, name)


@family.read("/v1/internal/ui/catalog-overview")
def overview(api: Api, request: Request) -> ReadFunction:
    """How many nodes, services and checks there are, by status."""
    request.require("operator", "", READ)
    return ui.overview


@family.read("/v1/internal/ui/exported-services")
def exported(api: Api, request: Request) -> ReadFunction:
    """The services exported to a peer, by name."""
    peer, datacenter = request.get("peer"), api.agent.datacenter
    request.require("mesh", "", READ)

    def run(view: View) -> Any:
        found = exports.exported_services(view)
        return [ui.ServiceListing(name=name, datacenter=datacenter) for name, peers in found.items() if peer in peers]

    return run


def _state(api: Api, view: View) -> dict[str, Any]:
    view.saw("kind", MESH_GATEWAY)
    found = [i for _, i in sorted(view.store.services.by("kind", MESH_GATEWAY).items())]
    updated = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(api.agent.started_at))
    state: dict[str, Any] = {"Datacenter": api.agent.datacenter}
    if found:
        state["MeshGateways"] = health.with_checks(view, found)
    indexes = {"PrimaryModifyIndex": view.index, "CreateIndex": 1, "ModifyIndex": view.index}
    return state | {"UpdatedAt": updated} | indexes


@family.read("/v1/internal/federation-states")
def federation_states(api: Api, request: Request) -> ReadFunction:
    """The mesh gateways of every datacenter: of this one, so far."""
    request.require("operator", "", READ)
    return lambda view: [_state(api, view)]


@family.read("/v1/internal/federation-states/mesh-gateways")
def mesh_gateways(api: Api, request: Request) -> ReadFunction:
    """The mesh gateways by datacenter, where there are any."""
    request.require("operator", "", READ)

    def run(view: View) -> Any:
        state = _state(api, view)
        return {state["Datacenter"]: state["MeshGateways"]} if "MeshGateways" in state else {}

    return run


@family.read("/v1/internal/federation-state/:name", dated=True)
def federation_state(api: Api, request: Request) -> ReadFunction:
    """The mesh gateways of one datacenter; status 404 where it is not known."""
    name = request.vars["name"]
    if not name:
        raise InvalidRequest("Bad request: Missing datacenter name")
    request.require("operator", "", READ)

    def run(view: View) -> Any:
        if name != api.agent.datacenter:
            return Reply(404)
        return {"State": _state(api, view)} | api.meta(view.index, request, "")

    return run
