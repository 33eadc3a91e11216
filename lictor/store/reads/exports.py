"""Reads of what is exported to other clusters, as the `exported-services` entry says."""

from typing import Any

from lictor.store.store import View, config_key

ENTRY = ("exported-services", "default")
WILDCARD = "*"
SERVERS = "consul"


def exported_services(view: View) -> dict[str, list[str]]:
    """The peers that each exported service is for, both in order. A wildcard stands for every plain service, a sameness
    group for its peers.
    """
    view.saw("config", *ENTRY)
    row = view.store.config.get(ENTRY)
    found: dict[str, set[str]] = {}
    for service in (row.body.get("Services") or ()) if row is not None else ():
        peers = _peers(view, service.get("Consumers") or ())
        for name in _names(view, service.get("Name", "")):
            found.setdefault(name, set()).update(peers)
    return {name: sorted(peers) for name, peers in sorted(found.items()) if peers}


def _names(view: View, name: str) -> list[str]:
    if name != WILDCARD:
        return [name]
    view.saw("services")
    names = {instance.service.service for instance in view.store.services if not instance.service.kind}
    return sorted(names - {SERVERS})


def _peers(view: View, consumers: Any) -> set[str]:
    peers: set[str] = set()
    for consumer in consumers:
        if consumer.get("Peer"):
            peers.add(consumer["Peer"])
        group = consumer.get("SamenessGroup")
        if group:
            key = config_key("sameness-group", group)
            view.saw("config", *key)
            row = view.store.config.get(key)
            members = (row.body.get("Members") or ()) if row is not None else ()
            peers.update(member["Peer"] for member in members if member.get("Peer"))
    return peers
