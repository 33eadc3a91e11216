"""From a snapshot of what a proxy needs to Envoy's resources: pure, and the same bytes for an equal snapshot.

    resources = compile_proxy(snapshot)
    resources.by_type[names.CLUSTER]["local_app"].body

Steps: listeners ask the `chain` where an upstream leads, clusters and endpoints are made of its targets; extensions
patch what was made. What people wrote that cannot be used is in `problems`, and does not keep the rest from being made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from lictor.connect_proxy.envoy import chain, clusters, extensions, names, public_listener, tls, upstream_listeners
from lictor.connect_proxy.envoy.protobuf import pack
from lictor.connect_proxy.envoy.settings import read_proxy
from lictor.connect_proxy.envoy.snapshot import Leaf, ProxySnapshot

_NO_LEAF = Leaf("", "")


class Resource(msgspec.Struct, frozen=True):
    """One resource, as an encoded `Any`. `version` is a hash of it. `needs` are the type and the name of what Envoy
    asks for anew when it takes this over.
    """

    name: str
    version: str
    body: bytes
    needs: tuple[tuple[str, str], ...] = ()


class Resources(msgspec.Struct, frozen=True):
    """Every resource by type and name, and what could not be used of what people wrote."""

    by_type: Mapping[str, Mapping[str, Resource]]
    problems: tuple[str, ...] = ()


def messages(snapshot: ProxySnapshot, problems: list[str]) -> dict[str, list[Any]]:
    """What is made, by type, as messages."""
    settings, unread = read_proxy(snapshot.proxy.config)
    problems += unread
    made = {
        names.CLUSTER: clusters.clusters(snapshot, settings, problems),
        names.ENDPOINTS: clusters.endpoints(snapshot),
        names.SECRET: tls.secrets(snapshot),
        names.LISTENER: [
            public_listener.listener(snapshot, settings, problems),
            *public_listener.exposed(snapshot, problems),
            *upstream_listeners.listeners(snapshot, settings, problems),
        ],
        names.ROUTES: [*public_listener.routes(snapshot, settings, problems), *chain.routes(snapshot)],
    }
    extensions.apply(snapshot, made, problems)
    return made


def compile_proxy(snapshot: ProxySnapshot) -> Resources:
    """See above."""
    problems: list[str] = []
    by_type = {}
    for kind, found in messages(snapshot, problems).items():
        by_type[kind] = _by_name(kind, found)
        if len(by_type[kind]) != len(found):
            problems.append(f"several resources of type {names.short(kind)} have one name; the last of them is used")
    return Resources(by_type, tuple(dict.fromkeys(problems)))


def recompile(snapshot: ProxySnapshot, before: ProxySnapshot, made: Resources) -> Resources:
    """The same as `compile_proxy`, where `made` is what that made of `before`. What changes most, instances and
    certificates, costs no more than these.
    """
    if snapshot.proxy.envoy_extensions or _lasting(snapshot) != _lasting(before):
        return compile_proxy(snapshot)
    anew = {names.ENDPOINTS: clusters.endpoints(snapshot), names.SECRET: tls.secrets(snapshot)}
    changed = {kind: _by_name(kind, found) for kind, found in anew.items()}
    return Resources({**made.by_type, **changed}, made.problems)


def _lasting(snapshot: ProxySnapshot) -> ProxySnapshot:
    """A snapshot without instances and certificates."""
    upstreams = tuple(
        msgspec.structs.replace(needs, target=msgspec.structs.replace(needs.target, endpoints=()))
        for needs in snapshot.upstreams
    )
    return msgspec.structs.replace(snapshot, upstreams=upstreams, leaf=_NO_LEAF, roots=())


def _by_name(kind: str, found: Iterable[Any]) -> dict[str, Resource]:
    resources = (_resource(kind, message) for message in found)
    return {one.name: one for one in resources}


def resource_name(kind: str, message: Any) -> str:
    """A resource's name."""
    return str(message.cluster_name if kind == names.ENDPOINTS else message.name)


def _resource(kind: str, message: Any) -> Resource:
    body = pack(message).SerializeToString(deterministic=True)
    version = hashlib.blake2b(body, digest_size=8).hexdigest()
    name = resource_name(kind, message)
    return Resource(name, version, body, _needs(kind, name, message))


def _needs(kind: str, name: str, message: Any) -> tuple[tuple[str, str], ...]:
    """A cluster's endpoints are asked for anew when the cluster changes, and so are a listener's routes."""
    if kind == names.CLUSTER and message.type == message.EDS:
        return ((names.ENDPOINTS, message.eds_cluster_config.service_name or name),)
    if kind == names.LISTENER:
        return tuple((names.ROUTES, route) for route in _route_names(message))
    return ()


def _route_names(listener: Any) -> list[str]:
    found = []
    for filter_chain in [*listener.filter_chains, listener.default_filter_chain]:
        for one in filter_chain.filters:
            manager = HttpConnectionManager()
            if one.typed_config.Unpack(manager) and manager.HasField("rds"):
                found.append(manager.rds.route_config_name)
    return found
