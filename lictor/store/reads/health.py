"""Reads of health: checks by node, service and status, and a service's instances with their checks."""

from collections.abc import Iterable, Mapping

import msgspec

from lictor.model.check import ANY, CRITICAL, PASSING, Check
from lictor.model.node import Node
from lictor.model.service import Instance, NodeService
from lictor.store.reads import catalog
from lictor.store.store import View


class CheckServiceNode(msgspec.Struct, frozen=True, rename="pascal"):
    """An instance with its node and the checks of both, as `/v1/health/service/:service` shows it."""

    node: Node
    service: NodeService
    checks: list[Check]


def checks_of_node(view: View, node: str) -> list[Check]:
    """Every check on a node, its services' too, by check id."""
    found = catalog.find_node(view, node)
    name = found.node.lower() if found is not None else node.lower()
    return [c for _, c in sorted(view.store.checks.by("node", name).items())]


def checks_of_service(view: View, service: str, meta: Mapping[str, str]) -> list[Check]:
    """The checks of a service's instances, on nodes with the wanted meta."""
    rows: list[Check] = []
    store = view.store
    for instance in catalog.instances(view, service):
        node = store.nodes.get(instance.node.lower())
        if node is None or (meta and not catalog.has_meta(node, meta)):
            continue
        key = (instance.node.lower(), instance.service.id.lower())
        rows.extend(c for _, c in sorted(store.checks.by("service", key).items()))
    return rows


def checks_in_state(view: View, status: str, meta: Mapping[str, str]) -> list[Check]:
    """Every check with a status (`any` for all), on nodes with the wanted meta."""
    store = view.store
    if status == ANY:
        view.saw("checks")
        rows = list(store.checks.rows.pairs())
    else:
        view.saw("checks", status)
        rows = sorted(store.checks.by("status", status).items())
    if not meta:
        return [c for _, c in rows]
    view.saw("nodes")
    kept = []
    for (name, _), check in rows:
        node = store.nodes.get(name)
        if node is not None and catalog.has_meta(node, meta):
            kept.append(check)
    return kept


def with_checks(view: View, found: list[Instance]) -> list[CheckServiceNode]:
    """Instances with their nodes and checks: the node's first, then the service's."""
    store = view.store
    by_service = store.checks.indexes["service"]
    rows = []
    for instance in found:
        name = instance.node.lower()
        node = store.nodes.get(name)
        if node is None:
            continue
        checks = [
            *_sorted(by_service.get((name, ""))),
            *_sorted(by_service.get((name, instance.service.id.lower()))),
        ]
        rows.append(CheckServiceNode(node, instance.service, checks))
    return rows


def _sorted(rows: Mapping[tuple[str, str], Check]) -> Iterable[Check]:
    """Checks by id, whatever was written last."""
    return rows.values() if len(rows) < 2 else [check for _, check in sorted(rows.items())]


def service(view: View, name: str, tags: Iterable[str], meta: Mapping[str, str]) -> list[CheckServiceNode]:
    """What `/v1/health/service/:service` shows, before `passing` and `filter`."""
    return narrowed(with_checks(view, catalog.instances(view, name)), tuple(tags), meta)


def connect(view: View, name: str, tags: Iterable[str], meta: Mapping[str, str]) -> list[CheckServiceNode]:
    """What `/v1/health/connect/:service` shows, before `passing` and `filter`."""
    return narrowed(with_checks(view, catalog.connect_instances(view, name)), tuple(tags), meta)


def narrowed(rows: list[CheckServiceNode], tags: tuple[str, ...], meta: Mapping[str, str]) -> list[CheckServiceNode]:
    """The rows with the wanted tags and node meta."""
    if tags:
        rows = [row for row in rows if catalog.has_tags(row.service, tags)]
    if meta:
        rows = [row for row in rows if catalog.has_meta(row.node, meta)]
    return rows


def passing(rows: list[CheckServiceNode]) -> list[CheckServiceNode]:
    """The instances all of whose checks pass."""
    return [row for row in rows if all(c.status == PASSING for c in row.checks)]


def not_critical(rows: list[CheckServiceNode]) -> list[CheckServiceNode]:
    """The instances none of whose checks is critical: what DNS answers with unless told `only_passing`."""
    return [row for row in rows if all(c.status != CRITICAL for c in row.checks)]
