"""Whether entries go together: the checks that need more than one entry.

A service's chain is what a request for it can pass through: its router, splitters, resolvers with their redirects and
failovers, and the services that these name. All services of a chain speak one protocol, routing and splitting need one
that has requests, and a subset that is named must be defined. An ingress gateway's listener speaks its services'
protocol. A change that would break this is refused, be it the writing or the deletion of an entry. One exception, as
in Consul: a change elsewhere may leave a tcp listener with a service that now speaks http, or no protocol could ever
be changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lictor.model.config_entry.decode import InvalidConfigEntry
from lictor.model.config_entry.defaults import ProxyDefaults, ServiceDefaults
from lictor.model.config_entry.discovery_chain import ServiceResolver, ServiceRouter, ServiceSplitter
from lictor.model.config_entry.entry import WILDCARD, ConfigEntry, is_http_like, quoted, require
from lictor.model.config_entry.gateways import IngressGateway

__all__ = ["check_graph", "check_permissions", "service_protocol"]

Entries = Mapping[tuple[str, str], ConfigEntry]
"""Entries by kind and name."""

_CHAIN_KINDS = ("service-router", "service-splitter", "service-resolver")


class _Target(NamedTuple):
    """What a resolver resolves: a subset (empty: the default one) of a service, here (empty) or elsewhere."""

    service: str
    subset: str = ""
    elsewhere: tuple[str, ...] = ()


def service_protocol(name: str, entries: Entries) -> str:
    """The protocol that a service speaks: that of its own defaults, where it has none that of all, else tcp.

    As in Consul's discovery chains, a service with defaults of its own that name no protocol speaks tcp.
    """
    own = entries.get(("service-defaults", name))
    if isinstance(own, ServiceDefaults):
        return own.protocol or "tcp"
    general = entries.get(("proxy-defaults", "global"))
    protocol = (general.config or {}).get("protocol") if isinstance(general, ProxyDefaults) else None
    return protocol if isinstance(protocol, str) and protocol else "tcp"


def check_permissions(destination: str, entries: Entries) -> None:
    """Raise InvalidConfigEntry where a service that has intentions with permissions speaks a protocol that has no
    requests.
    """
    protocol = service_protocol(destination, entries)
    text = f"service {quoted(destination)} has protocol {quoted(protocol)}, "
    require(is_http_like(protocol), text + "which is incompatible with L7 intentions permissions")


def check_graph(kind: str, name: str, entries: Entries) -> None:
    """Raise InvalidConfigEntry when `entries` do not go together.

    They are as they would be after a change to the entry `kind`/`name`. Only what it can have broken is looked at.
    """
    changed = entries.get((kind, name))
    if isinstance(changed, IngressGateway):
        for mismatch in _mismatches(changed, entries):
            raise InvalidConfigEntry(mismatch.reason)
        return
    if kind == "proxy-defaults":
        services = sorted({key[1] for key in entries if key[0] in _CHAIN_KINDS})
    elif kind == "service-defaults" or kind in _CHAIN_KINDS:
        services = [name, *sorted(_services_leading_to(name, entries) - {name})]
    else:
        return
    for service in services:
        _Chain(service, entries).check()
    for gateway in [entry for entry in entries.values() if isinstance(entry, IngressGateway)]:
        for mismatch in _mismatches(gateway, entries):
            if not mismatch.tolerable and (kind == "proxy-defaults" or mismatch.service in services):
                raise InvalidConfigEntry(mismatch.reason)


class _Mismatch(NamedTuple):
    """A listener that does not speak its service's protocol.

    It is tolerable where the listener passes bytes to a service that is not routed or split: what it speaks then does
    not matter.
    """

    service: str
    reason: str
    tolerable: bool


def _mismatches(gateway: IngressGateway, entries: Entries) -> Iterator[_Mismatch]:
    for listener in gateway.listeners or ():
        for service in listener.services or ():
            if service.name == WILDCARD:
                continue
            chain = _Chain(service.name, entries)
            protocol = chain.check()
            if protocol != listener.protocol:
                text = f"service {quoted(service.name)} has protocol {quoted(protocol)}, which does not match defined "
                text += f"listener protocol {quoted(listener.protocol)}"
                yield _Mismatch(service.name, text, listener.protocol == "tcp" and not chain.routed)


def _named(entry: ConfigEntry) -> set[str]:
    """The services that a router, splitter or resolver names."""
    if isinstance(entry, ServiceRouter):
        return {
            route.destination.service or entry.name for route in entry.routes or () if route.destination is not None
        }
    if isinstance(entry, ServiceSplitter):
        return {split.service or entry.name for split in entry.splits or ()}
    if isinstance(entry, ServiceResolver):
        named = {entry.redirect.service or entry.name} if entry.redirect is not None else set()
        for failover in (entry.failover or {}).values():
            named.add(failover.service or entry.name)
            named |= {target.service or entry.name for target in failover.targets if not target.peer}
        return named
    return set()


def _services_leading_to(name: str, entries: Entries) -> set[str]:
    """The services whose chains may reach a service."""
    reaching = {name}
    growing = True
    while growing:
        found = {entry.name for entry in entries.values() if entry.name not in reaching and _named(entry) & reaching}
        reaching |= found
        growing = bool(found)
    return reaching


class _Chain:
    """Walks a service's chain."""

    def __init__(self, service: str, entries: Entries) -> None:
        self.service = service
        self.entries = entries
        self.protocol = ""
        self.routed = False
        self.splitting: list[str] = []
        self.resolved: set[_Target] = set()

    def check(self) -> str:
        """The protocol of the chain. Raises InvalidConfigEntry when it cannot be."""
        router = self.entries.get(("service-router", self.service))
        if isinstance(router, ServiceRouter):
            self.routed = True
            self.record_protocol(self.service)
            for target in _route_targets(router):
                self.follow(target)
        self.follow(_Target(self.service))
        text = f"discovery chain {quoted(self.service)} uses a protocol {quoted(self.protocol)} "
        require(
            not self.routed or is_http_like(self.protocol),
            text + "that does not permit advanced routing or splitting behavior",
        )
        return self.protocol

    def follow(self, target: _Target) -> None:
        """A splitter divides a service where no subset is asked for; all else is resolved."""
        splitter = self.entries.get(("service-splitter", target.service))
        if target.subset or target.elsewhere or not isinstance(splitter, ServiceSplitter):
            self.resolve(target)
            return
        self.routed = True
        if target.service in self.splitting:
            names = [f"splitter:{service}.default" for service in [*self.splitting, target.service]]
            if ("service-router", self.service) in self.entries:
                names.insert(0, f"router:{self.service}.default")
            path = " -> ".join(names)
            raise InvalidConfigEntry(f"detected circular reference: [{path}]")
        self.splitting.append(target.service)
        for split in splitter.splits or ():
            part = _Target(split.service or target.service, split.service_subset)
            if part.service == target.service:
                self.resolve(part)
            else:
                self.follow(part)
        self.splitting.pop()

    def resolve(self, target: _Target) -> None:
        settled = self.settle(target)
        if settled is None:
            return
        target, resolver = settled
        failovers = resolver.failover or {}
        failover = failovers.get(target.subset) or failovers.get(WILDCARD)
        if failover is None:
            return
        # What a failover leads to has no failover of its own.
        if not failover.targets:
            self.settle(_Target(failover.service or target.service, failover.service_subset, (WILDCARD,)))
        for one in failover.targets:
            if not one.peer:
                self.settle(_Target(one.service or target.service, one.service_subset, (WILDCARD, one.datacenter)))

    def settle(self, target: _Target) -> tuple[_Target, ServiceResolver] | None:
        """Where redirects and default subsets lead, and the resolver there; None if that was looked at before."""
        redirects = [target]
        while True:
            if target in self.resolved:
                return None
            self.record_protocol(target.service)
            resolver = self.entries.get(("service-resolver", target.service))
            if not isinstance(resolver, ServiceResolver):
                resolver = ServiceResolver(name=target.service)
            following = _redirected(resolver, target)
            if following is None:
                break
            if following in redirects:
                shown = " -> ".join(one.service for one in [*redirects, following])
                raise InvalidConfigEntry(f"detected circular resolver redirect: [{shown}]")
            redirects.append(following)
            target = following
        self.resolved.update(redirects)
        known = not target.subset or target.subset in (resolver.subsets or {})
        require(known, f"service {quoted(target.service)} does not have a subset named {quoted(target.subset)}")
        self.check_external(target.service, resolver)
        return target, resolver

    def check_external(self, service: str, resolver: ServiceResolver) -> None:
        defaults = self.entries.get(("service-defaults", service))
        if isinstance(defaults, ServiceDefaults) and defaults.external_sni:
            for what, given in (
                ("subsets", resolver.subsets),
                ("redirects", resolver.redirect),
                ("failover", resolver.failover),
            ):
                text = f"service {quoted(service)} has an external SNI set; cannot define {what} for external services"
                require(not given, text)

    def record_protocol(self, service: str) -> None:
        protocol = service_protocol(service, self.entries)
        self.protocol = self.protocol or protocol
        text = f"discovery chain {quoted(self.service)} uses inconsistent protocols; "
        text += f"service {quoted(service)} has {quoted(protocol)} which is not {quoted(self.protocol)}"
        require(protocol == self.protocol, text)


def _route_targets(router: ServiceRouter) -> Iterator[_Target]:
    for route in router.routes or ():
        if route.destination is not None:
            yield _Target(route.destination.service or router.name, route.destination.service_subset)


def _redirected(resolver: ServiceResolver, target: _Target) -> _Target | None:
    """What is resolved instead of `target`: where it is redirected to, or the default subset; None for itself."""
    redirect = resolver.redirect
    if redirect is not None and not redirect.peer:
        service = redirect.service or target.service
        subset = redirect.service_subset or (target.subset if service == target.service else "")
        elsewhere = tuple(place for place in (redirect.datacenter, redirect.partition, redirect.namespace) if place)
        following = _Target(service, subset, elsewhere or target.elsewhere)
        if following != target:
            return following
    if not target.subset and resolver.default_subset:
        return target._replace(subset=resolver.default_subset)
    return None
