"""The free-form settings of proxies and upstreams (`Proxy.Config`, `Upstream.Config`), read into records.

What people write there is checked by nobody before, so whatever cannot be read counts as not given, as it does for
Consul; `problems` says what that was. Numbers may be text, durations text or nanoseconds, names of nested settings
spelled as in registrations (`max_connections`) or as in config entries (`MaxConnections`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lictor.model.config_entry.entry import is_http_like
from lictor.model.duration import SECOND, parse_duration

DEFAULT_CONNECT_TIMEOUT = 5.0
PROTOCOLS = ("tcp", "http", "http2", "grpc")


class Limits(msgspec.Struct, frozen=True):
    """Most connections and requests to an upstream; None leaves it to Envoy."""

    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_concurrent_requests: int | None = None


class PassiveHealth(msgspec.Struct, frozen=True):
    """When an instance is left out for its failures; None leaves it to Envoy. Durations are seconds."""

    interval: float | None = None
    max_failures: int | None = None
    enforcing_consecutive5xx: int | None = None
    max_ejection_percent: int | None = None
    base_ejection_time: float | None = None


class ProxySettings(msgspec.Struct, frozen=True):
    """What a proxy's `Config` says. Timeouts are seconds."""

    bind_address: str = ""
    bind_port: int = 0
    local_connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    local_request_timeout: float | None = None
    local_idle_timeout: float | None = None
    max_inbound_connections: int = 0
    balance_inbound_connections: str = ""
    max_request_headers_kb: int = 0
    public_listener_json: str = ""
    local_cluster_json: str = ""
    listener_tracing_json: str = ""


class UpstreamSettings(msgspec.Struct, frozen=True):
    """What an upstream's `Config` says. Timeouts are seconds."""

    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    listener_json: str = ""
    cluster_json: str = ""
    balance_outbound_connections: str = ""
    limits: Limits = msgspec.field(default_factory=Limits)
    passive_health: PassiveHealth = msgspec.field(default_factory=PassiveHealth)


class Settings:
    """One free-form map, read value by value; `problems` are those that could not be."""

    def __init__(self, config: Mapping[str, Any] | None, where: str) -> None:
        self._config = {_plain(str(key)): value for key, value in (config or {}).items()}
        self._where = where
        self.problems: list[str] = []

    def _get(self, key: str) -> Any:
        return self._config.get(_plain(key))

    def _bad(self, key: str, value: Any, wanted: str) -> None:
        self.problems.append(f"{self._where}: {key} must be {wanted}, not {value!r}; it is ignored")

    def text(self, key: str) -> str:
        """A text, empty where there is none."""
        value = self._get(key)
        if value is None or isinstance(value, str):
            return value or ""
        self._bad(key, value, "text")
        return ""

    def number(self, key: str) -> int | None:
        """A whole number that is not negative."""
        value = self._get(key)
        if value is None or value == "":
            return None
        try:
            if isinstance(value, bool) or int(value) != float(value) or int(value) < 0 or int(value) > 0xFFFFFFFF:
                raise ValueError
            return int(value)
        except (TypeError, ValueError, OverflowError):
            self._bad(key, value, "a whole number from 0 to 4294967295")
            return None

    def milliseconds(self, key: str) -> float | None:
        """Seconds, of what is written in milliseconds; 0 counts as not given."""
        value = self.number(key)
        return value / 1000 if value else None

    def duration(self, key: str) -> float | None:
        """Seconds, of text such as "10s" or of nanoseconds; 0 counts as not given."""
        value = self._get(key)
        if not value:
            return None
        try:
            seconds = parse_duration(value) if isinstance(value, str) else float(value) / SECOND
        except (TypeError, ValueError):
            self._bad(key, value, 'a duration such as "10s"')
            return None
        if not 0 < seconds < 1e9:
            self._bad(key, value, "a positive duration")
            return None
        return seconds

    def nested(self, key: str) -> Settings:
        """A map within this one."""
        value = self._get(key)
        if value is not None and not isinstance(value, Mapping):
            self._bad(key, value, "a map")
            value = None
        inner = Settings(value, f"{self._where}: {key}")
        inner.problems = self.problems
        return inner


def _plain(key: str) -> str:
    return key.replace("_", "").lower()


def read_proxy(config: Mapping[str, Any] | None) -> tuple[ProxySettings, list[str]]:
    """A proxy's settings, and what of them could not be read."""
    read = Settings(config, "proxy config")
    settings = ProxySettings(
        bind_address=read.text("bind_address"),
        bind_port=read.number("bind_port") or 0,
        local_connect_timeout=read.milliseconds("local_connect_timeout_ms") or DEFAULT_CONNECT_TIMEOUT,
        local_request_timeout=_or_none(read, "local_request_timeout_ms"),
        local_idle_timeout=_or_none(read, "local_idle_timeout_ms"),
        max_inbound_connections=read.number("max_inbound_connections") or 0,
        balance_inbound_connections=read.text("balance_inbound_connections"),
        max_request_headers_kb=read.number("max_request_headers_kb") or 0,
        public_listener_json=read.text("envoy_public_listener_json"),
        local_cluster_json=read.text("envoy_local_cluster_json"),
        listener_tracing_json=read.text("envoy_listener_tracing_json"),
    )
    return settings, read.problems


def _or_none(read: Settings, key: str) -> float | None:
    """Seconds of milliseconds, 0 being a value: no limit."""
    value = read.number(key)
    return None if value is None else value / 1000


def read_upstream(config: Mapping[str, Any] | None, name: str) -> tuple[UpstreamSettings, list[str]]:
    """An upstream's settings, and what of them could not be read."""
    read = Settings(config, f"upstream {name}")
    limits, health = read.nested("limits"), read.nested("passive_health_check")
    settings = UpstreamSettings(
        connect_timeout=read.milliseconds("connect_timeout_ms") or DEFAULT_CONNECT_TIMEOUT,
        listener_json=read.text("envoy_listener_json"),
        cluster_json=read.text("envoy_cluster_json"),
        balance_outbound_connections=read.text("balance_outbound_connections"),
        limits=Limits(
            limits.number("max_connections"),
            limits.number("max_pending_requests"),
            limits.number("max_concurrent_requests"),
        ),
        passive_health=PassiveHealth(
            health.duration("interval"),
            health.number("max_failures"),
            health.number("enforcing_consecutive_5xx"),
            health.number("max_ejection_percent"),
            health.duration("base_ejection_time"),
        ),
    )
    return settings, read.problems


def known_protocol(written: str | None) -> str:
    """The protocol that is spoken: one that is not known is carried as `tcp`."""
    protocol = str(written or "").lower()
    return protocol if protocol in PROTOCOLS else "tcp"


def speaks_requests(protocol: str) -> bool:
    """Whether a protocol has requests that can be looked at."""
    return is_http_like(protocol)
