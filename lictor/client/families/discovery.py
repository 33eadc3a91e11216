"""`client.catalog`, `client.health`, `client.query`, `client.coordinate`: what there is, where, and how it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lictor.client.calls import (
    OR_NOTHING,
    Call,
    F,
    Family,
    Reply,
    call,
    get,
    nothing,
    path,
    put,
    read,
    reads,
    reads_or_none,
)
from lictor.client.records import CatalogNode, CatalogService, QueryResult, ServiceEntry
from lictor.model.check import Check
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery

_names = reads(list[str])
_nodes = reads(list[Node])
_services = reads(dict[str, list[str]])
_instances = reads(list[CatalogService])
_node = reads_or_none(CatalogNode | None)
_checks = reads(list[Check])
_entries = reads(list[ServiceEntry])
_coordinates = reads_or_none(list[CoordinateEntry])
_created = reads(dict[str, str])
_queries = reads_or_none(list[PreparedQuery])
_result = reads(QueryResult)


def _meta(node_meta: Mapping[str, str] | None) -> list[str]:
    return [f"{key}:{value}" for key, value in (node_meta or {}).items()]


class Catalog(Family[F]):
    """The nodes and services that are registered."""

    @call
    def datacenters(self) -> Call[list[str]]:
        """The datacenters, nearest first."""
        return get(path("catalog", "datacenters"), _names)

    @read
    def nodes(
        self, *, near: str = "", node_meta: Mapping[str, str] | None = None, filter: str = "", dc: str = ""
    ) -> Call[list[Node]]:
        """Every node."""
        return get(path("catalog", "nodes"), _nodes, near=near, node_meta=_meta(node_meta), filter=filter, dc=dc)

    @read
    def services(self, *, node_meta: Mapping[str, str] | None = None, dc: str = "") -> Call[dict[str, list[str]]]:
        """Every service's name with all the tags that its instances have."""
        return get(path("catalog", "services"), _services, node_meta=_meta(node_meta), dc=dc)

    @read
    def service(
        self, name: str, *, tag: str | Sequence[str] = "", near: str = "", filter: str = "", dc: str = ""
    ) -> Call[list[CatalogService]]:
        """A service's instances, whatever their health."""
        return get(path("catalog", "service", name), _instances, tag=tag, near=near, filter=filter, dc=dc)

    @read
    def connect(self, name: str, *, near: str = "", filter: str = "", dc: str = "") -> Call[list[CatalogService]]:
        """The instances through which a mesh client reaches a service."""
        return get(path("catalog", "connect", name), _instances, near=near, filter=filter, dc=dc)

    @read
    def node(self, name: str, *, filter: str = "", dc: str = "") -> Call[CatalogNode | None]:
        """A node, by name or id, with its services; None where there is none."""
        return get(path("catalog", "node", name), _node, OR_NOTHING, filter=filter, dc=dc)

    @call
    def register(self, registration: Mapping[str, Any]) -> Call[None]:
        """Put a node, and a service or checks of it, as the API writes them. Agents do this for what runs on them."""
        return put(path("catalog", "register"), nothing, dict(registration), safe=True)

    @call
    def deregister(self, node: str, *, service_id: str = "", check_id: str = "", dc: str = "") -> Call[None]:
        """Remove a service or a check of a node, or else the node."""
        body = {"Node": node, "ServiceID": service_id, "CheckID": check_id, "Datacenter": dc}
        return put(path("catalog", "deregister"), nothing, {k: v for k, v in body.items() if v}, safe=True)


class Health(Family[F]):
    """Checks, and the instances that pass them."""

    @read
    def service(
        self,
        name: str,
        *,
        passing: bool = False,
        tag: str | Sequence[str] = "",
        near: str = "",
        node_meta: Mapping[str, str] | None = None,
        filter: str = "",
        cached: bool = False,
        dc: str = "",
    ) -> Call[list[ServiceEntry]]:
        """A service's instances with their checks; with `passing` only those that are well."""
        return get(
            path("health", "service", name),
            _entries,
            passing=passing,
            tag=tag,
            near=near,
            node_meta=_meta(node_meta),
            filter=filter,
            cached=cached,
            dc=dc,
        )

    @read
    def connect(self, name: str, *, passing: bool = False, near: str = "", dc: str = "") -> Call[list[ServiceEntry]]:
        """The instances through which a mesh client reaches a service, with their checks."""
        return get(path("health", "connect", name), _entries, passing=passing, near=near, dc=dc)

    @read
    def checks(self, service: str, *, near: str = "", filter: str = "", dc: str = "") -> Call[list[Check]]:
        """The checks of a service's instances."""
        return get(path("health", "checks", service), _checks, near=near, filter=filter, dc=dc)

    @read
    def node(self, node: str, *, filter: str = "", dc: str = "") -> Call[list[Check]]:
        """The checks of a node and of its services."""
        return get(path("health", "node", node), _checks, filter=filter, dc=dc)

    @read
    def state(self, state: str = "any", *, near: str = "", filter: str = "", dc: str = "") -> Call[list[Check]]:
        """Every check with a status."""
        return get(path("health", "state", state), _checks, near=near, filter=filter, dc=dc)


class Query(Family[F]):
    """Prepared queries."""

    @read
    def list(self, *, dc: str = "") -> Call[list[PreparedQuery]]:
        """Every definition."""
        return get(path("query"), lambda reply: _queries(reply) or [], dc=dc)

    @read
    def get(self, id: str, *, dc: str = "") -> Call[PreparedQuery | None]:
        """One definition; None where there is none."""
        return get(path("query", id), _first_query, OR_NOTHING, dc=dc)

    @call
    def create(self, query: PreparedQuery, *, dc: str = "") -> Call[str]:
        """Store a definition; returns its id."""
        return put(path("query"), lambda reply: str(_created(reply)["ID"]), query, method="POST", dc=dc)

    @call
    def update(self, query: PreparedQuery, *, dc: str = "") -> Call[None]:
        """Replace the definition with the query's id."""
        return put(path("query", query.id), nothing, query, dc=dc)

    @call
    def delete(self, id: str, *, dc: str = "") -> Call[None]:
        """Remove a definition."""
        return put(path("query", id), nothing, method="DELETE", dc=dc)

    @call
    def execute(self, name: str, *, limit: int = 0, near: str = "", dc: str = "") -> Call[QueryResult]:
        """The instances that a query finds now, by its name or id."""
        found = path("query", name, "execute")
        return get(found, _result, limit=str(limit) if limit else "", near=near, dc=dc)


def _first_query(reply: Reply) -> PreparedQuery | None:
    found = _queries(reply)
    return found[0] if found else None


class Coordinate(Family[F]):
    """Where nodes are in the network, as they estimate it."""

    @read
    def nodes(self, *, dc: str = "") -> Call[list[CoordinateEntry]]:
        """The coordinates of every node."""
        return get(path("coordinate", "nodes"), lambda reply: _coordinates(reply) or [], dc=dc)

    @read
    def node(self, name: str, *, dc: str = "") -> Call[list[CoordinateEntry]]:
        """The coordinates of a node, by segment."""
        return get(path("coordinate", "node", name), lambda reply: _coordinates(reply) or [], OR_NOTHING, dc=dc)
