"""`/v1/health`: the checks, and the instances that pass them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from lictor.http.api import Api
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ
from lictor.model.check import Check
from lictor.model.errors import InvalidRequest
from lictor.store.reads import gateways, health
from lictor.store.reads.health import CheckServiceNode
from lictor.store.store import View

family = Family(at_servers=True)


def _checks(api: Api, request: Request, read: Callable[[View], list[Check]]) -> Callable[[View], list[Check]]:
    accept = request.filter(Check)

    def run(view: View) -> list[Check]:
        rows = read(view)
        if accept is not None:
            rows = [row for row in rows if accept(row)]
        return api.near(view, request, rows, lambda row: row.node)

    return run


@family.read("/v1/health/node/:node")
def node(api: Api, request: Request) -> ReadFunction:
    """The checks of a node and of its services."""
    name = request.vars["node"]
    if not name:
        raise InvalidRequest("Missing node name")
    request.require("node", name, READ)
    return _checks(api, request, lambda view: health.checks_of_node(view, name))


@family.read("/v1/health/checks/:service")
def checks(api: Api, request: Request) -> ReadFunction:
    """The checks of a service's instances."""
    name = request.vars["service"]
    if not name:
        raise InvalidRequest("Missing service name")
    meta = request.node_meta
    request.require("service", name, READ)
    return _checks(api, request, lambda view: health.checks_of_service(view, name, meta))


@family.read("/v1/health/state/:state")
def state(api: Api, request: Request) -> ReadFunction:
    """Every check with a status."""
    status = request.vars["state"]
    if not status:
        raise InvalidRequest("Missing check state")
    meta = request.node_meta
    request.require("node", "", READ)
    return _checks(api, request, lambda view: health.checks_in_state(view, status, meta))


@family.read("/v1/health/service/:service", cacheable=True)
def service(api: Api, request: Request) -> ReadFunction:
    """A service's instances with their checks."""
    return _instances(api, request, health.service)


@family.read("/v1/health/connect/:service", cacheable=True)
def connect(api: Api, request: Request) -> ReadFunction:
    """The instances through which a mesh client reaches a service, with their checks."""
    return _instances(api, request, health.connect)


@family.read("/v1/health/ingress/:service")
def ingress(api: Api, request: Request) -> ReadFunction:
    """The ingress gateways through which a service is reached, with their checks."""
    return _instances(api, request, _ingress)


def _ingress(view: View, name: str, tags: Iterable[str], meta: Mapping[str, str]) -> list[CheckServiceNode]:
    return health.narrowed(gateways.ingress_instances(view, name), tuple(tags), meta)


def _instances(api: Api, request: Request, read: Callable[..., list[CheckServiceNode]]) -> ReadFunction:
    name, tags, meta = request.vars["service"], request.query.get("tag", []), request.node_meta
    if not name:
        raise InvalidRequest("Missing service name")
    request.require("service", name, READ)
    passing, accept = _passing(request), request.filter(CheckServiceNode)
    merge = request.has("merge-central-config")
    if request.get("peer"):
        return lambda view: []  # there are no peers, so nothing is imported from this one

    def run(view: View) -> Any:
        rows = read(view, name, tags, meta)
        if passing:
            rows = health.passing(rows)
        if accept is not None:
            rows = [row for row in rows if accept(row)]
        rows = api.near(view, request, rows, lambda row: row.node.node)
        if merge:
            rows = [msgspec.structs.replace(row, service=api.service_centrally(view, row.service)) for row in rows]
        return rows

    return run


def _passing(request: Request) -> bool:
    text = request.get("passing")
    if not request.has("passing") or text in ("0", "f", "F", "false", "False", "FALSE"):
        return False
    if text not in ("", "1", "t", "T", "true", "True", "TRUE"):
        raise InvalidRequest("Invalid value for ?passing")
    return True
