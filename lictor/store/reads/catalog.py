"""Reads of the catalog: nodes, service names, a service's instances, what runs on a node."""

from collections.abc import Iterable, Mapping

import msgspec

from lictor.model.node import Node
from lictor.model.service import (
    ConnectProxyConfig,
    Instance,
    NodeService,
    ServiceAddress,
    ServiceConnect,
    Weights,
)
from lictor.store.store import View


class CatalogService(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """An instance with its node, flat, as `/v1/catalog/service/:service` shows it."""

    id: str = msgspec.field(name="ID")
    node: str
    address: str
    datacenter: str
    tagged_addresses: dict[str, str] | None
    node_meta: dict[str, str] | None
    service_kind: str
    service_id: str = msgspec.field(name="ServiceID")
    service_name: str
    service_tags: tuple[str, ...]
    service_address: str
    service_weights: Weights
    service_meta: dict[str, str]
    service_port: int
    service_enable_tag_override: bool
    service_proxy: ConnectProxyConfig
    service_connect: ServiceConnect
    create_index: int
    modify_index: int
    service_tagged_addresses: dict[str, ServiceAddress] | None = None
    service_socket_path: str = ""


class NodeServices(msgspec.Struct, frozen=True, rename="pascal"):
    """A node and its services by id, as `/v1/catalog/node/:node` shows them."""

    node: Node
    services: dict[str, NodeService]


class NodeServiceList(msgspec.Struct, frozen=True, rename="pascal"):
    """A node and its services in a list, as `/v1/catalog/node-services/:node` shows them."""

    node: Node | None
    services: list[NodeService]


def has_meta(node: Node, wanted: Mapping[str, str]) -> bool:
    """Whether the node's meta has every wanted pair."""
    meta = node.meta or {}
    return all(meta.get(key) == value for key, value in wanted.items())


def nodes(view: View, meta: Mapping[str, str]) -> list[Node]:
    """Every node with the wanted meta, by name."""
    view.saw("nodes")
    return [n for n in view.store.nodes if has_meta(n, meta)]


def services(view: View, meta: Mapping[str, str]) -> dict[str, list[str]]:
    """Every service name with all the tags its instances have; with `meta`, only instances on nodes that have it."""
    view.saw("services")
    store = view.store
    if meta:
        view.saw("nodes")
    found: dict[str, dict[str, None]] = {}
    for instance in store.services:
        if meta:
            node = store.nodes.get(instance.node.lower())
            if node is None or not has_meta(node, meta):
                continue
        tags = found.setdefault(instance.service.service, {})
        for tag in instance.service.tags:
            tags[tag] = None
    return {name: sorted(tags) for name, tags in sorted(found.items())}


def instances(view: View, service: str) -> list[Instance]:
    """The instances of a service, by node and id."""
    name = service.lower()
    view.saw("service", name)
    return [i for _, i in sorted(view.store.services.by("name", name).items())]


def connect_instances(view: View, service: str) -> list[Instance]:
    """The instances through which a mesh client reaches a service: its proxies and its native instances."""
    name = service.lower()
    view.saw("connect", name)
    return [i for _, i in sorted(view.store.services.by("connect", name).items())]


def every_instance(view: View, meta: Mapping[str, str]) -> list[CatalogService]:
    """Every instance of every service, on nodes with the wanted meta."""
    view.saw("instances")
    view.saw("nodes")
    return catalog_services(view, list(view.store.services), (), meta)


def has_tags(service: NodeService, tags: Iterable[str]) -> bool:
    """Whether a service has every one of `tags`, whatever their case."""
    own = {tag.lower() for tag in service.tags}
    return all(tag.lower() in own for tag in tags)


def catalog_services(
    view: View, found: list[Instance], tags: Iterable[str], meta: Mapping[str, str]
) -> list[CatalogService]:
    """Instances with their nodes, those with the wanted tags and node meta."""
    rows = []
    tags = tuple(tags)
    for instance in found:
        node = view.store.nodes.get(instance.node.lower())
        if node is None or (meta and not has_meta(node, meta)) or (tags and not has_tags(instance.service, tags)):
            continue
        rows.append(_flat(node, instance.service))
    return rows


def service(view: View, name: str, tags: Iterable[str], meta: Mapping[str, str]) -> list[CatalogService]:
    """What `/v1/catalog/service/:service` shows."""
    return catalog_services(view, instances(view, name), tags, meta)


def connect(view: View, name: str, tags: Iterable[str], meta: Mapping[str, str]) -> list[CatalogService]:
    """What `/v1/catalog/connect/:service` shows."""
    return catalog_services(view, connect_instances(view, name), tags, meta)


def _flat(node: Node, s: NodeService) -> CatalogService:
    return CatalogService(
        id=node.id,
        node=node.node,
        address=node.address,
        datacenter=node.datacenter,
        tagged_addresses=node.tagged_addresses,
        node_meta=node.meta,
        service_kind=s.kind,
        service_id=s.id,
        service_name=s.service,
        service_tags=s.tags,
        service_address=s.address,
        service_weights=s.weights,
        service_meta=s.meta or {},
        service_port=s.port,
        service_enable_tag_override=s.enable_tag_override,
        service_proxy=s.proxy,
        service_connect=s.connect,
        create_index=s.create_index,
        modify_index=s.modify_index,
        service_tagged_addresses=s.tagged_addresses,
        service_socket_path=s.socket_path,
    )


def find_node(view: View, name_or_id: str) -> Node | None:
    """A node by its name or its id."""
    key = name_or_id.lower()
    view.saw("node", key)
    node = view.store.nodes.get(key)
    if node is None:
        view.saw("nodes")
        node = next(iter(view.store.nodes.by("id", key).values()), None)
        if node is not None:
            view.saw("node", node.node.lower())
    return node


def services_of_node(view: View, node: Node) -> list[NodeService]:
    """A node's services, by id."""
    return [i.service for _, i in sorted(view.store.services.by("node", node.node.lower()).items())]


def node_services(view: View, name_or_id: str) -> NodeServices | None:
    """What `/v1/catalog/node/:node` shows."""
    node = find_node(view, name_or_id)
    if node is None:
        return None
    return NodeServices(node, {s.id: s for s in services_of_node(view, node)})


def node_service_list(view: View, name_or_id: str) -> NodeServiceList:
    """What `/v1/catalog/node-services/:node` shows."""
    node = find_node(view, name_or_id)
    if node is None:
        return NodeServiceList(None, [])
    return NodeServiceList(node, services_of_node(view, node))
