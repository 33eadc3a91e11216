"""What the cases cover: the endpoints there are, and which requests and parameters of each a case names or sends.

Scenarios are read for the requests that they send; Python cases declare theirs with `@covers`. The compatibility table
in docs/ is made of both (`table.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import unquote

from tests.contract.scenario import Scenario

Case = TypeVar("Case", bound=Callable[..., object])

# Every endpoint of the HTTP API that this project has set out to serve so far, under the family it belongs to.
ENDPOINTS: dict[str, tuple[str, ...]] = {
    "Status": ("GET /v1/status/leader", "GET /v1/status/peers"),
    "Agent": (
        "GET /v1/agent/self",
        "GET /v1/agent/host",
        "GET /v1/agent/version",
        "GET /v1/agent/members",
        "GET /v1/agent/metrics",
        "GET /v1/agent/monitor",
        "PUT /v1/agent/reload",
        "PUT /v1/agent/maintenance",
        "PUT /v1/agent/join/:address",
        "PUT /v1/agent/leave",
        "PUT /v1/agent/force-leave/:node",
        "PUT /v1/agent/token/:kind",
    ),
    "Lookups by programs of the machine (Lictor's own)": (
        "GET /v1/agent/lookup",
        "PUT /v1/agent/lookup/:service",
    ),
    "Services of the agent": (
        "GET /v1/agent/services",
        "GET /v1/agent/service/:service_id",
        "GET /v1/agent/health/service/name/:service",
        "GET /v1/agent/health/service/id/:service_id",
        "PUT /v1/agent/service/register",
        "PUT /v1/agent/service/deregister/:service_id",
        "PUT /v1/agent/service/maintenance/:service_id",
    ),
    "Checks of the agent": (
        "GET /v1/agent/checks",
        "PUT /v1/agent/check/register",
        "PUT /v1/agent/check/deregister/:check_id",
        "PUT /v1/agent/check/pass/:check_id",
        "PUT /v1/agent/check/warn/:check_id",
        "PUT /v1/agent/check/fail/:check_id",
        "PUT /v1/agent/check/update/:check_id",
    ),
    "Catalog": (
        "PUT /v1/catalog/register",
        "PUT /v1/catalog/deregister",
        "GET /v1/catalog/datacenters",
        "GET /v1/catalog/nodes",
        "GET /v1/catalog/services",
        "GET /v1/catalog/service/:service",
        "GET /v1/catalog/connect/:service",
        "GET /v1/catalog/node/:node",
        "GET /v1/catalog/node-services/:node",
        "GET /v1/catalog/gateway-services/:gateway",
    ),
    "Health": (
        "GET /v1/health/node/:node",
        "GET /v1/health/checks/:service",
        "GET /v1/health/service/:service",
        "GET /v1/health/connect/:service",
        "GET /v1/health/ingress/:service",
        "GET /v1/health/state/:state",
    ),
    "KV store": ("GET /v1/kv/:key", "PUT /v1/kv/:key", "DELETE /v1/kv/:key"),
    "Sessions": (
        "PUT /v1/session/create",
        "PUT /v1/session/destroy/:session",
        "GET /v1/session/info/:session",
        "GET /v1/session/node/:node",
        "GET /v1/session/list",
        "PUT /v1/session/renew/:session",
    ),
    "Transactions": ("PUT /v1/txn",),
    "Events": ("PUT /v1/event/fire/:name", "GET /v1/event/list"),
    "Prepared queries": (
        "POST /v1/query",
        "GET /v1/query",
        "GET /v1/query/:query",
        "PUT /v1/query/:query",
        "DELETE /v1/query/:query",
        "GET /v1/query/:query/execute",
        "GET /v1/query/:query/explain",
    ),
    "Coordinates": (
        "GET /v1/coordinate/datacenters",
        "GET /v1/coordinate/nodes",
        "GET /v1/coordinate/node/:node",
        "PUT /v1/coordinate/update",
    ),
    "Config entries": (
        "PUT /v1/config",
        "GET /v1/config/:kind",
        "GET /v1/config/:kind/:name",
        "DELETE /v1/config/:kind/:name",
    ),
    "Certificate authority": (
        "GET /v1/connect/ca/roots",
        "GET /v1/connect/ca/configuration",
        "PUT /v1/connect/ca/configuration",
        "GET /v1/agent/connect/ca/roots",
        "GET /v1/agent/connect/ca/leaf/:service",
    ),
    "Intentions": (
        "GET /v1/connect/intentions",
        "POST /v1/connect/intentions",
        "GET /v1/connect/intentions/exact",
        "PUT /v1/connect/intentions/exact",
        "DELETE /v1/connect/intentions/exact",
        "GET /v1/connect/intentions/match",
        "GET /v1/connect/intentions/check",
        "POST /v1/agent/connect/authorize",
        "GET /v1/connect/intentions/:id",
        "PUT /v1/connect/intentions/:id",
        "DELETE /v1/connect/intentions/:id",
    ),
    "Snapshots": ("GET /v1/snapshot", "PUT /v1/snapshot"),
    "Operator": (
        "GET /v1/operator/raft/configuration",
        "DELETE /v1/operator/raft/peer",
        "POST /v1/operator/raft/transfer-leader",
        "GET /v1/operator/autopilot/configuration",
        "PUT /v1/operator/autopilot/configuration",
        "GET /v1/operator/autopilot/health",
        "GET /v1/operator/autopilot/state",
        "GET /v1/operator/keyring",
        "POST /v1/operator/keyring",
        "PUT /v1/operator/keyring",
        "DELETE /v1/operator/keyring",
        "GET /v1/operator/usage",
    ),
    "Web page": (
        "GET /v1/internal/ui/nodes",
        "GET /v1/internal/ui/node/:node",
        "GET /v1/internal/ui/services",
        "GET /v1/internal/ui/gateway-services-nodes/:gateway",
    ),
}

DNS_NAMES: tuple[str, ...] = ("node", "service", "query", "connect", "ingress", "addr", "arpa", "zone")


@dataclass
class Coverage:
    """What is known of one endpoint."""

    requests: int = 0
    cases: int = 0
    parameters: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Declared:
    """One `@covers` of a Python case."""

    case: str
    endpoint: str
    parameters: tuple[str, ...]


DECLARED: list[Declared] = []


def covers(endpoint: str, *parameters: str) -> Callable[[Case], Case]:
    """Declares that a case is about this endpoint (as in ENDPOINTS) and these parameters of it.

    Raises ValueError for an endpoint that ENDPOINTS does not list.
    """
    if endpoint not in ALL_ENDPOINTS:
        raise ValueError(f"covers({endpoint!r}): not in ENDPOINTS of covers.py; add it there under its family")

    def declare(case: Case) -> Case:
        DECLARED.append(Declared(f"{case.__module__}.{case.__name__}", endpoint, parameters))
        return case

    return declare


ALL_ENDPOINTS: tuple[str, ...] = tuple(endpoint for family in ENDPOINTS.values() for endpoint in family)


def _pattern(endpoint: str) -> re.Pattern[str]:
    method, path = endpoint.split(" ", 1)
    parts = [
        "(?:/(.*))" if part == ":key" else "[^/]+" if part.startswith(":") else re.escape(part)
        for part in path.split("/")
    ]
    joined = "/".join(parts).replace("/(?:/(.*))", "/.*")
    return re.compile(f"{method} {joined}")


# Words before placeholders, so that /v1/query/x/execute is not taken for something longer-winded.
_PATTERNS = {endpoint: _pattern(endpoint) for endpoint in ALL_ENDPOINTS}


def endpoint_of(request: str) -> tuple[str, list[str]] | None:
    """The endpoint that a scenario's request line is for and the names of its parameters; None when for none."""
    method, _, target = request.partition(" ")
    path, _, query = target.partition("?")
    for endpoint, pattern in _PATTERNS.items():
        if pattern.fullmatch(f"{method} {path}"):
            names = [unquote(part.split("=", 1)[0]) for part in query.split("&") if part and _is_name(part)]
            return endpoint, names
    return None


def _is_name(part: str) -> bool:
    return re.fullmatch(r"[a-z][a-z_-]*", part.split("=", 1)[0]) is not None


def coverage(scenarios: list[Scenario]) -> dict[str, Coverage]:
    """What scenarios and Python cases cover, by endpoint, in the order of ENDPOINTS."""
    found = {endpoint: Coverage() for endpoint in ALL_ENDPOINTS}
    for scenario in scenarios:
        for step in scenario.steps:
            known = endpoint_of(step.request)
            if known is None:
                continue
            endpoint, parameters = known
            found[endpoint].requests += 1
            found[endpoint].parameters.update(parameters)
    for declared in DECLARED:
        found[declared.endpoint].cases += 1
        found[declared.endpoint].parameters.update(declared.parameters)
    return found
