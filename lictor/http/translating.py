"""Addresses as those see them who ask from another datacenter (`translate_wan_addrs`): the tagged ones called `wan`."""

from typing import Any, TypeVar, cast

import msgspec

from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.store.reads.catalog import CatalogService, NodeServiceList, NodeServices
from lictor.store.reads.health import CheckServiceNode

WAN = "wan"
T = TypeVar("T")
_replace = msgspec.structs.replace


def translated(value: T, home: str) -> T:
    """What a read has found, with the addresses that it has for those in datacenter `home`; as it is where that is
    empty. What is in that datacenter itself keeps its addresses.
    """
    return cast(T, _translated(value, home)) if home else value


def _translated(value: Any, home: str) -> Any:
    match value:
        case list():
            return [_translated(row, home) for row in value]
        case CheckServiceNode() if value.node.datacenter != home:
            return _replace(value, node=_node(value.node), service=_service(value.service))
        case CatalogService() if value.datacenter != home:
            return _instance(value)
        case Node() if value.datacenter != home:
            return _node(value)
        case NodeServices() if value.node.datacenter != home:
            services = {service_id: _service(service) for service_id, service in value.services.items()}
            return _replace(value, node=_node(value.node), services=services)
        case NodeServiceList() if value.node is not None and value.node.datacenter != home:
            return _replace(value, node=_node(value.node), services=[_service(row) for row in value.services])
    return value


def _node(node: Node) -> Node:
    address = (node.tagged_addresses or {}).get(WAN)
    return _replace(node, address=address) if address else node


def _service(service: NodeService) -> NodeService:
    tagged = (service.tagged_addresses or {}).get(WAN)
    if tagged is None:
        return service
    return _replace(service, address=tagged.address or service.address, port=tagged.port or service.port)


def _instance(row: CatalogService) -> CatalogService:
    tagged = (row.service_tagged_addresses or {}).get(WAN)
    if tagged is not None:
        address, port = tagged.address or row.service_address, tagged.port or row.service_port
        row = _replace(row, service_address=address, service_port=port)
    address = (row.tagged_addresses or {}).get(WAN, "")
    return _replace(row, address=address) if address else row
