"""The effective configuration as `/v1/agent/self` shows it: Consul's names, secrets hidden.

A name follows from the key (`dns_config.node_ttl` is `DNSNodeTTL`) unless the key's setting gives another. Durations
are in Go's notation, addresses as URLs.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lictor.agent.config.flags import setting_of
from lictor.agent.config.join_sources import without_secrets
from lictor.agent.config.keys import Endpoint, RuntimeConfig
from lictor.model.decoding import Duration, is_record, keys_of
from lictor.model.duration import format_duration

HIDDEN = "hidden"
SECRET_WORDS = ("token", "secret", "password", "privatekey")
LEFT_OUT = "-"
"""The `debug` name of a key that is not shown."""

_INITIALS = (
    "acl acls ae api ca cidrs dns grpc http https id ip json jwks jwt kv lan oidc rpc soa tls ttl txt udp ui url "
    "wan xds"
)
INITIALS = frozenset(_INITIALS.split())
PREFIXES = {
    "dns_config": "DNS",
    "http_config": "HTTP",
    "ui_config": "UIConfig",
    "limits": "",
    "performance": "",
    "config_entries": "ConfigEntry",
}
NESTED = frozenset(
    {"auto_config", "audit", "cache", "cloud", "locality", "raft_logstore", "telemetry", "tls", "soa", "ui_config"}
)
"""Sections that are shown as objects of their own, not as prefixed names."""


def camel(words: str) -> str:
    """`dns_node_ttl` as `DNSNodeTTL`."""
    return "".join(word.upper() if word in INITIALS else word.capitalize() for word in words.split("_"))


def debug_config(config: RuntimeConfig) -> dict[str, Any]:
    """The `DebugConfig` object for a configuration, sorted by name."""
    shown = _section(config, "")
    listen = config.listen
    shown |= {
        "ClientAddrs": list(config.client_addrs),
        "DNSAddrs": [str(endpoint) for endpoint in listen.dns],
        "DevMode": config.dev_mode,
        "EnableUI": config.ui_config.enabled,
        "GRPCAddrs": [str(endpoint) for endpoint in listen.grpc],
        "GRPCTLSAddrs": [str(endpoint) for endpoint in listen.grpc_tls],
        "HTTPAddrs": [str(endpoint) for endpoint in listen.http],
        "HTTPSAddrs": [str(endpoint) for endpoint in listen.https],
        "Logging": {
            "EnableSyslog": config.enable_syslog,
            "LogFilePath": config.log_file,
            "LogJSON": config.log_json,
            "LogLevel": config.log_level,
            "LogRotateBytes": config.log_rotate_bytes,
            "LogRotateDuration": format_duration(config.log_rotate_duration),
            "LogRotateMaxFiles": config.log_rotate_max_files,
            "Name": "",
            "SyslogFacility": config.syslog_facility,
        },
        "RPCAdvertiseAddr": _address(config.advertise_rpc),
        "RPCBindAddr": _address(listen.rpc),
        "SerfAdvertiseAddrLAN": _address(config.advertise_serf_lan),
        "SerfAdvertiseAddrWAN": _address(config.advertise_serf_wan),
        "SerfBindAddrLAN": _address(listen.serf_lan),
        "SerfBindAddrWAN": _address(listen.serf_wan),
        "UIContentPath": config.ui_config.content_path,
        "UIDir": config.ui_config.dir,
    }
    telemetry = shown["Telemetry"]
    telemetry["AllowedPrefixes"] = [text[1:] for text in config.telemetry.prefix_filter if text[:1] == "+"]
    telemetry["BlockedPrefixes"] = [text[1:] for text in config.telemetry.prefix_filter if text[:1] == "-"]
    return dict(sorted(shown.items()))


def _address(endpoint: Endpoint | None) -> str:
    return "" if endpoint is None else str(endpoint)


def _section(record: msgspec.Struct, prefix: str) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, key in keys_of(type(record)).items():
        setting = setting_of(key)
        if setting is None or setting.debug == LEFT_OUT:
            continue
        value = getattr(record, name)
        if is_record(key.type) and value is not None and not setting.debug and name not in NESTED:
            shown |= _section(value, PREFIXES.get(name, prefix + camel(name)))
        elif is_record(key.type) and value is not None:
            shown[setting.debug or prefix + camel(name)] = dict(sorted(_section(value, "").items()))
        else:
            hidden = setting.secret and value != {}
            shown[setting.debug or prefix + camel(name)] = HIDDEN if hidden else _value(name, key.type, value)
    return shown


def _value(name: str, type_: Any, value: Any) -> Any:
    if type_ is Duration and value is not None:
        return format_duration(value)
    if isinstance(value, dict) and all(isinstance(inner, float) for inner in value.values()):
        return {key: format_duration(inner) for key, inner in value.items()}
    if name in ("retry_join", "retry_join_wan"):
        return [without_secrets(text) for text in value]
    if isinstance(value, tuple | dict):
        return _without_secrets(msgspec.to_builtins(value), in_header=_is_header(name))
    return value


def _is_secret(key: str) -> bool:
    plain = key.lower().replace("_", "")
    return any(word in plain for word in SECRET_WORDS)


def _is_header(key: str) -> bool:
    """Whether a key holds headers that go to others, as credentials do; those of our own answers are no secret."""
    return key.lower() in ("header", "headers", "add_headers")


def _without_secrets(value: Any, *, in_header: bool) -> Any:
    if isinstance(value, dict):
        return {
            key: HIDDEN
            if isinstance(inner, str) and inner and (_is_secret(str(key)) or (in_header and str(key).lower() != "name"))
            else _without_secrets(inner, in_header=in_header or _is_header(str(key)))
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            HIDDEN if in_header and isinstance(inner, str) else _without_secrets(inner, in_header=in_header)
            for inner in value
        ]
    return value
