"""`/v1/catalog`: what is registered where."""

from collections.abc import Callable
from typing import Any

import msgspec

from lictor.http.api import Api
from lictor.http.bodies import read_json
from lictor.http.catalog_bodies import decode_deregistration, decode_registration
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ, WRITE
from lictor.model.errors import InvalidRequest
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.store.reads import catalog, gateways
from lictor.store.reads.catalog import CatalogService
from lictor.store.store import View

family = Family(at_servers=True)


@family.action("PUT", "/v1/catalog/register", named_in_body=True)
async def register(api: Api, request: Request) -> Any:
    """Register a node, a service and checks directly with the servers."""
    command = decode_registration(read_json(request), api.agent.datacenter)
    request.require("node", command.node.node, WRITE)
    if command.service is not None:
        request.require("service", command.service.service, WRITE)
    await api.agent.apply(command)
    return True


@family.action("PUT", "/v1/catalog/deregister", named_in_body=True)
async def deregister(api: Api, request: Request) -> Any:
    """Remove a service, a check or a node."""
    command = decode_deregistration(read_json(request))
    request.require("node", command.node, WRITE)
    await api.agent.apply(command)
    return True


@family.action("GET", "/v1/catalog/datacenters", elsewhere=False)
async def datacenters(api: Api, request: Request) -> Any:
    """The datacenters that are known, the nearest first."""
    wan = api.agent.wan
    reply = api.reply(wan.by_distance() if wan is not None else [api.agent.datacenter], request)
    return msgspec.structs.replace(reply, headers=api.cache_headers(request))


def _filtered(rows: Callable[[View], list[Any]], accept: Callable[[Any], bool] | None) -> Callable[[View], list[Any]]:
    if accept is None:
        return rows
    return lambda view: [row for row in rows(view) if accept(row)]


@family.read("/v1/catalog/nodes")
def nodes(api: Api, request: Request) -> ReadFunction:
    """Every node."""
    meta, accept = request.node_meta, request.filter(Node)
    request.require("node", "", READ)
    rows = _filtered(lambda view: catalog.nodes(view, meta), accept)
    return lambda view: api.near(view, request, rows(view), lambda node: node.node)


@family.read("/v1/catalog/services", cacheable=True)
def services(api: Api, request: Request) -> ReadFunction:
    """Every service name, with its tags."""
    meta = request.node_meta
    accept = request.filter(CatalogService)
    request.require("service", "", READ)
    if accept is None:
        return lambda view: catalog.services(view, meta)
    return lambda view: _names(catalog.every_instance(view, meta), accept)


def _names(rows: list[CatalogService], accept: Callable[[Any], bool]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        if accept(row):
            found.setdefault(row.service_name, set()).update(row.service_tags)
    return {name: sorted(tags) for name, tags in sorted(found.items())}


def _service_name(request: Request) -> str:
    name = request.vars["service"]
    if not name:
        raise InvalidRequest("Missing service name")
    return name


@family.read("/v1/catalog/service/:service", cacheable=True)
def service(api: Api, request: Request) -> ReadFunction:
    """A service's instances."""
    return _instances(api, request, catalog.service)


@family.read("/v1/catalog/connect/:service", cacheable=True)
def connect(api: Api, request: Request) -> ReadFunction:
    """The instances through which a mesh client reaches a service."""
    return _instances(api, request, catalog.connect)


def _instances(api: Api, request: Request, read: Callable[..., list[CatalogService]]) -> ReadFunction:
    name, tags, meta = _service_name(request), request.query.get("tag", []), request.node_meta
    request.require("service", name, READ)
    if request.get("peer"):
        return lambda view: []  # there are no peers, so nothing is imported from this one
    rows = _filtered(lambda view: read(view, name, tags, meta), request.filter(CatalogService))
    merge = request.has("merge-central-config")

    def run(view: View) -> list[CatalogService]:
        found = api.near(view, request, rows(view), lambda row: row.node)
        return [api.centrally(view, row) for row in found] if merge else found

    return run


@family.read("/v1/catalog/gateway-services/:gateway")
def gateway_services(api: Api, request: Request) -> ReadFunction:
    """The services that a gateway's config entry binds to it; null where there are none."""
    name = request.vars["gateway"]
    if not name:
        raise InvalidRequest("Missing gateway name")
    request.require("service", name, READ)
    return lambda view: gateways.gateway_services(view, name) or None


def _node_name(request: Request) -> str:
    name = request.vars["node"]
    if not name:
        raise InvalidRequest("Missing node name")
    return name


@family.read("/v1/catalog/node/:node")
def node(api: Api, request: Request) -> ReadFunction:
    """A node and its services, by id; null where there is no such node."""
    name, accept = _node_name(request), request.filter(NodeService)
    request.require("node", name, READ)

    def run(view: View) -> Any:
        found = catalog.node_services(view, name)
        if found is None or accept is None:
            return found
        return msgspec.structs.replace(found, services={i: s for i, s in found.services.items() if accept(s)})

    return run


@family.read("/v1/catalog/node-services/:node")
def node_services(api: Api, request: Request) -> ReadFunction:
    """A node and its services, in a list."""
    name, accept = _node_name(request), request.filter(NodeService)
    request.require("node", name, READ)
    merge = request.has("merge-central-config")

    def run(view: View) -> Any:
        found = catalog.node_service_list(view, name)
        if found.node is None:
            return {"Node": None, "Services": None}
        rows = [row for row in found.services if accept is None or accept(row)]
        if merge:
            rows = [api.service_centrally(view, row) for row in rows]
        return msgspec.structs.replace(found, services=rows)

    return run
