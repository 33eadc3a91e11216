"""What a service or check definition must satisfy to be registered, with the texts the API answers.

Its own file because the rules are many, are shared by configuration files and the HTTP API, and have nothing to do
with how a definition is read. Every function takes a decoded record and returns the text of what is wrong, or None.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from lictor.model.check import STATUSES
from lictor.model.service import CONNECT_PROXY, LAUNCHES, ConnectProxyConfig, Upstream, Weights
from lictor.model.service_definition import CheckDefinition, ServiceDefinition

GATEWAY_KINDS = ("mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway")
PORTLESS_GATEWAY_KINDS = ("ingress-gateway", "api-gateway")
EXPOSE_PROTOCOLS = ("http", "http2")

MAX_META_PAIRS = 64
MAX_META_KEY = 128
MAX_META_VALUE = 512
META_KEY = re.compile(r"[a-zA-Z0-9_-]+")
RESERVED_META_PREFIX = "consul-"
GATEWAY_META_KEYS = frozenset({"consul-wan-federation"})
MAX_DNS_WEIGHT = 65535


def check_problem(check: CheckDefinition) -> str | None:
    """What keeps the agent from running `check`: the text that follows `Invalid check: ` in the API."""
    runs = bool(
        check.script_args or check.http or check.tcp or check.udp or check.grpc or check.h2ping or check.os_service
    )
    if check.interval > 0 and check.ttl > 0:
        return "Interval and TTL cannot both be specified"
    if runs and check.interval <= 0:
        return "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks"
    if runs and check.is_alias:
        return "Interval cannot be set for Alias checks"
    if check.is_alias and check.ttl > 0:
        return "TTL must be not be set for Alias checks"
    if not runs and not check.is_alias and check.ttl <= 0:
        return "TTL must be > 0 for TTL checks"
    if check.output_max_size < 0:
        return "MaxOutputMaxSize must be positive"
    if check.failures_before_warning > check.failures_before_critical:
        return "FailuresBeforeWarning can't be higher than FailuresBeforeCritical"
    return None


def tenancy_problem(namespace: str, partition: str) -> str | None:
    """What the API answers, with status 400, to what asks for a namespace or partition: dropping it would register
    somewhere else than was meant.
    """
    for field, value in (("Namespace", namespace), ("Partition", partition)):
        if value not in ("", "default"):
            return f'Request decode failed: json: unknown field "{field}" - {field}s are a Consul Enterprise feature'
    return None


def check_registration_problem(check: CheckDefinition) -> str | None:
    """What the API answers, with status 400, to the registration of a check that stands alone."""
    problem = tenancy_problem(check.namespace, check.partition)
    if problem is not None:
        return problem
    if not check.name:
        return "Missing check name"
    if check.status and check.status not in STATUSES:
        return "Bad check status"
    problem = check_problem(check)
    return None if problem is None else f"Invalid check: {problem}"


def service_registration_problem(service: ServiceDefinition) -> str | None:
    """What the API answers, with status 400, to the registration of `service`, its checks and its sidecar."""
    problem = tenancy_problem(service.namespace, service.partition)
    if problem is not None:
        return problem
    if not service.name:
        return "Missing service name"
    if _is_any_address(service.address):
        return "Invalid service address"
    if service.weights is not None:
        problem = weights_problem(service.weights)
        if problem:
            return f"Invalid Weights: {problem}"
    problem = meta_problem(service.meta, service.kind)
    if problem:
        return f"Invalid Service Meta: {problem}"
    for check in service.all_checks:
        problem = check_problem(check)
        if problem:
            return f"Invalid check: {problem}"
        if check.status and check.status not in STATUSES:
            return "Status for checks must 'passing', 'warning', 'critical'"
    problems = connect_problems(service)
    if problems:
        return multierror(problems)
    sidecar = service.connect.sidecar_service if service.connect else None
    if sidecar is not None:
        for check in sidecar.all_checks:
            problem = check_problem(check)
            if problem:
                return f"Invalid SidecarService: Invalid check: {problem}"
    return None


def sidecar_problem(service: ServiceDefinition) -> str | None:
    """What the API answers, with status 400, to a sidecar whose proxy could not do what it is asked for. An agent's
    files are not judged by it: the reference starts with such ones.
    """
    sidecar = service.connect.sidecar_service if service.connect else None
    if sidecar is None or sidecar.proxy is None or (sidecar.kind or CONNECT_PROXY) != CONNECT_PROXY:
        return None
    problems = [problem for upstream in sidecar.proxy.upstreams if (problem := upstream_problem(upstream))]
    problems += _expose_problems(sidecar.proxy)
    return f"Invalid SidecarService: {multierror(problems)}" if problems else None


def multierror(problems: list[str]) -> str:
    """Several problems in the layout that the API answers with."""
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    lines = "".join(f"\n\t* {problem}" for problem in problems)
    return f"{count} occurred:{lines}\n\n"


def weights_problem(weights: Weights) -> str | None:
    """What is wrong with DNS weights, None when they are usable."""
    if weights.passing < 1:
        return "Passing must be greater than 0"
    if weights.warning < 0:
        return "Warning must be greater or equal than 0"
    if weights.passing > MAX_DNS_WEIGHT or weights.warning > MAX_DNS_WEIGHT:
        return "DNS Weight must be between 0 and 65535"
    return None


def meta_problem(meta: Mapping[str, str], kind: str = "") -> str | None:
    """What is wrong with a service's or a node's metadata: at most 64 pairs, keys up to 128 characters of
    `A-Za-z0-9_-` outside the reserved prefix `consul-`, values up to 512 characters."""
    if len(meta) > MAX_META_PAIRS:
        return f"Node metadata cannot contain more than {MAX_META_PAIRS} key/value pairs"
    for key, value in meta.items():
        problem = None
        if not key:
            problem = "Key cannot be blank"
        elif not META_KEY.fullmatch(key):
            problem = "Key contains invalid characters"
        elif len(key) > MAX_META_KEY:
            problem = f"Key is too long (limit: {MAX_META_KEY} characters)"
        elif key.startswith(RESERVED_META_PREFIX) and not (kind in GATEWAY_KINDS and key in GATEWAY_META_KEYS):
            problem = f"Key prefix '{RESERVED_META_PREFIX}' is reserved for internal use"
        elif len(value) > MAX_META_VALUE:
            problem = f"Value is too long (limit: {MAX_META_VALUE} characters)"
        if problem:
            return f"Couldn't load metadata pair ('{key}', '{value}'): {problem}"
    return None


def connect_problems(service: ServiceDefinition) -> list[str]:
    """What is wrong with the mesh side of a service: its proxy block, its gateway kind, its sidecar."""
    proxy = service.proxy or ConnectProxyConfig()
    native = service.connect is not None and service.connect.native
    sidecar = service.connect.sidecar_service if service.connect else None
    reachable = bool(service.port or service.socket_path)
    problems: list[str] = []
    if service.kind == CONNECT_PROXY:
        if not proxy.destination_service_name.strip():
            problems.append("Proxy.DestinationServiceName must be non-empty for Connect proxy services")
        if proxy.destination_service_name == "*":
            problems.append("Proxy.DestinationServiceName must not be a wildcard for Connect proxy services")
        if not reachable:
            problems.append("Port or SocketPath must be set for a Connect proxy")
        if native:
            problems.append("A Proxy cannot also be Connect Native, only typical services")
        problems += _upstreams_problems(proxy.upstreams)
        problems += _expose_problems(proxy)
    if service.kind in GATEWAY_KINDS:
        problems += _gateway_problems(service, proxy)
    problems += _launch_problems(service.kind, proxy)
    if sidecar is not None:
        problems += _launch_problems(sidecar.kind or CONNECT_PROXY, sidecar.proxy or ConnectProxyConfig())
        if sidecar.id:
            problems.append("A SidecarService cannot specify an ID as this is managed by the agent")
        if sidecar.connect is not None and sidecar.connect.sidecar_service is not None:
            problems.append("A SidecarService cannot have a nested SidecarService")
    if native and not reachable:
        problems.append("Port or SocketPath must be set for a Connect native service.")
    return problems


def _launch_problems(kind: str, proxy: ConnectProxyConfig) -> list[str]:
    if proxy.launch not in LAUNCHES:
        wanted = ", ".join(f'"{launch}"' for launch in LAUNCHES if launch)
        return [f'Proxy.Launch must be one of {wanted}, not "{proxy.launch}"']
    if proxy.launch and kind != CONNECT_PROXY:
        return ["Proxy.Launch is for Connect proxies: give it in the sidecar's proxy block"]
    return []


def upstream_problem(upstream: Upstream) -> str | None:
    """What is wrong with one upstream, None when it can be listened for."""
    if upstream.destination_type not in ("", "service", "prepared_query"):
        return f'unknown upstream destination type: "{upstream.destination_type}"'
    if not upstream.destination_name:
        return "upstream destination name cannot be empty"
    if upstream.destination_name == "*" and not upstream.centrally_configured:
        return "upstream destination name cannot be a wildcard"
    if upstream.destination_peer and upstream.datacenter:
        return "upstream cannot specify both destination peer and datacenter"
    if upstream.centrally_configured:
        return None
    if not upstream.local_bind_port and not upstream.local_bind_socket_path:
        return "upstream local bind port or local socket path must be defined and nonzero"
    if upstream.local_bind_port and upstream.local_bind_socket_path:
        return "only one of upstream local bind port or local socket path can be defined and nonzero"
    return None


def upstream_address(upstream: Upstream) -> str:
    """Where an upstream listens: `host:port`, or the path of its socket."""
    if not upstream.local_bind_port and not upstream.local_bind_address and upstream.local_bind_socket_path:
        return upstream.local_bind_socket_path
    host = upstream.local_bind_address or "127.0.0.1"
    return f"[{host}]:{upstream.local_bind_port}" if ":" in host else f"{host}:{upstream.local_bind_port}"


def _upstreams_problems(upstreams: tuple[Upstream, ...]) -> list[str]:
    problems: list[str] = []
    seen: set[tuple[str, ...]] = set()
    bound: set[str] = set()
    for upstream in upstreams:
        problem = upstream_problem(upstream)
        if problem:
            problems.append(problem)
            continue
        key = {
            "type": upstream.destination_type,
            "name": upstream.destination_name,
            "partition": upstream.destination_partition,
            "namespace": upstream.destination_namespace,
            "peer": upstream.destination_peer,
            "datacenter": upstream.datacenter,
        }
        if tuple(key.values()) in seen:
            shown = ", ".join(f'{name}="{value}"' for name, value in key.items())
            problems.append(f"upstreams cannot contain duplicates of [{shown}]")
            continue
        seen.add(tuple(key.values()))
        address = upstream_address(upstream)
        if address in bound and not upstream.centrally_configured:
            problems.append(
                "upstreams cannot contain duplicates by local bind address and port or unix path; "
                f'"{address}" is specified twice'
            )
            continue
        bound.add(address)
    return problems


def _expose_problems(proxy: ConnectProxyConfig) -> list[str]:
    problems: list[str] = []
    ports: set[int] = set()
    for path in proxy.expose.paths:
        if not path.path:
            problems.append("expose.paths: empty path exposed")
        if path.listener_port in ports:
            problems.append("expose.paths: duplicate listener ports exposed")
        ports.add(path.listener_port)
        if not 0 < path.listener_port <= 65535:
            problems.append(f"expose.paths: invalid listener port: {path.listener_port}")
        protocol = path.protocol.lower()
        if protocol and protocol not in EXPOSE_PROTOCOLS:
            allowed = " ".join(EXPOSE_PROTOCOLS)
            problems.append(f"protocol '{protocol}' not supported for path: {path.path}, must be in: [{allowed}]")
    return problems


def _gateway_problems(service: ServiceDefinition, proxy: ConnectProxyConfig) -> list[str]:
    problems: list[str] = []
    if service.port == 0 and service.kind not in PORTLESS_GATEWAY_KINDS:
        problems.append(f"Port must be non-zero for a {service.kind}")
    if service.connect is not None and service.connect.sidecar_service is not None:
        problems.append(f"A {service.kind} cannot have a sidecar service defined")
    for field, value in (
        ("DestinationServiceName", proxy.destination_service_name),
        ("DestinationServiceID", proxy.destination_service_id),
        ("LocalServiceAddress", proxy.local_service_address),
        ("LocalServicePort", proxy.local_service_port),
        ("LocalServiceSocketPath", proxy.local_service_socket_path),
        ("Upstreams", proxy.upstreams),
    ):
        if value:
            problems.append(f"The Proxy.{field} configuration is invalid for a {service.kind}")
    return problems


def _is_any_address(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False
