"""The catalog's commands: nodes, services and checks put and removed, and which topics each change touches.

Topics: `("nodes",)` any node's row; `("node", n)` a node with all it has; `("services",)` which names and tags there
are; `("service", s)` a service's instances with their nodes and checks; `("connect", s)` the instances through which a
mesh client reaches it; `("kind", k)` instances of a kind; `("checks",)` every check, `("checks", status)` those of a
status; `("instances",)` any service's row; `("catalog",)` anything of all this.
"""

import contextlib
from collections.abc import Iterator

import msgspec

from lictor.model.check import CRITICAL, SERF_HEALTH, Check
from lictor.model.errors import Refused
from lictor.model.node import Node
from lictor.model.service import Instance, NodeService
from lictor.store import virtual_ips
from lictor.store.sessions import end_sessions_of_check, end_sessions_of_node
from lictor.store.store import Store


def register(
    store: Store, node: Node, service: NodeService | None, checks: tuple[Check, ...], skip_node_update: bool
) -> None:
    """Put a node and what comes with it."""
    existing = store.nodes.get(node.node.lower())
    if existing is None or not skip_node_update:
        with _named("failed inserting node"):
            put_node(store, node)
    if service is not None:
        with _named("failed inserting service"):
            put_service(store, node.node, service)
    for check in checks:
        with _named("failed inserting check"):
            try:
                put_check(store, msgspec.structs.replace(check, node=check.node or node.node))
            except Refused as error:
                raise Refused(f'{error} on node "{node.node}"') from None


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Say which part of a registration was refused."""
    try:
        yield
    except Refused as error:
        raise Refused(f"{what}: {error}") from None


def deregister(store: Store, node: str, service_id: str, check_id: str) -> None:
    """Remove a service, a check, or the node."""
    if service_id:
        delete_service(store, node, service_id)
    elif check_id:
        delete_check(store, node, check_id)
    else:
        delete_node(store, node)


def put_node(store: Store, node: Node) -> Node:
    """Insert or update a node; a node whose id is known under another name is renamed. Returns the row."""
    key = node.node.lower()
    existing: Node | None = None
    if node.id:
        same_id = next(iter(store.nodes.by("id", node.id.lower()).values()), None)
        if same_id is not None:
            existing = same_id
            if same_id.node.lower() != key:
                _refuse_name_clash(store, node, allow_without_id=False, renaming=f"{node.id!r} ({node.address})")
                delete_node(store, same_id.node)
                existing = msgspec.structs.replace(same_id, node=node.node)
        else:
            _refuse_name_clash(store, node, allow_without_id=True, renaming=repr(node.id))
    by_name = store.nodes.get(key)
    if existing is None:
        existing = by_name
    if existing is not None:
        row = msgspec.structs.replace(
            node,
            create_index=existing.create_index,
            modify_index=existing.modify_index,
        )
        if row == by_name:
            return row
        row = msgspec.structs.replace(row, modify_index=store.index)
    else:
        row = msgspec.structs.replace(node, create_index=store.index, modify_index=store.index)
    store.nodes.put(row)
    store.touch("catalog")
    store.touch("nodes")
    store.touch("node", key)
    for instance in store.services.by("node", key).values():
        _touch_instance(store, instance.service)
    return row


def _refuse_name_clash(store: Store, node: Node, *, allow_without_id: bool, renaming: str) -> None:
    other = store.nodes.get(node.node.lower())
    if other is None or other.id == node.id:
        return
    health = store.checks.get((other.node.lower(), SERF_HEALTH.lower()))
    if health is None or health.status == CRITICAL:
        return
    if not other.id and allow_without_id:
        return
    renaming = renaming.replace("'", '"')
    raise Refused(
        f"Error while renaming Node ID: {renaming}: Node name {node.node} is reserved by node "
        f"{other.id} with name {other.node} ({other.address})"
    )


def put_service(store: Store, node: str, service: NodeService) -> NodeService:
    """Insert or update a service instance on an existing node. Returns the row's service."""
    if not service.id:
        raise Refused("failed inserting service: object missing primary index")
    if store.nodes.get(node.lower()) is None:
        raise Refused("Missing node registration")
    name = node.lower()
    service = virtual_ips.addressed(store, service)
    found = store.services.get((name, service.id.lower()))
    old = found.service if found is not None else None
    if old is not None:
        row = msgspec.structs.replace(service, create_index=old.create_index, modify_index=old.modify_index)
        if row == old:
            return row
        row = msgspec.structs.replace(row, modify_index=store.index)
    else:
        row = msgspec.structs.replace(service, create_index=store.index, modify_index=store.index)
    store.services.put(Instance(node, row))
    store.touch("catalog")
    store.touch("instances")
    store.touch("node", name)
    _touch_instance(store, row)
    if old is None or old.service != row.service or old.tags != row.tags or old.kind != row.kind:
        store.touch("services")
    if old is not None:
        if (old.service, old.connect_name, old.kind) != (row.service, row.connect_name, row.kind):
            _touch_gone(store, old)
            virtual_ips.release(store, old.connect_name)
        if old.service != row.service or old.tags != row.tags:
            for check in _checks_of(store, name, row.id):
                put_check(store, check)
    return row


