"""A health check of the catalog: a node's or a service's, with the status its agent last reported."""

from typing import Any

import msgspec

PASSING = "passing"
WARNING = "warning"
CRITICAL = "critical"
MAINTENANCE = "maintenance"
ANY = "any"
STATUSES = (PASSING, WARNING, CRITICAL)

SERF_HEALTH = "serfHealth"
NODE_MAINTENANCE = "_node_maintenance"
SERVICE_MAINTENANCE_PREFIX = "_service_maintenance:"


class Check(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """A row of the check table, encoded as the API's health checks. `definition` keeps the caller's own JSON keys."""

    node: str = ""
    check_id: str = msgspec.field(default="", name="CheckID")
    name: str = ""
    status: str = CRITICAL
    notes: str = ""
    output: str = ""
    service_id: str = msgspec.field(default="", name="ServiceID")
    service_name: str = ""
    service_tags: tuple[str, ...] = ()
    type: str = ""
    interval: str = ""
    timeout: str = ""
    exposed_port: int = 0
    definition: dict[str, Any] = msgspec.field(default_factory=dict)
    create_index: int = 0
    modify_index: int = 0


_RANK = {PASSING: 0, WARNING: 1, CRITICAL: 2, MAINTENANCE: 3}


def aggregate(checks: "tuple[Check, ...] | list[Check]") -> str:
    """The status of several checks together: maintenance over critical over warning over passing."""
    worst = 0
    for check in checks:
        if check.check_id == NODE_MAINTENANCE or check.check_id.startswith(SERVICE_MAINTENANCE_PREFIX):
            return MAINTENANCE
        worst = max(worst, _RANK.get(check.status, 2))
    return (PASSING, WARNING, CRITICAL)[worst]
