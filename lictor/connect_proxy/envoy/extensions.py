"""Extensions: what config entries' `EnvoyExtensions` change of what was made.

| name | what it does |
| --- | --- |
| `builtin/property-override` | sets or removes fields of clusters, listeners, routes, endpoints, by their paths |
| `builtin/lua` | runs a script on each request of a service that speaks HTTP |

Another, or one whose arguments cannot be used, changes nothing and is reported; all the more so a required one.
"""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as manager_pb2
from google.protobuf import json_format

from lictor.connect_proxy.envoy import names
from lictor.connect_proxy.envoy.http_manager import NAME as MANAGER
from lictor.connect_proxy.envoy.overrides import read_message
from lictor.connect_proxy.envoy.protobuf import pack
from lictor.connect_proxy.envoy.snapshot import ProxySnapshot

_TYPES = {
    "cluster": names.CLUSTER,
    "cluster-load-assignment": names.ENDPOINTS,
    "listener": names.LISTENER,
    "route": names.ROUTES,
}
_DEEPEST = 32

Made = dict[str, list[Any]]


class Unusable(ValueError):
    """Arguments that cannot be used; the message says which."""


def apply(snapshot: ProxySnapshot, made: Made, problems: list[str]) -> None:
    """Apply a proxy's extensions in their order, each whole or not at all."""
    for extension in snapshot.proxy.envoy_extensions:
        name = str(extension.get("Name", ""))
        arguments = extension.get("Arguments") or {}
        try:
            if name == "builtin/property-override":
                changed = _override(arguments, snapshot, made)
            elif name == "builtin/lua":
                changed = _lua(arguments, made)
            else:
                raise Unusable("there is no such extension")
        except (Unusable, ValueError, TypeError, AttributeError, json_format.ParseError) as error:
            needed = " although it is required" if extension.get("Required") else ""
            problems.append(f"extension {name} is left out{needed}: {error}")
        else:
            made.update(changed)


def is_inbound(kind: str, message: Any) -> bool:
    """Whether a resource is about connections to the proxy's own service."""
    if kind == names.LISTENER:
        return bool(message.traffic_direction == 1)
    return kind != names.ENDPOINTS and message.name in (names.LOCAL_APP, names.PUBLIC)


def _override(arguments: dict[str, Any], snapshot: ProxySnapshot, made: Made) -> Made:
    changed = dict(made)
    for patch in _list(arguments, "Patches"):
        wanted = patch.get("ResourceFilter") or {}
        kind = _TYPES.get(str(wanted.get("ResourceType", "")))
        direction = wanted.get("TrafficDirection")
        if kind is None or direction not in ("inbound", "outbound"):
            raise Unusable(f"ResourceType must be one of {', '.join(_TYPES)}, and TrafficDirection inbound or outbound")
        services = {str(one.get("Name", "")) for one in wanted.get("Services") or ()}
        changed[kind] = [
            _patched(message, patch)
            if is_inbound(kind, message) == (direction == "inbound") and _concerns(kind, message, services, snapshot)
            else message
            for message in changed[kind]
        ]
    return changed


def _concerns(kind: str, message: Any, services: set[str], snapshot: ProxySnapshot) -> bool:
    """Whether a resource is that of one of the services; all are where none is named."""
    if not services:
        return True
    name = str(message.cluster_name if kind == names.ENDPOINTS else message.name)
    for needs in snapshot.upstreams:
        if needs.target.service in services and (
            name in (needs.name, names.cluster_of(needs, snapshot)) or name.startswith(f"{needs.name}:")
        ):
            return True
    return snapshot.service in services and is_inbound(kind, message)


def _patched(message: Any, patch: dict[str, Any]) -> Any:
    path = str(patch.get("Path", ""))
    steps = path.strip("/").split("/")
    operation = patch.get("Op")
    if not path.startswith("/") or not all(steps) or len(steps) > _DEEPEST:
        raise Unusable(f'Path must be like "/outlier_detection/interval", not "{path}"')
    if operation not in ("add", "remove"):
        raise Unusable(f'Op must be add or remove, not "{operation}"')
    tree = json_format.MessageToDict(message, preserving_proto_field_name=True)
    place = tree
    for step in steps[:-1]:
        if operation == "remove" and step not in place:
            return message
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            raise Unusable(f'"{path}" leads through {step}, which has no fields')
    if operation == "add":
        place[steps[-1]] = patch.get("Value")
    else:
        place.pop(steps[-1], None)
    return read_message(tree, type(message)())


def _lua(arguments: dict[str, Any], made: Made) -> Made:
    script, side = arguments.get("Script"), arguments.get("Listener")
    if not isinstance(script, str) or not script or side not in ("inbound", "outbound"):
        raise Unusable("it needs a Script, and a Listener that is inbound or outbound")
    config = lua_pb2.Lua(default_source_code=base_pb2.DataSource(inline_string=script))
    added = manager_pb2.HttpFilter(name="envoy.filters.http.lua", typed_config=pack(config))
    listeners = []
    for message in made[names.LISTENER]:
        if is_inbound(names.LISTENER, message) == (side == "inbound"):
            changed = type(message)()
            changed.CopyFrom(message)
            for chain in changed.filter_chains:
                for one in chain.filters:
                    if one.name == MANAGER:
                        _before_router(one, added)
            message = changed
        listeners.append(message)
    return {**made, names.LISTENER: listeners}


def _before_router(one: Any, added: Any) -> None:
    manager = manager_pb2.HttpConnectionManager()
    one.typed_config.Unpack(manager)
    manager.http_filters.insert(len(manager.http_filters) - 1, added)
    one.typed_config.CopyFrom(pack(manager))


def _list(arguments: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = arguments.get(key)
    if not isinstance(found, list | tuple) or not all(isinstance(one, dict) for one in found):
        raise Unusable(f"{key} must be a list of objects")
    return list(found)
