"""What the proxy block of a registration means to the built-in proxy. Times in seconds.

The keys of `config` are those that Consul documents for its built-in proxy, and where that has none, for Envoy:

    proxy      bind_address, bind_port, local_service_address, local_connect_timeout_ms, handshake_timeout_ms,
               max_inbound_connections, proxy_protocol, accept_proxy_protocol, idle_timeout_ms, drain_timeout_ms,
               reuse_connections
    upstream   connect_timeout_ms, limits { max_connections }, passive_health_check { interval, max_failures,
               base_ejection_time, max_ejection_percent }, idle_timeout_ms, addresses, reuse_connections

A value that cannot be read is told by `Problems` and its default holds: one wrong word must not end a service's
connections. Keys that are not known are told as well, but for those of Envoy.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from lictor.connect_proxy.records import ProxyService
from lictor.model.duration import SECOND, parse_duration
from lictor.model.host_port import join_host_port, split_host_port
from lictor.model.service import AccessLogs, Upstream

HANDSHAKES = 1024  # handshakes under way on one listener at most
SOCKET_MODE = 0o600
STATIC = "static"
PREPARED_QUERY = "prepared_query"


class Address(msgspec.Struct, frozen=True):
    """Where to listen or connect: host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return self.path or join_host_port(self.host, self.port)


UpstreamKey = tuple[str, str, str, tuple[Address, ...]]


class InboundSettings(msgspec.Struct, frozen=True):
    """The listener that other proxies connect to. `max_connections` 0 is no limit, `proxy_protocol` "" for none.
    `reuse` lets TLS connections with other built-in proxies be used again, where no PROXY header tells of their ends.
    """

    bind: Address
    target: Address
    connect_timeout: float = 1.0
    handshake_timeout: float = 10.0
    max_connections: int = 0
    max_handshakes: int = HANDSHAKES
    proxy_protocol: str = ""
    accept_proxy_protocol: bool = False
    idle_timeout: float = 3600.0
    reuse: bool = True

    @property
    def reuses(self) -> bool:
        """Whether TLS connections may be used again."""
        return self.reuse and not self.proxy_protocol and not self.accept_proxy_protocol


class Ejection(msgspec.Struct, frozen=True):
    """When an endpoint is left out: after so many failures in a row within `interval`, for `base_time`, longer each
    time, at most `max_percent` of the endpoints at once (but one in any case). `max_failures` 0: never.
    """

    interval: float = 10.0
    max_failures: int = 5
    base_time: float = 30.0
    max_percent: int = 10


class OutboundSettings(msgspec.Struct, frozen=True):
    """The listener of one upstream. `kind` is `service`, `prepared_query`, or `static`: a service at these `addresses`
    and no others. `mode` is that of a unix socket.
    """

    bind: Address
    name: str
    kind: str = "service"
    datacenter: str = ""
    mode: int = SOCKET_MODE
    connect_timeout: float = 10.0
    max_connections: int = 0
    ejection: Ejection = Ejection()
    idle_timeout: float = 3600.0
    addresses: tuple[Address, ...] = ()
    reuse: bool = True

    @property
    def key(self) -> UpstreamKey:
        """What endpoints it needs: those who need the same share them."""
        return self.kind, self.name, self.datacenter, self.addresses


class SidecarSettings(msgspec.Struct, frozen=True):
    """A proxy: whose identity it has, what it lets in, what it makes reachable."""

    proxy_id: str
    service: str
    inbound: InboundSettings | None = None
    outbound: tuple[OutboundSettings, ...] = ()
    access_log: AccessLogs = AccessLogs()
    drain_timeout: float = 25.0


class Problems:
    """What could not be read, as texts."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, text: str) -> None:
        """Note a problem."""
        self.found.append(text)


class _Config:
    """Values of a `config` map, as Consul reads them: numbers may be texts."""

    def __init__(self, values: Mapping[str, Any] | None, where: str, problems: Problems) -> None:
        self._values = {str(key).lower(): value for key, value in (values or {}).items()}
        self._where = where
        self._problems = problems

    def whole(self, key: str, default: int, highest: int = 1 << 31) -> int:
        """A whole number from 0."""
        value = self._values.get(key)
        if value is None:
            return default
        try:
            found = int(value)
        except (TypeError, ValueError, OverflowError):
            found = -1
        if not 0 <= found <= highest or isinstance(value, bool):
            self._problems.add(f"{self._where}: {key} must be a whole number from 0 to {highest}, and is {value!r}")
            return default
        return found

    def milliseconds(self, key: str, default: float) -> float:
        """Milliseconds, as seconds."""
        return self.whole(key, round(default * 1000)) / 1000

    def duration(self, key: str, default: float) -> float:
        """A duration such as `30s`; a bare number is of nanoseconds."""
        value = self._values.get(key)
        if value is None:
            return default
        try:
            found = parse_duration(value) if isinstance(value, str) else int(value) / SECOND
        except (TypeError, ValueError, OverflowError):
            found = -1.0
        if found < 0:
            self._problems.add(f'{self._where}: {key} must be a duration such as "30s", and is {value!r}')
            return default
        return found

    def text(self, key: str, default: str, among: tuple[str, ...] = ()) -> str:
        """A text."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or (among and value not in among):
            wanted = "one of " + ", ".join(f'"{one}"' for one in among) if among else "a text"
            self._problems.add(f"{self._where}: {key} must be {wanted}, and is {value!r}")
            return default
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Whether something is on."""
        value = self._values.get(key)
        if value is None:
            return default
        found = {"true": True, "false": False, "1": True, "0": False}.get(str(value).lower())
        if found is None:
            self._problems.add(f"{self._where}: {key} must be true or false, and is {value!r}")
            return default
        return found

    def addresses(self, key: str) -> tuple[Address, ...]:
        """A list of `host:port`."""
        value = self._values.get(key)
        if value is None:
            return ()
        found = []
        for text in value if isinstance(value, list | tuple) else [value]:
            try:
                host, port = split_host_port(str(text), 0)
                if not port:
                    raise ValueError(f"{text!r} has no port")
                found.append(Address(host, port))
            except ValueError as error:
                self._problems.add(f"{self._where}: {key}: {error}")
        return tuple(found)

    def part(self, key: str) -> "_Config":
        """A map within."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, Mapping):
            self._problems.add(f"{self._where}: {key} must be a block, and is {value!r}")
            value = None
        return _Config(value, f"{self._where}: {key}", self._problems)


