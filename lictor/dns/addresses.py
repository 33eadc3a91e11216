"""Which of a node's and a service's addresses is told to whom.

A node and a service may have tagged addresses: `lan_ipv4` and `lan_ipv6` beside the plain one, and `wan`, `wan_ipv4`
and `wan_ipv6` for those who ask from another datacenter, where `translate_wan_addrs` is set. A question for A wants
IPv4, for AAAA IPv6, any other takes what there is, IPv6 first.
"""

from collections.abc import Mapping

from lictor.dns.message import AAAA, A
from lictor.model.node import Node
from lictor.model.service import NodeService


def node_address(node: Node, qtype: int, remote: bool) -> str:
    """The node's address for a question type, the plain one where no other fits. `remote`: asked from elsewhere."""
    tagged = node.tagged_addresses
    return _choose(qtype, node.address, tagged, remote) if tagged else node.address


def service_address(service: NodeService, qtype: int, remote: bool) -> str:
    """The service's own address for a question type, the plain one where no other fits; empty where it has none."""
    if not service.tagged_addresses:
        return service.address
    return _choose(qtype, service.address, {k: a.address for k, a in service.tagged_addresses.items()}, remote)


def service_port(service: NodeService, remote: bool) -> int:
    """The port to name in SRV records."""
    if remote and service.tagged_addresses:
        wan = service.tagged_addresses.get("wan")
        if wan is not None and wan.port:
            return wan.port
    return service.port


def _choose(qtype: int, plain: str, tagged: Mapping[str, str], remote: bool) -> str:
    if remote:
        return _fitting(qtype, tagged.get("wan", plain), tagged.get("wan_ipv4", ""), tagged.get("wan_ipv6", ""))
    return _fitting(qtype, plain, tagged.get("lan_ipv4", ""), tagged.get("lan_ipv6", ""))


def _fitting(qtype: int, plain: str, ipv4: str, ipv6: str) -> str:
    if qtype != A and ipv6:
        return ipv6
    if qtype != AAAA and ipv4:
        return ipv4
    return plain
