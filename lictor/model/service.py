"""A service instance of the catalog, with the proxy description it may carry.

Fields that Consul leaves out of its JSON when they are empty have plain defaults here; fields it always shows have
default factories, which `omit_defaults` never leaves out.
"""

from typing import Any

import msgspec

CONNECT_PROXY = "connect-proxy"
BUILTIN, ENVOY = "builtin", "envoy"
NO_LAUNCH = "none"
LAUNCHES = ("", BUILTIN, ENVOY, NO_LAUNCH)
"""What a proxy block may say of who starts the proxy: nothing, and the agent's configuration decides; the agent, one of
that kind; or somebody else.
"""
SERVICE_KINDS = ("", CONNECT_PROXY, "mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway")


def _text() -> str:
    return ""


def _zero() -> int:
    return 0


def _no() -> bool:
    return False


def _none() -> None:
    return None


def _no_tags() -> tuple[str, ...]:
    return ()


class ServiceAddress(msgspec.Struct, frozen=True, rename="pascal"):
    """An address by which a service is reached under a tag such as `lan` or `wan`."""

    address: str = ""
    port: int = 0


class Weights(msgspec.Struct, frozen=True, rename="pascal"):
    """A service's DNS weights while its checks pass and while they warn."""

    passing: int = 1
    warning: int = 1


class MeshGateway(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """How a proxy uses mesh gateways: `local`, `remote`, `none` or empty for the default."""

    mode: str = ""


class ExposePath(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """An HTTP path that a proxy exposes without mutual TLS."""

    listener_port: int = 0
    path: str = ""
    local_path_port: int = 0
    protocol: str = ""
    parsed_from_check: bool = msgspec.field(default_factory=_no)


class Expose(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """What a proxy exposes outside the mesh: the service's checks, or single paths."""

    checks: bool = False
    paths: tuple[ExposePath, ...] = ()


class TransparentProxy(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Settings of a proxy in transparent mode."""

    outbound_listener_port: int = 0
    dialed_directly: bool = False


class AccessLogs(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A proxy's access log."""

    enabled: bool = False
    disable_listener_logs: bool = False
    type: str = ""
    path: str = ""
    json_format: str = msgspec.field(default="", name="JSONFormat")
    text_format: str = ""


class Upstream(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A service that a proxy makes reachable to its own service on a local address."""

    destination_type: str = msgspec.field(default_factory=_text)  # agents write "service" where it is not given
    destination_namespace: str = ""
    destination_partition: str = ""
    destination_peer: str = ""
    destination_name: str = msgspec.field(default_factory=_text)
    datacenter: str = msgspec.field(default_factory=_text)
    local_bind_address: str = ""
    local_bind_port: int = 0
    local_bind_socket_path: str = ""
    local_bind_socket_mode: str = ""
    config: dict[str, Any] | None = msgspec.field(default_factory=_none)
    mesh_gateway: MeshGateway = msgspec.field(default_factory=MeshGateway)
    centrally_configured: bool = False


class ConnectProxyConfig(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The `Proxy` block of a service: what it stands for, its upstreams, and of `LAUNCHES` who starts it."""

    destination_service_name: str = ""
    destination_service_id: str = msgspec.field(default="", name="DestinationServiceID")
    local_service_address: str = ""
    local_service_port: int = 0
    local_service_socket_path: str = ""
    mode: str = ""
    launch: str = ""
    config: dict[str, Any] | None = None
    upstreams: tuple[Upstream, ...] = ()
    mesh_gateway: MeshGateway = msgspec.field(default_factory=MeshGateway)
    expose: Expose = msgspec.field(default_factory=Expose)
    transparent_proxy: TransparentProxy | None = None
    access_logs: AccessLogs | None = None
    envoy_extensions: tuple[dict[str, Any], ...] = ()


class ServiceConnect(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The `Connect` block of a catalog service."""

    native: bool = False


class NodeService(msgspec.Struct, frozen=True, gc=False, rename="pascal", omit_defaults=True):
    """A service instance as the catalog and health endpoints show it (without its node)."""

    kind: str = ""
    id: str = msgspec.field(default_factory=_text, name="ID")
    service: str = msgspec.field(default_factory=_text)
    tags: tuple[str, ...] = msgspec.field(default_factory=_no_tags)
    address: str = msgspec.field(default_factory=_text)
    tagged_addresses: dict[str, ServiceAddress] | None = None
    meta: dict[str, str] | None = msgspec.field(default_factory=_none)
    port: int = msgspec.field(default_factory=_zero)
    socket_path: str = ""
    weights: Weights = msgspec.field(default_factory=Weights)
    enable_tag_override: bool = msgspec.field(default_factory=_no)
    proxy: ConnectProxyConfig = msgspec.field(default_factory=ConnectProxyConfig)
    connect: ServiceConnect = msgspec.field(default_factory=ServiceConnect)
    create_index: int = msgspec.field(default_factory=_zero)
    modify_index: int = msgspec.field(default_factory=_zero)

    @property
    def connect_name(self) -> str:
        """The service that a mesh client reaches through this instance: empty where it takes no mesh connections."""
        if self.kind == CONNECT_PROXY:
            return self.proxy.destination_service_name
        return self.service if self.connect.native else ""


class Instance(msgspec.Struct, frozen=True, gc=False):
    """A row of the service table: an instance and the name of the node it runs on."""

    node: str
    service: NodeService
