"""Reads that count: how many nodes, services and instances there are."""

import msgspec

from lictor.store.store import View

MESH_KINDS = (
    "connect-native",
    "connect-proxy",
    "ingress-gateway",
    "mesh-gateway",
    "terminating-gateway",
    "api-gateway",
)
SERVERS = "consul"


class Usage(msgspec.Struct, frozen=True, rename="pascal"):
    """What `/v1/operator/usage` shows of a datacenter."""

    nodes: int
    services: int
    service_instances: int
    connect_service_instances: dict[str, int]
    billable_service_instances: int


def usage(view: View) -> Usage:
    """Counts of the catalog. Whatever is no proxy, no gateway and no server is an instance to be billed."""
    view.saw("nodes")
    view.saw("instances")
    store = view.store
    mesh = dict.fromkeys(MESH_KINDS, 0)
    billable = 0
    for instance in store.services:
        service = instance.service
        if service.kind in mesh:
            mesh[service.kind] += 1
        elif service.service != SERVERS:
            billable += 1
        if service.connect.native:
            mesh["connect-native"] += 1
    names = store.services.indexes["name"].values()
    return Usage(len(store.nodes), len(list(names)), len(store.services), mesh, billable)
