"""What the API answers, as records; those that are rows of the catalog are the model's own."""

from __future__ import annotations

from typing import Any

import msgspec

from lictor.model.check import Check
from lictor.model.node import Node
from lictor.model.service import NodeService, ServiceAddress, Weights


class ServiceEntry(msgspec.Struct, frozen=True, rename="pascal"):
    """An instance with its node and the checks of both."""

    node: Node
    service: NodeService
    checks: list[Check]


class CatalogService(msgspec.Struct, frozen=True, rename="pascal"):
    """An instance with its node, flat."""

    id: str = msgspec.field(default="", name="ID")
    node: str = ""
    address: str = ""
    datacenter: str = ""
    tagged_addresses: dict[str, str] | None = None
    node_meta: dict[str, str] | None = None
    service_kind: str = ""
    service_id: str = msgspec.field(default="", name="ServiceID")
    service_name: str = ""
    service_tags: tuple[str, ...] | None = ()
    service_address: str = ""
    service_weights: Weights = Weights()
    service_meta: dict[str, str] | None = None
    service_port: int = 0
    create_index: int = 0
    modify_index: int = 0


class CatalogNode(msgspec.Struct, frozen=True, rename="pascal"):
    """A node with its services by id."""

    node: Node
    services: dict[str, NodeService]


class AgentService(msgspec.Struct, frozen=True, rename="pascal"):
    """A service as its own agent shows it."""

    id: str = msgspec.field(default="", name="ID")
    service: str = ""
    tags: tuple[str, ...] | None = ()
    meta: dict[str, str] | None = None
    port: int = 0
    address: str = ""
    weights: Weights = Weights()
    enable_tag_override: bool = False
    datacenter: str = ""
    kind: str = ""
    tagged_addresses: dict[str, ServiceAddress] | None = None
    content_hash: str = ""
    proxy: dict[str, Any] | None = None


