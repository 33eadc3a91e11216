"""What the agent answers, as far as the proxy reads it. Fields that are not here are passed over."""

from typing import Any

import msgspec

from lictor.model.service import AccessLogs, Upstream, Weights


class Root(msgspec.Struct, frozen=True, rename="pascal"):
    """A root that the mesh trusts, as PEM."""

    id: str = msgspec.field(default="", name="ID")
    root_cert: str = ""
    active: bool = False


class Roots(msgspec.Struct, frozen=True, rename="pascal"):
    """`/v1/agent/connect/ca/roots`. `revoked` are serial numbers of leaves that are not to be believed."""

    trust_domain: str = ""
    roots: tuple[Root, ...] = ()
    revoked: tuple[str, ...] = ()


class Leaf(msgspec.Struct, frozen=True, rename="pascal"):
    """`/v1/agent/connect/ca/leaf/:service`: a certificate with its intermediates, and its key, as PEM."""

    cert_pem: str = msgspec.field(name="CertPEM")
    private_key_pem: str = msgspec.field(name="PrivateKeyPEM")
    serial_number: str = ""
    service: str = ""
    service_uri: str = msgspec.field(default="", name="ServiceURI")
    valid_before: str = ""

    def __repr__(self) -> str:
        return f"Leaf({self.service_uri}, {self.serial_number})"  # a key must not come into a log


class ProxyBlock(msgspec.Struct, frozen=True, rename="pascal"):
    """The proxy block of a service of the agent."""

    destination_service_name: str = ""
    destination_service_id: str = msgspec.field(default="", name="DestinationServiceID")
    local_service_address: str = ""
    local_service_port: int = 0
    local_service_socket_path: str = ""
    config: dict[str, Any] | None = None
    upstreams: tuple[Upstream, ...] | None = None
    access_logs: AccessLogs | None = None
    launch: str = ""


class ProxyService(msgspec.Struct, frozen=True, rename="pascal"):
    """`/v1/agent/service/:id`, and a value of `/v1/agent/services`."""

    id: str = msgspec.field(name="ID")
    kind: str = ""
    service: str = ""
    address: str = ""
    port: int = 0
    datacenter: str = ""
    proxy: ProxyBlock | None = None


class NodeOfEntry(msgspec.Struct, frozen=True, rename="pascal"):
    """The node of an instance."""

    node: str = ""
    address: str = ""
    datacenter: str = ""


class ProxyOfEntry(msgspec.Struct, frozen=True, rename="pascal"):
    """What an instance's proxy stands for."""

    destination_service_name: str = ""


class ServiceOfEntry(msgspec.Struct, frozen=True, rename="pascal"):
    """An instance that takes mesh connections: a proxy, or a program that speaks the mesh's TLS itself."""

    id: str = msgspec.field(default="", name="ID")
    kind: str = ""
    service: str = ""
    address: str = ""
    port: int = 0
    weights: Weights = Weights()
    proxy: ProxyOfEntry = ProxyOfEntry()


class HealthEntry(msgspec.Struct, frozen=True, rename="pascal"):
    """A row of `/v1/health/connect/:service`."""

    node: NodeOfEntry = NodeOfEntry()
    service: ServiceOfEntry = ServiceOfEntry()


class QueryResult(msgspec.Struct, frozen=True, rename="pascal"):
    """`/v1/query/:query/execute?connect`."""

    nodes: tuple[HealthEntry, ...] | None = None
    datacenter: str = ""
