"""Services and checks as people define them: in configuration files and in the bodies of agent registrations.

A definition is what was asked for; `NodeService` and `Check` are what the catalog shows. The two doors spell keys
differently (`ScriptArgs`, `script_args`, `args`) and mean the same record, which is why the record lives on the
lowest floor.

    definition = decode_service({"Name": "web", "Port": 80, "Check": {"TTL": "10s"}})
    problem = service_registration_problem(definition)     # None, or the text that the API answers with status 400
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin

import msgspec

from lictor.model.decoding import ABSENT, Absent, Duration, Key, Path, Reader, Record, build, is_record
from lictor.model.duration import MAX_NANOSECONDS, SECOND, parse_duration
from lictor.model.errors import InvalidRequest
from lictor.model.service import ConnectProxyConfig, ServiceAddress, Weights


class CheckDefinition(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A health check to run, or a TTL to keep. Durations are seconds, 0 where not given; sizes are bytes."""

    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    notes: str = ""
    service_id: str = msgspec.field(default="", name="ServiceID")
    token: str = ""
    status: str = ""
    script_args: tuple[str, ...] = ()
    http: str = msgspec.field(default="", name="HTTP")
    header: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    method: str = ""
    body: str = ""
    disable_redirects: bool = False
    tcp: str = msgspec.field(default="", name="TCP")
    tcp_use_tls: bool = msgspec.field(default=False, name="TCPUseTLS")
    udp: str = msgspec.field(default="", name="UDP")
    interval: Duration = 0.0
    docker_container_id: str = msgspec.field(default="", name="DockerContainerID")
    shell: str = ""
    grpc: str = msgspec.field(default="", name="GRPC")
    grpc_use_tls: bool = msgspec.field(default=False, name="GRPCUseTLS")
    h2ping: str = msgspec.field(default="", name="H2PING")
    h2ping_use_tls: bool = msgspec.field(default=True, name="H2PingUseTLS")
    os_service: str = msgspec.field(default="", name="OSService")
    tls_server_name: str = msgspec.field(default="", name="TLSServerName")
    tls_skip_verify: bool = msgspec.field(default=False, name="TLSSkipVerify")
    alias_node: str = ""
    alias_service: str = ""
    timeout: Duration = 0.0
    ttl: Duration = msgspec.field(default=0.0, name="TTL")
    success_before_passing: int = 0
    failures_before_warning: int = 0
    failures_before_critical: int = 0
    deregister_critical_service_after: Duration = 0.0
    output_max_size: int = 0
    namespace: str = ""
    partition: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is defined: such a check is ignored where it stands alone in a service."""
        return self == CheckDefinition()

    @property
    def is_alias(self) -> bool:
        """Whether this check mirrors another service or node."""
        return bool(self.alias_node or self.alias_service)

    @property
    def is_script(self) -> bool:
        """Whether this check runs a program, on the host or in a container."""
        return bool(self.script_args)

    @property
    def kind(self) -> str:
        """The `Type` that the API shows: script, docker, http, tcp, udp, grpc, h2ping, os_service, alias or ttl."""
        if self.is_alias:
            return "alias"
        if self.is_script:
            return "docker" if self.docker_container_id else "script"
        for kind in ("http", "tcp", "udp", "grpc", "h2ping", "os_service"):
            if getattr(self, kind):
                return kind
        return "ttl" if self.ttl > 0 else ""


class Locality(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Where an instance runs."""

    region: str = ""
    zone: str = ""


