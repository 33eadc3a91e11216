"""Reads of the virtual addresses of services."""

from lictor.model.virtual_ip import VirtualIP
from lictor.store.store import View


def virtual_ip(view: View, service: str) -> str | None:
    """The address that stands for a service, None where it has none."""
    key = service.lower()
    view.saw("virtual-ip", key)
    found = view.store.virtual_ips.get(key)
    return found.address if found is not None else None


def virtual_ips(view: View) -> list[VirtualIP]:
    """All of them, by the names of the services."""
    view.saw("virtual-ips")
    return list(view.store.virtual_ips.rows.in_order())
