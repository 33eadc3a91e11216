"""Virtual addresses given to services and taken back: a part of the commands that make a service need one.

A service has one as long as an instance takes connections of the mesh for it, or a config entry is about it. Which
one it is follows from its name, unless two of a cluster's services prefer the same: then the later one has the next
that is free.

Topics: `("virtual-ips",)` any of them, `("virtual-ip", s)` that of a service.
"""

from collections.abc import Iterator

import msgspec

from lictor.model.service import NodeService, ServiceAddress
from lictor.model.virtual_ip import COUNT, TAG, VirtualIP, numbered, preferred
from lictor.store.store import Store

KINDS = ("service-defaults", "service-intentions", "service-resolver", "service-router", "service-splitter")
"""The kinds of config entries that give the service of their name an address."""
_NO_SERVICE = frozenset(("", "*"))


def addressed(store: Store, service: NodeService) -> NodeService:
    """An instance that is about to be put, with the address of its service if it takes connections of the mesh."""
    name = service.connect_name.lower()
    if name in _NO_SERVICE:
        return service
    # Most instances have no other tagged address, and the port of the others: what says it is kept once for them.
    other = next(iter(store.services.by("connect", name).values()), None)
    shared = other.service.tagged_addresses if other is not None else None
    if shared and len(shared) == 1 and shared[TAG].port == service.port and not service.tagged_addresses:
        return msgspec.structs.replace(service, tagged_addresses=shared)
    return _tagged(service, _assign(store, name))


def assign(store: Store, kind: str, name: str) -> None:
    """A config entry is put: its service has an address from now on."""
    if kind in KINDS and name not in _NO_SERVICE:
        _assign(store, name.lower())


def release(store: Store, name: str) -> None:
    """An instance or an entry of a service is gone: its address is free once nothing needs it."""
    key = name.lower()
    if store.virtual_ips.get(key) is None or _is_needed(store, key):
        return
    store.virtual_ips.delete(key)
    store.touch("virtual-ips")
    store.depart("virtual-ip", key)


def derive(store: Store) -> Iterator[None]:
    """Give addresses in a state that was made before there were any, a service a step. They are the same wherever it
    is done, as they follow from the names.
    """
    names = {str(name) for name in store.services.indexes["connect"].values()}
    names |= {name for kind in KINDS for _, name in store.config.by("kind", kind)}
    for name in sorted(names - _NO_SERVICE):
        address = _free(store, name)
        store.virtual_ips.fill((VirtualIP(name, address),))
        instances = store.services.by("connect", name).values()
        store.services.fill([msgspec.structs.replace(i, service=_tagged(i.service, address)) for i in instances])
        yield


def _assign(store: Store, name: str) -> str:
    found = store.virtual_ips.get(name)
    if found is not None:
        return found.address
    address = _free(store, name)
    store.virtual_ips.put(VirtualIP(name, address))
    store.touch("virtual-ips")
    store.touch("virtual-ip", name)
    return address


def _free(store: Store, name: str) -> str:
    start = preferred(name)
    candidates = (numbered(start + step) for step in range(COUNT))
    return next(address for address in candidates if not store.virtual_ips.by("address", address))


def _is_needed(store: Store, name: str) -> bool:
    return bool(store.services.by("connect", name)) or any(store.config.get((kind, name)) for kind in KINDS)


def _tagged(service: NodeService, address: str) -> NodeService:
    addresses = {**(service.tagged_addresses or {}), TAG: ServiceAddress(address, service.port)}
    return msgspec.structs.replace(service, tagged_addresses=addresses)