class ConnectDefinition(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The `connect` block: an application that speaks the mesh's TLS itself, or one with a sidecar to register."""

    native: bool = False
    sidecar_service: ServiceDefinition | None = None


class ServiceDefinition(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A service instance to register with an agent, with its checks and, nested, its sidecar."""

    kind: str = ""
    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    tags: tuple[str, ...] = ()
    address: str = ""
    tagged_addresses: dict[str, ServiceAddress] = msgspec.field(default_factory=dict)
    meta: dict[str, str] = msgspec.field(default_factory=dict)
    port: int = 0
    socket_path: str = ""
    check: CheckDefinition | None = None
    checks: tuple[CheckDefinition, ...] = ()
    weights: Weights | None = None
    token: str = ""
    enable_tag_override: bool = False
    proxy: ConnectProxyConfig | None = None
    connect: ConnectDefinition | None = None
    locality: Locality | None = None
    namespace: str = ""
    partition: str = ""

    @property
    def service_id(self) -> str:
        """The id under which the agent knows the instance: the given one, else the name."""
        return self.id or self.name

    @property
    def all_checks(self) -> tuple[CheckDefinition, ...]:
        """`check` and `checks` together, in the order that numbers their ids."""
        alone = () if self.check is None or self.check.is_empty else (self.check,)
        return (*alone, *self.checks)


ALIASES: dict[type[msgspec.Struct], dict[str, str]] = {
    CheckDefinition: {"args": "script_args", "checkid": "id"},
}
"""Spellings (lower case, no underscores) besides an attribute's own name."""


def alias(record: type[msgspec.Struct], spelled: str) -> str | None:
    """The attribute that an alias of `record` names, for a spelling in lower case with or without underscores."""
    return ALIASES.get(record, {}).get(spelled.replace("_", ""))


def _json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "number"
    if isinstance(value, float):
        return f"number {value:g}"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Mapping) else "array"


def _go_type(type_: Any) -> str:
    if type_ is Duration:
        return "string"
    if is_record(type_):
        return f"structs.{type_.__name__}"
    origin = get_origin(type_)
    if origin is tuple:
        return f"[]{_go_type(get_args(type_)[0])}"
    if origin is dict:
        return f"map[string]{_go_type(get_args(type_)[1])}"
    return {str: "string", int: "int", bool: "bool", float: "float64"}.get(type_, "interface {}")


class ApiDialect:
    """How the HTTP API's bodies are written: any case, with or without underscores; durations as text or as integer
    nanoseconds; mistakes worded as Go's JSON decoder words them."""

    def spelling(self, written: str) -> str:
        """Lower case, without underscores."""
        return written.replace("_", "").lower()

    def renamed(self, record: type[msgspec.Struct], spelled: str) -> str | None:
        """The attribute for an alias such as `args`."""
        return alias(record, spelled)

    def unknown_key(self, record: type[msgspec.Struct], path: Path, keys: Mapping[str, Key]) -> str:
        """Go's text for a field that the type does not have."""
        return f'json: unknown field "{path[-1]}"'

    def wrong_type(self, path: Path, type_: Any, value: Any) -> str:
        """Go's text for a value of another type; it names the outermost field."""
        if not path:
            return f"json: cannot unmarshal {_json_kind(value)} into Go value of type {_go_type(type_)}"
        return f"json: cannot unmarshal {_json_kind(value)} into Go struct field .{path[0]} of type {_go_type(type_)}"

    def duration(self, value: Any) -> float | Absent:
        """Seconds; a value that is neither text nor number counts as not given, as it does for Consul."""
        if isinstance(value, str):
            return parse_duration(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return ABSENT
        if not abs(value) <= MAX_NANOSECONDS:
            raise ValueError("time: invalid duration: more nanoseconds than 64 bits hold")
        return value / SECOND


def decode_body(record: type[Record], mapping: Any) -> Record:
    """The record that a JSON body describes. Raises InvalidRequest with the API's text for what cannot be read."""
    reader = Reader(ApiDialect())
    tree = reader.read_record(record, mapping, ())
    if reader.mistakes:
        raise InvalidRequest(f"Request decode failed: {reader.mistakes[0].text}")
    return build(record, tree)


def decode_service(mapping: Any) -> ServiceDefinition:
    """The service that a JSON body describes. Raises InvalidRequest with the API's text for what cannot be read.

    What can be read may still be refused: see `service_rules`.
    """
    return decode_body(ServiceDefinition, mapping)


def decode_check(mapping: Any) -> CheckDefinition:
    """The check that a JSON body describes. Raises InvalidRequest with the API's text for what cannot be read.

    What can be read may still be refused: see `service_rules`.
    """
    return decode_body(CheckDefinition, mapping)


def proxy_json(proxy: ConnectProxyConfig) -> dict[str, Any]:
    """A proxy block as the API shows it: Consul's names, empty values left out where Consul leaves them out."""
    shown: dict[str, Any] = msgspec.to_builtins(proxy)
    return shown