def put_check(store: Store, check: Check) -> Check:
    """Insert or update a check of an existing node (and service). Returns the row."""
    name = check.node.lower()
    node = store.nodes.get(name)
    if node is None:
        raise Refused("Missing node registration")
    if not check.check_id:
        raise Refused("failed inserting check: object missing primary index")
    service: NodeService | None = None
    if check.service_id:
        instance = store.services.get((name, check.service_id.lower()))
        if instance is None:
            raise Refused("Missing service registration")
        service = instance.service
        check = msgspec.structs.replace(check, service_name=service.service, service_tags=service.tags)
    if not check.status:
        check = msgspec.structs.replace(check, status=CRITICAL)
    old = store.checks.get((name, check.check_id.lower()))
    if old is not None:
        row = msgspec.structs.replace(
            check, node=node.node, create_index=old.create_index, modify_index=old.modify_index
        )
        if row == old:
            return row
        row = msgspec.structs.replace(row, modify_index=store.index)
    else:
        row = msgspec.structs.replace(check, node=node.node, create_index=store.index, modify_index=store.index)
    store.checks.put(row)
    _touch_check(store, row)
    if old is not None and old.status != row.status:
        _touch_status(store, old.status)
    if old is not None and old.service_id.lower() != row.service_id.lower():
        _touch_check(store, old)
    if row.status == CRITICAL:
        end_sessions_of_check(store, name, row.check_id)
    return row


def delete_node(store: Store, node: str) -> bool:
    """Remove a node, its services, checks, coordinates and sessions. Returns whether there was one."""
    name = node.lower()
    if store.nodes.get(name) is None:
        return False
    for instance in list(store.services.by("node", name).values()):
        delete_service(store, node, instance.service.id)
    for check in list(store.checks.by("node", name).values()):
        delete_check(store, node, check.check_id)
    for key in list(store.coordinates.by("node", name)):
        store.coordinates.delete(key)
        store.touch("coordinates")
        store.depart("coordinate", name)
    end_sessions_of_node(store, name)
    store.nodes.delete(name)
    store.touch("catalog")
    store.touch("nodes")
    store.depart("node", name)
    return True


def delete_service(store: Store, node: str, service_id: str) -> bool:
    """Remove a service instance and its checks. Returns whether there was one."""
    name = node.lower()
    instance = store.services.get((name, service_id.lower()))
    if instance is None:
        return False
    for check in list(_checks_of(store, name, service_id)):
        delete_check(store, node, check.check_id)
    store.services.delete((name, service_id.lower()))
    store.touch("catalog")
    store.touch("instances")
    store.touch("node", name)
    store.touch("services")
    _touch_gone(store, instance.service)
    virtual_ips.release(store, instance.service.connect_name)
    return True


def delete_check(store: Store, node: str, check_id: str) -> bool:
    """Remove a check; sessions that depend on it end. Returns whether there was one."""
    name = node.lower()
    check = store.checks.get((name, check_id.lower()))
    if check is None:
        return False
    _touch_check(store, check)
    store.checks.delete((name, check_id.lower()))
    _touch_status(store, check.status)
    end_sessions_of_check(store, name, check_id)
    return True


def _checks_of(store: Store, node: str, service_id: str) -> list[Check]:
    return list(store.checks.by("service", (node, service_id.lower())).values())


def _touch_instance(store: Store, service: NodeService) -> None:
    store.touch("service", service.service.lower())
    if service.connect_name:
        store.touch("connect", service.connect_name.lower())
    if service.kind:
        store.touch("kind", service.kind)


def _touch_gone(store: Store, service: NodeService) -> None:
    """An instance is gone: its service departs with the last one."""
    for index, topic, value in (
        ("name", "service", service.service.lower()),
        ("connect", "connect", service.connect_name.lower()),
        ("kind", "kind", service.kind),
    ):
        if value:
            (store.touch if store.services.by(index, value) else store.depart)(topic, value)


def _touch_status(store: Store, status: str) -> None:
    """A check has this status no more: the status departs with the last one."""
    (store.touch if store.checks.by("status", status) else store.depart)("checks", status)


def _touch_check(store: Store, check: Check) -> None:
    name = check.node.lower()
    store.touch("catalog")
    store.touch("checks")
    store.touch("checks", check.status)
    store.touch("node", name)
    if check.service_id:
        instance = store.services.get((name, check.service_id.lower()))
        if instance is not None:
            _touch_instance(store, instance.service)
    else:
        for instance in store.services.by("node", name).values():
            _touch_instance(store, instance.service)