class CheckSpec(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A check to register: one of `http`, `tcp`, `udp`, `grpc`, `h2ping`, `args`, `ttl`, `alias_service`, with its
    `interval`. Durations are texts such as `10s`.
    """

    name: str = msgspec.field(default="", name="Name")
    check_id: str = msgspec.field(default="", name="CheckID")
    notes: str = msgspec.field(default="", name="Notes")
    status: str = msgspec.field(default="", name="Status")
    http: str = msgspec.field(default="", name="HTTP")
    method: str = msgspec.field(default="", name="Method")
    header: dict[str, list[str]] | None = msgspec.field(default=None, name="Header")
    body: str = msgspec.field(default="", name="Body")
    tls_skip_verify: bool = msgspec.field(default=False, name="TLSSkipVerify")
    tcp: str = msgspec.field(default="", name="TCP")
    udp: str = msgspec.field(default="", name="UDP")
    grpc: str = msgspec.field(default="", name="GRPC")
    grpc_use_tls: bool = msgspec.field(default=False, name="GRPCUseTLS")
    h2ping: str = msgspec.field(default="", name="H2PING")
    args: tuple[str, ...] = msgspec.field(default=(), name="Args")
    ttl: str = msgspec.field(default="", name="TTL")
    alias_node: str = msgspec.field(default="", name="AliasNode")
    alias_service: str = msgspec.field(default="", name="AliasService")
    interval: str = msgspec.field(default="", name="Interval")
    timeout: str = msgspec.field(default="", name="Timeout")
    success_before_passing: int = msgspec.field(default=0, name="SuccessBeforePassing")
    failures_before_warning: int = msgspec.field(default=0, name="FailuresBeforeWarning")
    failures_before_critical: int = msgspec.field(default=0, name="FailuresBeforeCritical")
    deregister_critical_service_after: str = msgspec.field(default="", name="DeregisterCriticalServiceAfter")


class Published(msgspec.Struct, frozen=True, rename="pascal"):
    """Where the agent publishes a service for lookups."""

    path: str
    run: int
    service: str
    generation: int


class LookupMap(msgspec.Struct, frozen=True, rename="pascal"):
    """The agent's lookup map: its file, how many bytes it has, and what is in it."""

    path: str
    size: int
    services: tuple[str, ...]


class QueryResult(msgspec.Struct, frozen=True, rename="pascal"):
    """What a prepared query found; `failovers` is how many other datacenters were asked."""

    service: str = ""
    nodes: list[ServiceEntry] = []
    datacenter: str = ""
    failovers: int = 0


class TxnError(msgspec.Struct, frozen=True, rename="pascal"):
    """Why an operation of a transaction failed, by its position."""

    op_index: int = 0
    what: str = ""


class TxnOutcome(msgspec.Struct, frozen=True, rename="pascal"):
    """What a transaction did: a result for each operation that has one, or the reasons why it was rolled back. A result
    is an object with one key, `KV`, `Node`, `Service` or `Check`.
    """

    results: list[dict[str, Any]] | None = None
    errors: list[TxnError] | None = None

    @property
    def committed(self) -> bool:
        """Whether it took effect, all of it."""
        return not self.errors


class RaftServer(msgspec.Struct, frozen=True, rename="pascal"):
    """A server of the cluster."""

    id: str = msgspec.field(default="", name="ID")
    node: str = ""
    address: str = ""
    leader: bool = False
    voter: bool = False
    protocol_version: str = ""


class RaftConfiguration(msgspec.Struct, frozen=True, rename="pascal"):
    """The servers of the cluster."""

    servers: list[RaftServer]
    index: int = 0


class ServerHealth(msgspec.Struct, frozen=True, rename="pascal"):
    """What autopilot knows of a server."""

    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    address: str = ""
    serf_status: str = ""
    version: str = ""
    leader: bool = False
    last_contact: str = ""
    last_term: int = 0
    last_index: int = 0
    healthy: bool = False
    voter: bool = False
    stable_since: str = ""


class ClusterHealth(msgspec.Struct, frozen=True, rename="pascal"):
    """What autopilot knows of all servers; `failure_tolerance` is how many may fail without an outage."""

    healthy: bool = False
    failure_tolerance: int = 0
    servers: list[ServerHealth] | None = None


class ConnectRoot(msgspec.Struct, frozen=True, rename="pascal"):
    """An authority of the mesh. `root_cert` is PEM."""

    id: str = msgspec.field(default="", name="ID")
    name: str = ""
    root_cert: str = ""
    intermediate_certs: list[str] | None = None
    active: bool = False


class ConnectRoots(msgspec.Struct, frozen=True, rename="pascal"):
    """The authorities that are trusted; one of them signs. `revoked` are the serial numbers of certificates that are
    not to be believed all the same.
    """

    active_root_id: str = msgspec.field(default="", name="ActiveRootID")
    trust_domain: str = ""
    roots: list[ConnectRoot] = []
    revoked: list[str] = []


class ConnectLeaf(msgspec.Struct, frozen=True, rename="pascal"):
    """A service's identity, PEM. Times are RFC 3339."""

    serial_number: str
    cert_pem: str = msgspec.field(name="CertPEM")
    private_key_pem: str = msgspec.field(name="PrivateKeyPEM")
    service: str = ""
    service_uri: str = msgspec.field(default="", name="ServiceURI")
    valid_after: str = ""
    valid_before: str = ""

    def __repr__(self) -> str:
        return f"ConnectLeaf({self.service_uri}, serial {self.serial_number})"


class Authorization(msgspec.Struct, frozen=True, rename="pascal"):
    """Whether a connection may be let in, and why."""

    authorized: bool = False
    reason: str = ""


class IntentionRow(msgspec.Struct, frozen=True, rename="pascal"):
    """An intention: an action, or permissions as the API writes them. `id` is that of those that are made by id."""

    source_name: str = ""
    destination_name: str = ""
    action: str = ""
    permissions: list[dict[str, Any]] | None = None
    precedence: int = 0
    description: str = ""
    meta: dict[str, str] | None = None
    id: str = msgspec.field(default="", name="ID")
    create_index: int = 0
    modify_index: int = 0
