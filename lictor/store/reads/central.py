"""Services with the central configuration merged in, as `merge-central-config` shows them, and what else the defaults
say of a service and how it is reached."""

from collections.abc import Mapping
from typing import Any

import msgspec

from lictor.model.config_entry import merge_central_config, read_entry
from lictor.model.config_entry.defaults import PERMISSIVE, InstanceLevelRateLimits, ProxyDefaults, ServiceDefaults
from lictor.model.service import CONNECT_PROXY, NodeService
from lictor.store.store import ConfigRow, View, config_key

GLOBAL = "global"
DEFAULT_PROTOCOL = "tcp"
# The kinds whose proxies use the global defaults alone.
GATEWAYS = frozenset({"mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway"})


def centrally(view: View, service: NodeService) -> NodeService:
    """A service whose proxy block has what `service-defaults` and `proxy-defaults` say; others are as they are."""
    if service.kind != CONNECT_PROXY and service.kind not in GATEWAYS:
        return service
    name = service.proxy.destination_service_name if service.kind == CONNECT_PROXY else service.service
    own = _service_defaults(view, name)
    upstreams: dict[str, ServiceDefaults] = {}
    wanted = {u.destination_name for u in service.proxy.upstreams if not u.destination_peer}
    if own is not None and own.upstream_config is not None:
        wanted |= {override.name for override in own.upstream_config.overrides if not override.peer}
    for upstream in sorted(wanted):
        defaults = _service_defaults(view, upstream)
        if defaults is not None:
            upstreams[upstream] = defaults
    merged = merge_central_config(service.proxy, own, _proxy_defaults(view), upstreams)
    return msgspec.structs.replace(service, proxy=merged)


def protocol_of(view: View, service: str) -> str:
    """The protocol that a service speaks: its own defaults', else the global ones', else `tcp`."""
    own = _service_defaults(view, service)
    if own is not None:
        return own.protocol or DEFAULT_PROTOCOL
    general = _proxy_defaults(view)
    config: Mapping[str, Any] = (general.config or {}) if general is not None else {}
    return str(config.get("protocol") or DEFAULT_PROTOCOL)


def is_permissive(view: View, service: str) -> bool:
    """Whether a service is also reached without the mesh's TLS: by its own defaults, else the global ones. No
    registration can say so.
    """
    own, general = _service_defaults(view, service), _proxy_defaults(view)
    mode = own.mutual_tls_mode if own is not None else ""
    return (mode or (general.mutual_tls_mode if general is not None else "")) == PERMISSIVE


def request_limits(view: View, service: str) -> InstanceLevelRateLimits | None:
    """The limits of requests to each instance of a service; None where there are none."""
    own = _service_defaults(view, service)
    return own.rate_limits.instance_level if own is not None and own.rate_limits is not None else None


def is_dialed_directly(view: View, service: str) -> bool:
    """Whether the defaults let transparent proxies reach each instance of a service by its own address."""
    own, general = _service_defaults(view, service), _proxy_defaults(view)
    return any(one is not None and one.transparent_proxy.dialed_directly for one in (own, general))


def _row(view: View, kind: str, name: str) -> ConfigRow | None:
    key = config_key(kind, name)
    view.saw("config", *key)
    return view.store.config.get(key)


def _service_defaults(view: View, name: str) -> ServiceDefaults | None:
    row = _row(view, "service-defaults", name)
    found = read_entry(row.body) if row is not None else None
    return found if isinstance(found, ServiceDefaults) else None


def _proxy_defaults(view: View) -> ProxyDefaults | None:
    row = _row(view, "proxy-defaults", GLOBAL)
    found = read_entry(row.body) if row is not None else None
    return found if isinstance(found, ProxyDefaults) else None