def sidecar_settings(service: ProxyService, problems: Problems) -> SidecarSettings:
    """What a registered proxy is to do."""
    block = service.proxy
    if block is None:
        return SidecarSettings(service.id, service.service)
    config = _Config(block.config, "proxy.config", problems)
    reuse = config.flag("reuse_connections", True)
    outbound = [upstream_settings(one, service.datacenter, problems, reuse) for one in block.upstreams or ()]
    return SidecarSettings(
        proxy_id=service.id,
        service=block.destination_service_name,
        inbound=_inbound(service, config, problems, reuse),
        outbound=tuple(one for one in outbound if one is not None),
        access_log=block.access_logs or AccessLogs(),
        drain_timeout=config.milliseconds("drain_timeout_ms", 25.0),
    )


def _inbound(service: ProxyService, config: _Config, problems: Problems, reuse: bool) -> InboundSettings | None:
    block = service.proxy
    assert block is not None
    port = config.whole("bind_port", service.port, 65535)
    if not port:
        return None
    target = Address(block.local_service_address or "127.0.0.1", block.local_service_port)
    if block.local_service_socket_path:
        target = Address(path=block.local_service_socket_path)
    written = config.text("local_service_address", "")
    if written:
        try:
            target = Address(*split_host_port(written, block.local_service_port))
        except ValueError as error:
            problems.add(f"proxy.config: local_service_address: {error}")
    return InboundSettings(
        bind=Address(config.text("bind_address", "") or service.address or "0.0.0.0", port),
        target=target,
        connect_timeout=config.milliseconds("local_connect_timeout_ms", 1.0),
        handshake_timeout=config.milliseconds("handshake_timeout_ms", 10.0),
        max_connections=config.whole("max_inbound_connections", 0),
        proxy_protocol=config.text("proxy_protocol", "", ("", "v1", "v2")),
        accept_proxy_protocol=config.flag("accept_proxy_protocol", False),
        idle_timeout=config.milliseconds("idle_timeout_ms", 3600.0),
        reuse=reuse,
    )


def upstream_settings(
    upstream: Upstream, datacenter: str, problems: Problems, reuse: bool = True
) -> OutboundSettings | None:
    """What an upstream of a proxy in a datacenter asks for; None where it is no listener, such as defaults for all
    upstreams. `reuse` is what the proxy itself says of it.
    """
    if upstream.centrally_configured or not upstream.destination_name:
        return None
    where = f"upstream {upstream.destination_name}"
    if upstream.destination_peer:
        problems.add(f"{where}: services of other clusters cannot be reached by this proxy")
        return None
    config = _Config(upstream.config, where, problems)
    mode = SOCKET_MODE
    if upstream.local_bind_socket_mode:
        try:
            mode = int(upstream.local_bind_socket_mode, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            problems.add(f"{where}: the mode of its socket must be octal, such as 0660")
            mode = SOCKET_MODE
    if upstream.local_bind_port:
        bind = Address(upstream.local_bind_address or "127.0.0.1", upstream.local_bind_port)
    elif upstream.local_bind_socket_path:
        bind = Address(path=upstream.local_bind_socket_path)
    else:
        problems.add(f"{where}: neither a port nor a socket to listen on")
        return None
    health = config.part("passive_health_check")
    addresses = config.addresses("addresses")
    return OutboundSettings(
        bind=bind,
        name=upstream.destination_name,
        kind=STATIC if addresses else upstream.destination_type or "service",
        datacenter=upstream.datacenter or (datacenter if addresses else ""),
        addresses=addresses,
        mode=mode,
        connect_timeout=config.milliseconds("connect_timeout_ms", 10.0),
        max_connections=config.part("limits").whole("max_connections", 0),
        ejection=Ejection(
            interval=health.duration("interval", 10.0),
            max_failures=health.whole("max_failures", 5),
            base_time=health.duration("base_ejection_time", 30.0),
            max_percent=health.whole("max_ejection_percent", 10, 100),
        ),
        idle_timeout=config.milliseconds("idle_timeout_ms", 3600.0),
        reuse=config.flag("reuse_connections", reuse),
    )
