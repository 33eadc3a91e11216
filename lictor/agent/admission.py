"""Who may be in a pool: agents of the same datacenter, from the networks that are allowed, each with an id of its own.

Members that are no agents (a plain Serf agent) may be in a datacenter's pool, where nobody takes them for nodes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

import msgspec

from lictor.agent.pool_tags import CLIENT, SERVER

IdHolder = Callable[[str], str]
"""The name of the living member that has a node id, or empty."""


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one pool; called with a node's name, host and tags, it returns why the node is refused, or nothing.
    `networks` empty allows all.
    """

    wan: bool
    datacenter: str
    node_id: str
    member_name: str
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    holder: IdHolder

    def __call__(self, name: str, host: str, tags: dict[str, str]) -> str:
        """See above; the texts are Consul's."""
        if self.networks and not any(ipaddress.ip_address(host) in network for network in self.networks):
            return f"{host} is not allowed"
        if self.wan:
            return "" if tags.get("role") == SERVER else f"Member '{name}' is not a server"
        role, datacenter, node_id = tags.get("role"), tags.get("dc", ""), tags.get("id", "")
        if role in (SERVER, CLIENT) and datacenter != self.datacenter:
            return f"Member '{name}' part of wrong datacenter '{datacenter}'"
        if role in (SERVER, CLIENT) and tags.get("segment"):
            return f"Member '{name}' part of wrong segment '{tags['segment']}' (expected '')"
        if not node_id:
            return ""
        if node_id == self.node_id and name != self.member_name:
            return f"Member '{name}' has conflicting node ID '{node_id}' with this agent's ID"
        holder = self.holder(node_id)
        if holder and holder != name:
            return f"Member '{name}' has conflicting node ID '{node_id}' with member '{holder}'"
        return ""


def networks_of(texts: Iterable[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Networks as the configuration names them; they have been judged when it was loaded."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
