"""The bodies of catalog registrations, as clients write them, made into commands."""

import ipaddress
from typing import Any

import msgspec

from lictor.model.check import CRITICAL, Check
from lictor.model.command import Deregister, Register
from lictor.model.decoding import Duration
from lictor.model.duration import format_duration
from lictor.model.errors import InvalidRequest, Refused
from lictor.model.ids import is_id
from lictor.model.node import Node
from lictor.model.service import (
    ConnectProxyConfig,
    NodeService,
    ServiceAddress,
    ServiceConnect,
    Weights,
)
from lictor.model.service_definition import ConnectDefinition, Locality, ServiceDefinition, decode_body
from lictor.model.service_rules import connect_problems, multierror, tenancy_problem


class CheckDefinitionBody(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """How a check that is run from elsewhere (such as by consul-esm) is run; kept as it is."""

    http: str = msgspec.field(default="", name="HTTP")
    tls_server_name: str = msgspec.field(default="", name="TLSServerName")
    tls_skip_verify: bool = msgspec.field(default=False, name="TLSSkipVerify")
    header: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    method: str = ""
    body: str = ""
    disable_redirects: bool = False
    tcp: str = msgspec.field(default="", name="TCP")
    tcp_use_tls: bool = msgspec.field(default=False, name="TCPUseTLS")
    udp: str = msgspec.field(default="", name="UDP")
    grpc: str = msgspec.field(default="", name="GRPC")
    grpc_use_tls: bool = msgspec.field(default=False, name="GRPCUseTLS")
    os_service: str = msgspec.field(default="", name="OSService")
    h2ping: str = msgspec.field(default="", name="H2PING")
    h2ping_use_tls: bool = msgspec.field(default=False, name="H2PingUseTLS")
    interval_duration: Duration = 0.0
    interval: Duration = 0.0
    timeout_duration: Duration = 0.0
    timeout: Duration = 0.0
    deregister_critical_service_after_duration: Duration = 0.0
    deregister_critical_service_after: Duration = 0.0
    script_args: tuple[str, ...] = ()
    docker_container_id: str = msgspec.field(default="", name="DockerContainerID")
    shell: str = ""
    alias_node: str = ""
    alias_service: str = ""
    ttl: Duration = msgspec.field(default=0.0, name="TTL")


class CheckBody(msgspec.Struct, frozen=True, rename="pascal"):
    """A check of a registration."""

    node: str = ""
    check_id: str = msgspec.field(default="", name="CheckID")
    name: str = ""
    status: str = ""
    notes: str = ""
    output: str = ""
    service_id: str = msgspec.field(default="", name="ServiceID")
    service_name: str = ""
    service_tags: tuple[str, ...] = ()
    type: str = ""
    interval: str = ""
    timeout: str = ""
    exposed_port: int = 0
    definition: CheckDefinitionBody = CheckDefinitionBody()
    namespace: str = ""
    partition: str = ""
    peer_name: str = ""
    create_index: int = 0
    modify_index: int = 0


class ConnectBody(msgspec.Struct, frozen=True, rename="pascal"):
    """The `Connect` block of a service."""

    native: bool = False


class ServiceBody(msgspec.Struct, frozen=True, rename="pascal"):
    """A service of a registration."""

    kind: str = ""
    id: str = msgspec.field(default="", name="ID")
    service: str = ""
    tags: tuple[str, ...] = ()
    address: str = ""
    tagged_addresses: dict[str, ServiceAddress] = msgspec.field(default_factory=dict)
    meta: dict[str, str] | None = None
    port: int = 0
    socket_path: str = ""
    weights: Weights | None = None
    enable_tag_override: bool = False
    proxy: ConnectProxyConfig | None = None
    connect: ConnectBody | None = None
    locality: Locality | None = None
    namespace: str = ""
    partition: str = ""
    peer_name: str = ""
    create_index: int = 0
    modify_index: int = 0


class RegistrationBody(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of `PUT /v1/catalog/register`."""

    datacenter: str = ""
    id: str = msgspec.field(default="", name="ID")
    node: str = ""
    address: str = ""
    tagged_addresses: dict[str, str] | None = None
    node_meta: dict[str, str] | None = None
    service: ServiceBody | None = None
    check: CheckBody | None = None
    checks: tuple[CheckBody, ...] = ()
    skip_node_update: bool = False
    locality: Locality | None = None
    write_request: dict[str, Any] | None = None
    namespace: str = ""
    partition: str = ""
    peer_name: str = ""


class DeregistrationBody(msgspec.Struct, frozen=True, rename="pascal"):
    """The body of `PUT /v1/catalog/deregister`."""

    datacenter: str = ""
    node: str = ""
    address: str = ""
    service_id: str = msgspec.field(default="", name="ServiceID")
    check_id: str = msgspec.field(default="", name="CheckID")
    write_request: dict[str, Any] | None = None
    namespace: str = ""
    partition: str = ""
    peer_name: str = ""


def _only_default(body: RegistrationBody | DeregistrationBody) -> None:
    problem = tenancy_problem(body.namespace, body.partition)
    if problem is not None:
        raise InvalidRequest(problem)


def decode_registration(body: Any, datacenter: str) -> Register:
    """The command that a registration asks for, in the datacenter that it is for. Raises `InvalidRequest` or `Refused`
    with the API's text.
    """
    given = decode_body(RegistrationBody, body)
    _only_default(given)
    if not given.node:
        raise Refused("Must provide node")
    if not given.address and not given.skip_node_update:
        raise Refused("Must provide address if SkipNodeUpdate is not set")
    if given.id and not is_id(given.id):
        raise Refused(_bad_id(given.id))
    node = Node(
        given.id.lower(), given.node, given.address, datacenter, given.tagged_addresses or None, given.node_meta or None
    )
    service = node_service(given.service) if given.service is not None else None
    bodies = [*given.checks, *([given.check] if given.check is not None else [])]
    checks = []
    for body_check in bodies:
        if body_check.node and body_check.node.lower() != given.node.lower():
            raise Refused(f'check node "{body_check.node}" does not match node "{given.node}"')
        row = check_row(body_check, given.node)
        if not row.check_id and row.name:
            row = msgspec.structs.replace(row, check_id=row.name)
        checks.append(row)
    return Register(node, service, tuple(checks), given.skip_node_update)


def _bad_id(node_id: str) -> str:
    length = "wrong length" if len(node_id) != 36 else "improperly formatted"
    return f"Bad node ID: uuid string is {length}"


def node_service(body: ServiceBody) -> NodeService:
    """A service as the catalog keeps it. Raises `Refused` where it lacks something."""
    _refuse_unfit(body)
    proxy = body.proxy or ConnectProxyConfig()
    weights = body.weights if body.weights is not None and body.weights.passing > 0 else Weights()
    return NodeService(
        kind=body.kind,
        id=body.id or body.service,
        service=body.service,
        tags=body.tags,
        address=body.address,
        tagged_addresses=body.tagged_addresses or None,
        meta=body.meta,
        port=body.port,
        socket_path=body.socket_path,
        weights=weights,
        enable_tag_override=body.enable_tag_override,
        proxy=proxy,
        connect=ServiceConnect(body.connect is not None and body.connect.native),
        modify_index=body.modify_index,
    )


def _refuse_unfit(body: ServiceBody) -> None:
    native = body.connect is not None and body.connect.native
    if body.kind or native:
        problems = connect_problems(
            ServiceDefinition(
                kind=body.kind,
                name=body.service,
                port=body.port,
                socket_path=body.socket_path,
                proxy=body.proxy,
                connect=ConnectDefinition(native=native),
            )
        )
        if problems:
            raise Refused(multierror(problems))
    if body.id and not body.service:
        raise Refused("Must provide service name with ID")
    try:
        unspecified = bool(body.address) and ipaddress.ip_address(body.address).is_unspecified
    except ValueError:
        unspecified = False
    if unspecified:
        raise Refused("Invalid service address")


def check_row(body: CheckBody, node: str) -> Check:
    """A check as the catalog keeps it."""
    return Check(
        node=body.node or node,
        check_id=body.check_id,
        name=body.name,
        status=body.status or CRITICAL,
        notes=body.notes,
        output=body.output,
        service_id=body.service_id,
        service_name=body.service_name,
        service_tags=body.service_tags,
        type=body.type or _type(body.definition),
        interval=body.interval,
        timeout=body.timeout,
        exposed_port=body.exposed_port,
        definition=_definition(body.definition),
        modify_index=body.modify_index,
    )


def _type(definition: CheckDefinitionBody) -> str:
    """The kind of check that a definition describes, where it says none."""
    return next((k for k in ("http", "tcp", "udp", "grpc", "h2ping", "os_service") if getattr(definition, k)), "")


def _definition(body: CheckDefinitionBody) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(body)
    for name in ("Interval", "Timeout", "DeregisterCriticalServiceAfter"):
        seconds = shown.pop(name + "Duration", 0.0) or shown.get(name, 0.0)
        if seconds:
            shown[name] = format_duration(seconds)
    if "TTL" in shown:
        shown["TTL"] = format_duration(shown["TTL"])
    return shown


def decode_deregistration(body: Any) -> Deregister:
    """The command that a removal asks for. Raises `InvalidRequest` or `Refused` with the API's text."""
    given = decode_body(DeregistrationBody, body)
    _only_default(given)
    if not given.node:
        raise Refused("Must provide node")
    return Deregister(given.node, given.service_id, given.check_id)
