"""`/v1/agent/health/service`: whether a service of this agent is well, for load balancers, as code, text or JSON.

200 passing, 429 warning, 503 critical or in maintenance, 404 for a service that is not here. The node's own checks
count for each of its services.
"""

from typing import Any

import msgspec

from lictor.http.agent_services import AgentService, shown_service
from lictor.http.api import Api
from lictor.http.reply import Reply, json_bytes
from lictor.http.request import Request
from lictor.http.routes import Family, ReadFunction
from lictor.model.authorizer import READ
from lictor.model.check import CRITICAL, MAINTENANCE, PASSING, WARNING, Check, aggregate
from lictor.model.errors import Refused
from lictor.model.service import NodeService
from lictor.store.store import View

family = Family()

_CODES = {PASSING: 200, WARNING: 429, CRITICAL: 503, MAINTENANCE: 503}
_ORDER = (PASSING, WARNING, CRITICAL, MAINTENANCE)


class ListedDefinition(msgspec.Struct, frozen=True):
    """A check's definition in this answer, where Consul shows an empty one in full."""

    interval: str = msgspec.field(default="0s", name="Interval")
    timeout: str = msgspec.field(default="0s", name="Timeout")
    deregister: str = msgspec.field(default="0s", name="DeregisterCriticalServiceAfter")
    http: str = msgspec.field(default="", name="HTTP")
    header: None = msgspec.field(default=None, name="Header")
    method: str = msgspec.field(default="", name="Method")
    body: str = msgspec.field(default="", name="Body")
    tls_skip_verify: bool = msgspec.field(default=False, name="TLSSkipVerify")
    tcp: str = msgspec.field(default="", name="TCP")


class ListedCheck(msgspec.Struct, frozen=True, rename="pascal"):
    """A check in this answer."""

    node: str
    check_id: str = msgspec.field(name="CheckID")
    name: str
    status: str
    notes: str
    output: str
    service_id: str = msgspec.field(name="ServiceID")
    service_name: str
    service_tags: tuple[str, ...] | None
    type: str = ""
    definition: ListedDefinition = ListedDefinition()
    create_index: int = 0
    modify_index: int = 0


class ServiceHealth(msgspec.Struct, frozen=True, rename="pascal"):
    """A service with its checks and the status of them together."""

    aggregated_status: str
    service: AgentService | None
    checks: list[ListedCheck] | None


def _listed(check: Check) -> ListedCheck:
    return ListedCheck(
        node=check.node,
        check_id=check.check_id,
        name=check.name,
        status=check.status,
        notes=check.notes,
        output=check.output,
        service_id=check.service_id,
        service_name=check.service_name,
        service_tags=check.service_tags or None,
    )


def _health(api: Api, view: View, service: NodeService) -> ServiceHealth:
    local = api.agent.local
    view.saw("agent", "service-health", service.id)
    view.saw("agent", "service-health", "")
    rows = [*local.checks_of(""), *local.checks_of(service.id)]
    shown = [_listed(check) for check in rows]
    return ServiceHealth(aggregate(rows), shown_service(service, api.agent.datacenter), shown)


def _answer(status: str, value: Any, request: Request, code: int | None = None) -> Reply:
    headers = (("X-Consul-Reason", status),)
    code = _CODES[status] if code is None else code
    if request.get("format") == "text":
        return Reply(code, status.encode(), "text/plain", headers)
    body = json_bytes(value)
    if request.pretty:
        body = msgspec.json.format(body, indent=4) + b"\n"
    return Reply(code, body, "application/json", headers)


@family.read_local("/v1/agent/health/service/id/:service_id")
def by_id(api: Api, request: Request) -> ReadFunction:
    """The health of one instance."""
    service_id = request.vars["service_id"]
    if not service_id:
        raise Refused("Bad request: Missing serviceID")

    def read(view: View) -> Any:
        view.saw("agent", "service", service_id)
        row = api.agent.local.service(service_id)
        if row is None:
            reason = f"ServiceId {service_id} not found"
            # Consul gives this one text as JSON.
            missing = reason if request.get("format") == "text" else ServiceHealth(CRITICAL, None, None)
            return Reply(404, json_bytes(missing), "application/json", (("X-Consul-Reason", reason),))
        request.require("service", row.service, READ)
        health = _health(api, view, row)
        return _answer(health.aggregated_status, health, request)

    return read


@family.read_local("/v1/agent/health/service/name/:service")
def by_name(api: Api, request: Request) -> ReadFunction:
    """The health of every instance of a service here; the worst decides the code."""
    name = request.vars["service"]
    if not name:
        raise Refused("Bad request: Missing service Name")
    request.require("service", name, READ)

    def read(view: View) -> Any:
        view.saw("agent", "services")
        rows = [row for _, row in sorted(api.agent.local.services.items()) if row.service == name]
        if not rows:
            reason = f"ServiceName {name} Not Found"
            if request.get("format") == "text":
                return Reply(404, reason.encode(), "text/plain", (("X-Consul-Reason", reason),))
            return Reply(404, b"[]", "application/json", (("X-Consul-Reason", reason),))
        found = [_health(api, view, row) for row in rows]
        worst = max((health.aggregated_status for health in found), key=_ORDER.index)
        return _answer(worst, found, request)

    return read
