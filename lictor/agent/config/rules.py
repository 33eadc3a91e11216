"""What must hold between keys: rules over a whole configuration whose addresses are already resolved.

Each rule names the key to look at first, so that the problem can be shown where that key was written. Texts are
Consul's where it has the rule.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
import uuid
from collections.abc import Callable, Sequence

from lictor.agent.config.addressing import Report
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.watch import WatchError, parse_agent_watch
from lictor.ca.configuration import BUILTIN, VAULT, canonical, read_common, without_cluster_id
from lictor.ca.configuration import DEFAULTS as CA_DEFAULTS
from lictor.ca.known_keys import unknown_keys
from lictor.ca.provider import ProviderError
from lictor.model.decoding import keys_of
from lictor.model.duration import format_duration
from lictor.model.service import LAUNCHES
from lictor.model.service_definition import CheckDefinition
from lictor.model.service_rules import check_registration_problem, meta_problem, service_registration_problem

DATACENTER = re.compile(r"[a-z0-9_-]+")
DNS_LABEL = re.compile(r"[a-zA-Z0-9-]+")
UI_PATH = re.compile(r"[a-zA-Z0-9/_-]+")
MAX_LABEL = 63
GOSSIP_KEY_SIZES = (16, 24, 32)
SHORTEST_RECONNECT = 8 * 3600.0
SHORTEST_ENTRY_TTL = 1.0  # seconds

LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERR", "ERROR")
TLS_VERSIONS = ("", "TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3")

CHOICES: dict[tuple[str, ...], Sequence[str]] = {
    ("acl", "default_policy"): ("allow", "deny"),
    ("acl", "down_policy"): ("allow", "deny", "extend-cache", "async-cache"),
    ("default_intention_policy",): ("", "allow", "deny"),
    ("dns_config", "recursor_strategy"): ("sequential", "random"),
    ("limits", "request_limits", "mode"): ("disabled", "permissive", "enforcing"),
    ("tls", "defaults", "tls_min_version"): TLS_VERSIONS,
    ("tls", "internal_rpc", "tls_min_version"): TLS_VERSIONS,
    ("tls", "https", "tls_min_version"): TLS_VERSIONS,
    ("tls", "grpc", "tls_min_version"): TLS_VERSIONS,
}
"""Keys with a fixed set of values."""

NOT_NEGATIVE: tuple[tuple[str, ...], ...] = (
    ("autopilot", "max_trailing_logs"),
    ("bootstrap_expect",),
    ("dns_config", "a_record_limit"),
    ("dns_config", "udp_answer_limit"),
    ("http_config", "max_header_bytes"),
    ("limits", "http_max_conns_per_client"),
    ("limits", "kv_max_value_size"),
    ("limits", "rpc_max_burst"),
    ("limits", "rpc_max_conns_per_client"),
    ("limits", "txn_max_req_len"),
    ("log_rotate_bytes",),
    ("retry_max",),
    ("retry_max_wan",),
)
NOT_NEGATIVE_DURATIONS: tuple[tuple[str, ...], ...] = (
    ("check_update_interval",),
    ("advertise_reconnect_timeout",),
    ("default_query_time",),
    ("discovery_max_stale",),
    ("dns_config", "cache_max_age"),
    ("dns_config", "max_stale"),
    ("dns_config", "node_ttl"),
    ("dns_config", "recursor_timeout"),
    ("limits", "https_handshake_timeout"),
    ("limits", "rpc_client_timeout"),
    ("limits", "rpc_handshake_timeout"),
    ("max_query_time",),
    ("performance", "leave_drain_time"),
    ("performance", "rpc_hold_timeout"),
    ("primary_gateways_interval",),
    ("reconnect_timeout",),
    ("reconnect_timeout_wan",),
    ("retry_interval",),
    ("retry_interval_wan",),
    ("session_ttl_min",),
)


CA_PROVIDERS = ("", BUILTIN, VAULT)


def value_at(config: object, path: Sequence[str]) -> object:
    """The value of a key, by its path."""
    for part in path:
        config = getattr(config, part)
    return config


def check_config(config: RuntimeConfig, report: Report) -> list[str]:
    """Report every rule that `config` breaks; the warnings that it deserves."""
    warnings: list[str] = []
    for rule in _RULES:
        rule(config, report, warnings)
    return warnings


def _values(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    for path, choices in CHOICES.items():
        value = value_at(config, path)
        if value is not None and value not in choices:
            shown = ", ".join(choice for choice in choices if choice)
            report(path, f'{".".join(path)} cannot be "{value}". Must be one of: {shown}')
    for path in NOT_NEGATIVE:
        number = value_at(config, path)
        if isinstance(number, int) and number < 0:
            report(path, f"{'.'.join(path)} cannot be {number}. Must be greater than or equal to zero")
    for path in NOT_NEGATIVE_DURATIONS:
        seconds = value_at(config, path)
        if isinstance(seconds, float) and seconds < 0:
            shown = format_duration(seconds)
            report(path, f"{'.'.join(path)} cannot be {shown}. Must be greater than or equal to zero")
    if not 1 <= config.performance.raft_multiplier <= 10:
        number = config.performance.raft_multiplier
        report(
            ("performance", "raft_multiplier"),
            f"performance.raft_multiplier cannot be {number}. Must be between 1 and 10",
        )
    if config.log_level.upper() not in LOG_LEVELS:
        levels = " ".join(level for level in LOG_LEVELS if level != "ERR")
        report(("log_level",), f"Invalid log level: {config.log_level}. Valid log levels are: [{levels}]")


def _identity(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    if not config.datacenter:
        report(("datacenter",), "datacenter cannot be empty")
    elif not DATACENTER.fullmatch(config.datacenter):
        report(("datacenter",), f'datacenter cannot be "{config.datacenter}". Please use only [a-z0-9-_]')
    if config.primary_datacenter != config.datacenter and not DATACENTER.fullmatch(config.primary_datacenter):
        report(
            ("primary_datacenter",),
            f'primary_datacenter cannot be "{config.primary_datacenter}". Please use only [a-z0-9-_]',
        )
    if not config.node_name:
        report(("node_name",), "node_name cannot be empty")
    elif not DNS_LABEL.fullmatch(config.node_name):
        warnings.append(
            f'Node name "{config.node_name}" will not be discoverable via DNS due to invalid characters. '
            "Valid characters include all alpha-numerics and dashes."
        )
    elif len(config.node_name) > MAX_LABEL:
        warnings.append(
            f'Node name "{config.node_name}" will not be discoverable via DNS due to it being too long. '
            "Valid lengths are between 1 and 63 bytes."
        )
    if config.node_id:
        try:
            uuid.UUID(config.node_id)
        except ValueError:
            report(("node_id",), f'node_id "{config.node_id}" is not a UUID')
    problem = meta_problem(config.node_meta)
    if problem:
        report(("node_meta",), f"node_meta invalid: {problem}")
    if config.segment or config.segments:
        report(("segment",) if config.segment else ("segments",), "Network segments are not supported")
    if config.partition not in ("", "default"):
        report(("partition",), f'partition cannot be "{config.partition}": only the default partition exists')


def _names(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    first = config.alt_domain.split(".", 1)[0].lower()
    if "." in config.alt_domain.rstrip(".") and first in (
        "service",
        "connect",
        "node",
        "query",
        "addr",
        config.datacenter,
    ):
        report(
            ("alt_domain",),
            f"alt_domain cannot start with {{service,connect,node,query,addr,{config.datacenter}}}",
        )
    path = config.ui_config.content_path
    if not UI_PATH.fullmatch(path):
        report(
            ("ui_config", "content_path"),
            f'ui_config.content_path can only contain alphanumeric, -, _, or /. received: "{path}"',
        )
    if config.ui_config.enabled and config.ui_config.dir and not config.dev_mode:
        report(
            ("ui_config", "dir"),
            "ui_config.enabled and ui_config.dir (or -ui and -ui-dir) cannot both be given: ui_config.dir serves "
            "your own page, ui_config.enabled the built-in one",
        )


def _server(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    expect = config.bootstrap_expect
    if config.dev_mode and config.bootstrap:
        report(("bootstrap",), "'bootstrap = true' not allowed in dev mode")
    if config.dev_mode and expect > 0:
        report(("bootstrap_expect",), "'bootstrap_expect > 0' not allowed in dev mode")
    if expect > 0 and config.bootstrap:
        report(("bootstrap_expect",), "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive")
    if config.bootstrap and not config.server:
        report(("bootstrap",), "'bootstrap = true' requires 'server = true'")
    if expect > 0 and not config.server:
        report(("bootstrap_expect",), "'bootstrap_expect > 0' requires 'server = true'")
    if not config.data_dir and not config.dev_mode:
        report(("data_dir",), "data_dir cannot be empty")
    if config.auto_encrypt.allow_tls and not config.server:
        report(("auto_encrypt", "allow_tls"), "auto_encrypt.allow_tls can only be used on a server.")
    if config.auto_encrypt.tls and config.server:
        report(("auto_encrypt", "tls"), "auto_encrypt.tls can only be used on a client.")
    if config.auto_config.enabled and config.server:
        report(("auto_config", "enabled"), "auto_config.enabled cannot be set to true for server agents.")
    if config.server and config.bootstrap and expect == 0 and not config.dev_mode:
        warnings.append("bootstrap = true: do not enable unless necessary")
    if config.server and expect == 2:
        warnings.append("bootstrap_expect = 2: A cluster with 2 servers will provide no failure tolerance.")
    elif config.server and expect > 2 and expect % 2 == 0:
        warnings.append(
            "bootstrap_expect is even number: A cluster with an even number of servers does not achieve optimum "
            "fault tolerance."
        )
    if config.server and expect > 0:
        warnings.append(f"bootstrap_expect > 0: expecting {expect} servers")


def _joining(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    if config.dev_mode and config.server and config.retry_join:
        warnings.append(
            "retry_join has no effect with -dev: a server started with -dev is a cluster of its own, in memory. Start "
            "it without -dev and with a data_dir to join others"
        )
    if config.server and config.advertise_reconnect_timeout:
        report(("advertise_reconnect_timeout",), "advertise_reconnect_timeout can only be used on a client")
    if config.primary_gateways and not config.server:
        report(("primary_gateways",), "'primary_gateways' requires 'server = true'")
    elif config.primary_gateways and config.primary_datacenter == config.datacenter:
        report(("primary_gateways",), "'primary_gateways' should only be configured in a secondary datacenter")
    if config.retry_join_wan and config.connect.enable_mesh_gateway_wan_federation:
        report(
            ("retry_join_wan",),
            "'retry_join_wan' is incompatible with 'connect.enable_mesh_gateway_wan_federation = true'",
        )
    if config.retry_join_wan and not config.server:
        warnings.append("retry_join_wan has no effect on a client: only servers meet other datacenters")
    for key in ("reconnect_timeout", "reconnect_timeout_wan"):
        seconds = value_at(config, (key,))
        if isinstance(seconds, float) and 0 < seconds < SHORTEST_RECONNECT:
            warnings.append(
                f"{key} = {format_duration(seconds)}: an agent that is away for longer is forgotten, a server with it; "
                f"{format_duration(SHORTEST_RECONNECT)} or more is advised"
            )


def _gossip(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    for section in ("gossip_lan", "gossip_wan"):
        for name in keys_of(type(value_at(config, (section,)))):  # type: ignore[arg-type]
            value = value_at(config, (section, name))
            if isinstance(value, int | float) and value <= 0:
                shown = format_duration(value) if isinstance(value, float) else value
                report((section, name), f"{section}.{name} cannot be {shown}. Must be greater than zero")


def _caching(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    cache = config.cache
    for name, value in (
        ("entry_fetch_max_burst", cache.entry_fetch_max_burst),
        ("entry_fetch_rate", cache.entry_fetch_rate),
    ):
        if value <= 0:
            report(("cache", name), f"cache.{name} must be strictly positive, was: {value:g}")
    if cache.entry_ttl < SHORTEST_ENTRY_TTL:
        shown, least = format_duration(cache.entry_ttl), format_duration(SHORTEST_ENTRY_TTL)
        report(("cache", "entry_ttl"), f"cache.entry_ttl cannot be {shown}. Must be {least} or more")


def _launching(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    launch = config.connect.launch
    if launch.default not in LAUNCHES:
        wanted = ", ".join(f'"{one}"' for one in LAUNCHES if one)
        report(("connect", "launch", "default"), f'must be one of {wanted}, not "{launch.default}"')
    if launch.enabled and not config.dev_mode and not hasattr(os, "pidfd_open"):
        report(("connect", "launch", "enabled"), "agents start proxies on Linux only: start them as you start services")
    if launch.user and launch.enabled and os.geteuid() != 0:
        report(
            ("connect", "launch", "user"),
            "only an agent that runs as root can start proxies as another user: take it out",
        )


def _mesh(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    connect = config.connect
    if connect.ca_provider not in CA_PROVIDERS:
        wanted = ", ".join(f'"{one}"' for one in CA_PROVIDERS if one)
        report(("connect", "ca_provider"), f'must be one of {wanted}, not "{connect.ca_provider}"')
    config_of_provider, cluster = without_cluster_id(connect.ca_config)
    if connect.ca_config.get("cluster_id", "") != cluster:
        warnings.append("connect.ca_config.cluster_id is ignored: it is no UUID")
    try:
        read_common(canonical({**CA_DEFAULTS, **canonical(config_of_provider)}))
    except ProviderError as error:
        report(("connect", "ca_config"), f"error configuring provider: {error}")
        return
    strange = unknown_keys(connect.ca_provider or BUILTIN, config_of_provider)
    warnings += [f"connect.ca_config: {text}" for text in strange]
    if connect.enabled and config.server and connect.ca_provider == VAULT:
        from lictor.ca.vault_settings import careless, vault_settings  # few agents need it, and all start with this

        try:
            warnings += [f"connect.ca_config: {text}" for text in careless(vault_settings(config_of_provider))]
        except ProviderError as error:
            report(("connect", "ca_config"), f"error configuring provider: {error}")


def _encryption(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    if not config.encrypt:
        return
    try:
        key = base64.b64decode(config.encrypt, validate=True)
    except (binascii.Error, ValueError):
        report(("encrypt",), "encrypt has invalid key: it is not base64; `lictor keygen` makes a key")
        return
    if len(key) not in GOSSIP_KEY_SIZES:
        report(("encrypt",), "encrypt has invalid key: key size must be 16, 24 or 32 bytes")


def _ports(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    ports = config.ports
    for name in ("dns", "http", "https", "grpc", "grpc_tls", "serf_lan", "serf_wan", "server"):
        if getattr(ports, name) > 65535:
            report(("ports", name), f"ports.{name}: invalid port: {getattr(ports, name)}")
    for kind in ("proxy", "sidecar", "expose"):
        low, high = getattr(ports, f"{kind}_min_port"), getattr(ports, f"{kind}_max_port")
        if low > high or high > 65535:
            report(
                ("ports", f"{kind}_min_port"),
                f"{kind}_min_port must be less than {kind}_max_port. To disable, set both to zero.",
            )
    taken: dict[tuple[str, int], tuple[str, str]] = {}
    listen = config.listen
    doors = [(label, name, getattr(listen, name)) for label, name in _DOORS]
    doors.append(("RPC", "server", (listen.rpc,) if listen.rpc else ()))
    doors.append(("Serf LAN", "serf_lan", (listen.serf_lan,) if listen.serf_lan else ()))
    doors.append(("Serf WAN", "serf_wan", (listen.serf_wan,) if listen.serf_wan else ()))
    for label, name, endpoints in doors:
        for endpoint in endpoints:
            if endpoint.network == "udp":
                continue
            place = (endpoint.host, endpoint.port)
            other = taken.setdefault(place, (label, name))
            if other[1] == name:
                continue
            shown = str(endpoint).split("://", 1)[1]
            kind = "Unix socket" if endpoint.network == "unix" else "address"
            keys = (
                f"addresses.{name} and addresses.{other[1]}"
                if kind != "address"
                else f"ports.{name} and ports.{other[1]}"
            )
            report(("ports", name), f"{label} {kind} {shown} already configured for {other[0]}: {keys} must differ")


_DOORS = (("DNS", "dns"), ("HTTP", "http"), ("HTTPS", "https"), ("GRPC", "grpc"), ("GRPC TLS", "grpc_tls"))


def _networks(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    for path, networks in (
        (("serf_lan_allowed_cidrs",), config.serf_lan_allowed_cidrs),
        (("serf_wan_allowed_cidrs",), config.serf_wan_allowed_cidrs),
        (("http_config", "allow_write_http_from"), config.http_config.allow_write_http_from),
    ):
        for text in networks:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError:
                report(path, f"{path[-1]}: invalid cidr: {text}")
    for section, mode, example in (
        ("unix_sockets", config.unix_sockets.mode, "0660"),
        ("lookup_map", config.lookup_map.mode or "-", "0644"),
    ):
        if mode and not re.fullmatch(r"[0-7]{1,4}", mode):
            report((section, "mode"), f'{section}.mode "{mode}" must be permissions in octal, such as "{example}"')
        elif section == "lookup_map" and int(mode, 8) & 0o022:
            report((section, "mode"), f'lookup_map.mode "{mode}" lets others write what programs rely on')


def _definitions(config: RuntimeConfig, report: Report, warnings: list[str]) -> None:
    scripts = config.enable_script_checks or config.enable_local_script_checks
    for position, service in enumerate(config.services):
        problem = service_registration_problem(service)
        if problem:
            report(("services", str(position)), f'service "{service.service_id}": {" ".join(problem.split())}')
        _check_scripts(service.all_checks, scripts, ("services", str(position)), report)
    for position, check in enumerate(config.checks):
        problem = check_registration_problem(check)
        if problem:
            report(("checks", str(position)), f'check "{check.id or check.name}": {problem}')
    _check_scripts(config.checks, scripts, ("checks",), report)
    if config.enable_script_checks and not config.acl.enabled and not config.http_config.allow_write_http_from:
        warnings.append(
            "using enable-script-checks without ACLs and without allow_write_http_from is DANGEROUS, use "
            "enable-local-script-checks instead"
        )
    for watch in config.watches:
        try:
            parse_agent_watch(watch)
        except WatchError as error:
            report(("watches",), str(error))


def _check_scripts(checks: Sequence[CheckDefinition], enabled: bool, path: tuple[str, ...], report: Report) -> None:
    if not enabled and any(check.is_script for check in checks):
        report(
            path,
            "Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or "
            "'enable_local_script_checks' to true",
        )


_RULES: tuple[Callable[[RuntimeConfig, Report, list[str]], None], ...] = (
    _values,
    _identity,
    _names,
    _server,
    _joining,
    _gossip,
    _caching,
    _launching,
    _mesh,
    _encryption,
    _ports,
    _networks,
    _definitions,
)
