"""From address keys to addresses: templates expanded, defaults applied, listeners laid out.

Its own file because the rules for which address stands in for which are a subject of their own: `addresses.*` falls
back to `client_addr`, gossip to `bind_addr`, and what is advertised to the one address others could reach. Pure: the
machine's addresses are handed in, and problems are handed out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

import msgspec

from lictor.agent.config.join_sources import is_provider, read_sources
from lictor.agent.config.keys import Endpoint, Listen, RuntimeConfig
from lictor.agent.config.sockaddr import InterfaceAddress, TemplateError, expand

UNIX = "unix://"
ANY_ADDRESSES = ("0.0.0.0", "::", "[::]")

Report = Callable[[tuple[str, ...], str], None]
"""Takes a key's path and what is wrong with it."""


class Addressing:
    """Resolves the addresses of one configuration; `report` is told every problem, `warnings` gathers the rest."""

    def __init__(self, config: RuntimeConfig, interfaces: Sequence[InterfaceAddress], report: Report) -> None:
        self.config = config
        self.interfaces = interfaces
        self.report = report
        self.warnings: list[str] = []
        self.unexpanded: set[tuple[str, ...]] = set()

    def resolved(self) -> RuntimeConfig:
        """The configuration with every template expanded and every computed address set."""
        config = self.config
        bind = self._bind()
        client = self._many(("client_addr",), config.client_addr)
        if not client and not config.client_addr.strip():
            self.warnings.append(
                "client_addr is empty, client services (DNS, HTTP, HTTPS, GRPC) will not be listening for connections"
            )
        serf_lan = self._one(("serf_lan",), config.serf_lan) or bind
        serf_wan = self._one(("serf_wan",), config.serf_wan) or bind
        lan = self._advertise(bind)
        wan = self._one(("advertise_addr_wan",), config.advertise_addr_wan) or lan
        if wan in ANY_ADDRESSES:
            self.report(("advertise_addr_wan",), "Advertise WAN address cannot be 0.0.0.0, :: or [::]")
        ports = config.ports
        rpc = ports.server
        lan_joins = self._texts("retry_join", config.retry_join)
        wan_joins = self._texts("retry_join_wan", config.retry_join_wan)
        return msgspec.structs.replace(
            config,
            bind_addr=bind,
            client_addrs=tuple(client),
            serf_lan=serf_lan,
            serf_wan=serf_wan,
            advertise_addr=lan,
            advertise_addr_wan=wan,
            tagged_addresses={**self._tagged(lan, wan), **config.tagged_addresses},
            listen=self._listen(client, bind, serf_lan, serf_wan),
            advertise_rpc=Endpoint("tcp", lan, rpc) if rpc > 0 and lan else None,
            advertise_serf_lan=Endpoint("tcp", lan, ports.serf_lan) if ports.serf_lan > 0 and lan else None,
            advertise_serf_wan=Endpoint("tcp", wan, ports.serf_wan) if ports.serf_wan > 0 and wan else None,
            retry_join=lan_joins,
            retry_join_wan=wan_joins,
            join_lan=read_sources("retry_join", lan_joins, self.report, self.warnings),
            join_wan=read_sources("retry_join_wan", wan_joins, self.report, self.warnings),
            recursors=self._recursors(),
        )

    # -- single keys -----------------------------------------------------------------------------------------------

    def _expand(self, path: tuple[str, ...], text: str) -> str:
        try:
            return expand(text, self.interfaces)
        except TemplateError as error:
            self.report(path, f'error parsing "{text}": {error}')
            self.unexpanded.add(path)
            return ""

    def _many(self, path: tuple[str, ...], text: str) -> list[str]:
        """The addresses that a key names: IP addresses as Python writes them, and sockets with `unix://`."""
        found: list[str] = []
        for word in self._expand(path, text).split():
            if word.startswith(UNIX):
                found.append(word)
                continue
            try:
                found.append(str(ipaddress.ip_address(word.strip("[]"))))
            except ValueError:
                self.report(path, f"invalid ip address: {word}")
        return list(dict.fromkeys(found))

    def _one(self, path: tuple[str, ...], text: str) -> str:
        if not text.strip():
            return ""
        key = ".".join(path)
        addresses = self._many(path, text)
        if len(addresses) > 1:
            self.report(path, f'{key}: multiple addresses found: "{text}"')
            return ""
        if addresses and addresses[0].startswith(UNIX):
            self.report(path, f"{key} cannot be a unix socket")
            return ""
        return addresses[0] if addresses else ""

    def _bind(self) -> str:
        path = ("bind_addr",)
        text = self._expand(path, self.config.bind_addr).strip()
        words = text.split()
        if path in self.unexpanded:
            return ""
        if not words:
            self.report(path, "bind_addr cannot be empty")
        elif len(words) > 1:
            self.report(path, "bind_addr cannot contain multiple addresses. Use 'addresses.{dns,http,https}' instead.")
        elif words[0].startswith(UNIX):
            self.report(path, "bind_addr cannot be a unix socket")
        else:
            addresses = self._many(path, words[0])
            return addresses[0] if addresses else ""
        return ""

    def _advertise(self, bind: str) -> str:
        config = self.config
        path = ("advertise_addr",)
        given = self._one(path, config.advertise_addr)
        for key in ("advertise_addr_ipv4", "advertise_addr_ipv6"):
            family = self._one((key,), getattr(config, key))
            if family and ipaddress.ip_address(family).version != (4 if key.endswith("4") else 6):
                self.report((key,), f"{key} must be an IPv{key[-1]} address")
            given = given or family
        if given in ANY_ADDRESSES:
            self.report(path, "Advertise address cannot be 0.0.0.0, :: or [::]")
            return ""
        if given or bind not in ANY_ADDRESSES:
            return given or bind
        return self._detected(4 if bind == "0.0.0.0" else 6)

    def _detected(self, version: int) -> str:
        """The one address that others can reach, for an agent bound to every address."""
        kind = "private IPv4" if version == 4 else "public IPv6"
        candidates = [
            one.address
            for one in self.interfaces
            if one.ip.version == version
            and not one.ip.is_loopback
            and (one.is_private if version == 4 else not one.is_private and not one.ip.is_link_local)
        ]
        if len(candidates) == 1:
            return candidates[0]
        many = f"Multiple {kind} addresses found. Please configure one with 'bind' and/or 'advertise'."
        self.report(("advertise_addr",), many if candidates else f"No {kind} address found")
        return ""

    def _tagged(self, lan: str, wan: str) -> dict[str, str]:
        tagged: dict[str, str] = {}
        for tag, address in (("lan", lan), ("wan", wan)):
            if not address:
                continue
            tagged[tag] = address
            tagged[f"{tag}_ipv{ipaddress.ip_address(address).version}"] = address
            prefix = "advertise_addr" if tag == "lan" else "advertise_addr_wan"
            for version in (4, 6):
                family = self._one((f"{prefix}_ipv{version}",), getattr(self.config, f"{prefix}_ipv{version}"))
                if family:
                    tagged[f"{tag}_ipv{version}"] = family
        return tagged

    def _texts(self, key: str, texts: Sequence[str]) -> tuple[str, ...]:
        found: list[str] = []
        for text in texts:
            expanded = self._expand((key,), text) if "{{" in text else text
            found += expanded.split() if "{{" in text and not is_provider(text) else [expanded]
        return tuple(found)

    def _recursors(self) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(self._texts("recursors", self.config.recursors)))
        for recursor in found:
            host, port = _split_host_port(recursor)
            if not host or (port and not (port.isdigit() and 0 < int(port[:6]) <= 65535)):
                self.report(("recursors",), f'recursor "{recursor}" must be an address, or an address and a port')
        return found

    # -- listeners -------------------------------------------------------------------------------------------------

    def _listen(self, client: list[str], bind: str, serf_lan: str, serf_wan: str) -> Listen:
        ports, addresses = self.config.ports, self.config.addresses
        doors: dict[str, tuple[Endpoint, ...]] = {}
        for name in ("dns", "http", "https", "grpc", "grpc_tls"):
            hosts = self._many(("addresses", name), getattr(addresses, name)) or client
            doors[name] = self._endpoints(name, hosts, getattr(ports, name))
        return Listen(
            **doors,
            rpc=Endpoint("tcp", bind, ports.server) if ports.server > 0 and bind else None,
            serf_lan=Endpoint("tcp", serf_lan, ports.serf_lan) if ports.serf_lan > 0 and serf_lan else None,
            serf_wan=Endpoint("tcp", serf_wan, ports.serf_wan) if ports.serf_wan > 0 and serf_wan else None,
        )

    def _endpoints(self, name: str, hosts: Sequence[str], port: int) -> tuple[Endpoint, ...]:
        found: list[Endpoint] = []
        for host in hosts:
            if host.startswith(UNIX):
                if name == "dns":
                    self.report(("addresses", "dns"), "DNS address cannot be a unix socket")
                    continue
                found.append(Endpoint("unix", host.removeprefix(UNIX)))
            elif port > 0:
                found += [Endpoint(network, host, port) for network in (("tcp", "udp") if name == "dns" else ("tcp",))]
        return tuple(found)


def _split_host_port(text: str) -> tuple[str, str]:
    """Host and port of `host`, `host:port`, `[v6]:port` or a bare IPv6 address; an empty host for none of these."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", ""
        return host, rest[1:]
    if text.count(":") > 1:
        return text, ""
    host, _, port = text.partition(":")
    return host, port
