"""What all config entries share: their base record, small records that several kinds use, checks of single values."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Self

import msgspec

from lictor.model.config_entry.decode import InvalidConfigEntry, Nanoseconds, Unsigned, several

WILDCARD = "*"
HTTP_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE")

MAX_META_PAIRS = 64
MAX_META_KEY = 128
MAX_META_VALUE = 512

TLS_VERSIONS = ("TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3")
CIPHER_SUITES = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
)

_DNS_LABELS = re.compile(r"(?:[^.\s]{1,63}\.)*[^.\s]{1,63}\.?")


class Record(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A part of an entry. JSON shows fields with a default factory always, others when they are not empty."""


class ConfigEntry(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """A config entry: `kind` and `name` identify it; the rest is its kind's own."""

    kind: str = msgspec.field(default_factory=str)
    name: str = msgspec.field(default_factory=str)
    meta: dict[str, str] | None = None

    def normalised(self) -> Self:
        """The entry with defaults filled in and free spellings settled, as it is stored."""
        return self

    def validate(self) -> None:
        """Raise InvalidConfigEntry, in Consul's words, when the entry cannot be accepted."""
        check_meta(self.meta)

    def require_name(self) -> None:
        """Raise InvalidConfigEntry when there is no name."""
        require(self.name != "", "Name is required")


class HTTPHeaderModifiers(Record, frozen=True):
    """Headers to add, to set and to remove."""

    add: dict[str, str] | None = None
    set: dict[str, str] | None = None
    remove: tuple[str, ...] = ()

    def is_empty(self) -> bool:
        """Whether nothing is modified."""
        return not (self.add or self.set or self.remove)


class PassiveHealthCheck(Record, frozen=True):
    """When an upstream's instance is taken out of load balancing for its failures."""

    interval: Nanoseconds = 0
    max_failures: Unsigned = 0
    enforcing_consecutive5xx: Unsigned | None = None
    max_ejection_percent: Unsigned | None = None
    base_ejection_time: Nanoseconds | None = None


class ResourceReference(Record, frozen=True):
    """A reference to another config entry, or to a part of it."""

    kind: str = msgspec.field(default_factory=str)
    name: str = msgspec.field(default_factory=str)
    section_name: str = msgspec.field(default_factory=str)


class Condition(Record, frozen=True):
    """One thing a controller has found out about an entry."""

    type: str = msgspec.field(default_factory=str)
    status: str = msgspec.field(default_factory=str)
    reason: str = msgspec.field(default_factory=str)
    message: str = msgspec.field(default_factory=str)
    resource: ResourceReference | None = None
    last_transition_time: str = ""


class Status(Record, frozen=True):
    """What controllers have found out about an entry."""

    conditions: tuple[Condition, ...] | None = msgspec.field(default_factory=lambda: None)


def require(fact: bool, otherwise: str) -> None:
    """Raise InvalidConfigEntry with the text `otherwise` unless `fact` holds."""
    if not fact:
        raise InvalidConfigEntry(otherwise)


def check_meta(meta: dict[str, str] | None) -> None:
    """Raise InvalidConfigEntry when metadata is over Consul's limits (64 pairs, 128 and 512 characters)."""
    problems = meta_problems(meta)
    if problems:
        raise InvalidConfigEntry(several(problems))


def meta_problems(meta: dict[str, str] | None) -> list[str]:
    """What is wrong with metadata, in Consul's words."""
    problems = []
    meta = meta or {}
    if len(meta) > MAX_META_PAIRS:
        problems.append(f"Meta exceeds maximum element count {MAX_META_PAIRS}")
    for key, value in meta.items():
        if len(key) > MAX_META_KEY:
            problems.append(f'Meta key "{key}" exceeds maximum length {MAX_META_KEY}')
        if len(value) > MAX_META_VALUE:
            problems.append(f'Meta value for key "{key}" exceeds maximum length {MAX_META_VALUE}')
    return problems


def check_tls(minimum: str, maximum: str, cipher_suites: tuple[str, ...]) -> None:
    """Raise InvalidConfigEntry for TLS versions or cipher suites that are unknown or do not go together."""
    for version in (minimum, maximum):
        require(version in ("", *TLS_VERSIONS), f"no matching TLS version found for {version}")
    bounded = "TLS_AUTO" not in (minimum, maximum) and minimum and maximum
    if bounded and TLS_VERSIONS.index(maximum) < TLS_VERSIONS.index(minimum):
        text = f"configuring max version {maximum} less than the configured min version {minimum} is invalid"
        raise InvalidConfigEntry(text)
    if cipher_suites:
        text = "configuring CipherSuites is only applicable to connections negotiated with TLS 1.2 or earlier, "
        require(minimum != "TLSv1_3", text + "TLSMinVersion is set to TLSv1_3")
        for suite in cipher_suites:
            require(suite in CIPHER_SUITES, f"no matching cipher suite found for {suite}")


def is_http_like(protocol: str) -> bool:
    """Whether routing by request is possible with a protocol."""
    return protocol in ("http", "http2", "grpc")


def is_domain_name(name: str) -> bool:
    """Whether `name` could stand in a DNS message: labels of 1 to 63 octets, 255 in all (RFC 1035, section 2.3.4)."""
    return name == "." or (len(name.encode()) <= 254 and _DNS_LABELS.fullmatch(name) is not None)


def is_ip_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def quoted(value: Any) -> str:
    """A value in double quotes, as Consul's messages quote names."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_path(path: str, field: str, where: str) -> None:
    """Raise InvalidConfigEntry unless a path that is given starts with a slash."""
    require(not path or path.startswith("/"), f"{where}{field} doesn't start with '/': {quoted(path)}")
