"""Entries about the mesh as a whole: `mesh`, `exported-services`, `sameness-group`, `control-plane-request-limit`."""

from __future__ import annotations

import msgspec

from lictor.model.config_entry.decode import InvalidConfigEntry
from lictor.model.config_entry.entry import WILDCARD, ConfigEntry, Record, check_tls, require

MESH = "mesh"
_ECDH_CURVES = ("P-256", "P-384", "P-521", "X25519", "X25519MLKEM768")
_ESCAPED_SLASHES = (
    *("IMPLEMENTATION_SPECIFIC_DEFAULT", "KEEP_UNCHANGED", "REJECT_REQUEST"),
    *("UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"),
)
_UNDERSCORES = ("ALLOW", "REJECT_REQUEST", "DROP_HEADER")
_MODES = ("permissive", "enforcing", "disabled")


class MeshTransparentProxy(Record, frozen=True):
    """Whether transparent proxies pass traffic to places outside of the mesh."""

    mesh_destinations_only: bool = msgspec.field(default_factory=bool)


class MeshDirectionalTLS(Record, frozen=True):
    """TLS between proxies, in one direction."""

    tls_min_version: str = msgspec.field(default="", name="TLSMinVersion")
    tls_max_version: str = msgspec.field(default="", name="TLSMaxVersion")
    cipher_suites: tuple[str, ...] = ()
    ecdh_curves: tuple[str, ...] = msgspec.field(default=(), name="ECDHCurves")

    def check(self) -> None:
        """Raise InvalidConfigEntry for versions, suites or curves that are unknown or do not go together."""
        check_tls(self.tls_min_version, self.tls_max_version, self.cipher_suites)
        for curve in self.ecdh_curves:
            require(
                curve in _ECDH_CURVES, f'unsupported ECDH curve "{curve}", must be one of {", ".join(_ECDH_CURVES)}'
            )


class MeshTLS(Record, frozen=True):
    """TLS between proxies."""

    incoming: MeshDirectionalTLS | None = None
    outgoing: MeshDirectionalTLS | None = None


class RequestNormalization(Record, frozen=True):
    """How request paths and headers are made regular before intentions look at them."""

    insecure_disable_path_normalization: bool = msgspec.field(default_factory=bool)
    merge_slashes: bool = msgspec.field(default_factory=bool)
    path_with_escaped_slashes_action: str = msgspec.field(default_factory=str)
    headers_with_underscores_action: str = msgspec.field(default_factory=str)

    def check(self) -> None:
        """Raise InvalidConfigEntry for actions that are unknown."""
        for field, value, known in (
            ("PathWithEscapedSlashesAction", self.path_with_escaped_slashes_action, _ESCAPED_SLASHES),
            ("HeadersWithUnderscoresAction", self.headers_with_underscores_action, _UNDERSCORES),
        ):
            require(
                value in ("", *known),
                f"no matching {field} value found for {value}, please specify one of [{', '.join(known)}]",
            )


class MeshDirectionalHTTP(Record, frozen=True):
    """HTTP between proxies, in one direction."""

    request_normalization: RequestNormalization | None = None


class MeshHTTP(Record, frozen=True):
    """HTTP between proxies."""

    sanitize_x_forwarded_client_cert: bool = msgspec.field(default_factory=bool)
    incoming: MeshDirectionalHTTP | None = None


class MeshPeering(Record, frozen=True):
    """Whether servers of peers talk to each other through mesh gateways."""

    peer_through_mesh_gateways: bool = msgspec.field(default_factory=bool)


class Mesh(ConfigEntry, frozen=True):
    """`mesh`, of which there is one: settings of the mesh as a whole. Its JSON has no name."""

    kind: str = msgspec.field(default_factory=lambda: "mesh")
    name: str = MESH
    transparent_proxy: MeshTransparentProxy = msgspec.field(default_factory=MeshTransparentProxy)
    allow_enabling_permissive_mutual_tls: bool = msgspec.field(default=False, name="AllowEnablingPermissiveMutualTLS")
    validate_clusters: bool = False
    tls: MeshTLS | None = msgspec.field(default=None, name="TLS")
    http: MeshHTTP | None = msgspec.field(default=None, name="HTTP")
    peering: MeshPeering | None = None

    def validate(self) -> None:
        """Raise InvalidConfigEntry for another name, or for TLS and HTTP settings that cannot be."""
        require(self.name == MESH, f'invalid name ("{self.name}"), only "{MESH}" is supported')
        super().validate()
        if self.tls is not None:
            for direction, tls in (("incoming", self.tls.incoming), ("outgoing", self.tls.outgoing)):
                try:
                    if tls is not None:
                        tls.check()
                except InvalidConfigEntry as error:
                    raise InvalidConfigEntry(f"error in {direction} TLS configuration: {error}") from None
        incoming = self.http.incoming if self.http is not None else None
        if incoming is not None and incoming.request_normalization is not None:
            try:
                incoming.request_normalization.check()
            except InvalidConfigEntry as error:
                text = f"error in HTTP incoming request normalization configuration: {error}"
                raise InvalidConfigEntry(text) from None


class ServiceConsumer(Record, frozen=True):
    """Who a service is exported to."""

    partition: str = ""
    peer: str = ""
    sameness_group: str = ""


class ExportedService(Record, frozen=True):
    """A service (or `*`, all of them) and its consumers."""

    name: str = msgspec.field(default_factory=str)
    namespace: str = ""
    consumers: tuple[ServiceConsumer, ...] = ()


class ExportedServices(ConfigEntry, frozen=True):
    """`exported-services`, of which there is one, named `default`: services that peers may discover."""

    kind: str = msgspec.field(default_factory=lambda: "exported-services")
    services: tuple[ExportedService, ...] = ()

    def validate(self) -> None:
        """Raise InvalidConfigEntry naming the service or consumer that cannot be."""
        require(self.name == "default", 'exported-services Name must be "default"')
        super().validate()
        for at, service in enumerate(self.services):
            where = f"Services[{at}]"
            require(service.name != "", f"{where}: service name cannot be empty")
            text = f"{where}: service name must be wildcard if namespace is wildcard"
            require(service.namespace != WILDCARD or service.name == WILDCARD, text)
            require(len(service.consumers) > 0, f"{where}: must have at least one consumer")
            for number, consumer in enumerate(service.consumers):
                _check_consumer(consumer, f"{where}.Consumers[{number}]")


def _check_consumer(consumer: ServiceConsumer, where: str) -> None:
    given = [bool(one) for one in (consumer.partition, consumer.peer, consumer.sameness_group)].count(True)
    require(given <= 1, f"{where}: must define at most one of Peer, Partition, or SamenessGroup")
    require(given == 1, f"{where}: must define at least one of Peer, Partition, or SamenessGroup")
    text = f"{where}: exporting to all partitions (wildcard) is not supported"
    require(consumer.partition != WILDCARD, text)
    require(consumer.peer != WILDCARD, f"{where}: exporting to all peers (wildcard) is not supported")
    text = f"{where}: partitions are an enterprise-only feature"
    require(consumer.partition in ("", "default"), text)


class SamenessGroupMember(Record, frozen=True):
    """A partition or a peer that has the same services."""

    partition: str = ""
    peer: str = ""


class SamenessGroup(ConfigEntry, frozen=True):
    """`sameness-group`: places whose services of one name are the same service."""

    kind: str = msgspec.field(default_factory=lambda: "sameness-group")
    default_for_failover: bool = False
    include_local: bool = False
    members: tuple[SamenessGroupMember, ...] | None = msgspec.field(default_factory=lambda: None)

    def validate(self) -> None:
        """Raise InvalidConfigEntry for a member that is neither a partition nor a peer, or is given twice."""
        self.require_name()
        super().validate()
        seen = set()
        for at, member in enumerate(self.members or ()):
            given = bool(member.partition) + bool(member.peer)
            require(given == 1, f"Members[{at}]: must define exactly one of Partition or Peer")
            key = (member.partition, member.peer)
            require(key not in seen, f"Members[{at}]: the same member is defined more than once")
            seen.add(key)


class Rates(Record, frozen=True):
    """Requests a second."""

    read_rate: float = msgspec.field(default_factory=float)
    write_rate: float = msgspec.field(default_factory=float)


class ControlPlaneRequestLimit(ConfigEntry, frozen=True):
    """`control-plane-request-limit`: how many requests servers take from one address, in all and by family."""

    kind: str = msgspec.field(default_factory=lambda: "control-plane-request-limit")
    mode: str = msgspec.field(default_factory=str)
    read_rate: float = msgspec.field(default_factory=float)
    write_rate: float = msgspec.field(default_factory=float)
    acl: Rates | None = msgspec.field(default=None, name="ACL")
    catalog: Rates | None = None
    config_entry: Rates | None = None
    connect_ca: Rates | None = msgspec.field(default=None, name="ConnectCA")
    coordinate: Rates | None = None
    discovery_chain: Rates | None = None
    server_discovery: Rates | None = None
    health: Rates | None = None
    intention: Rates | None = None
    kv: Rates | None = msgspec.field(default=None, name="KV")
    tenancy: Rates | None = None
    prepared_query: Rates | None = None
    session: Rates | None = None
    txn: Rates | None = None
    auto_config: Rates | None = None
    federation_state: Rates | None = None
    internal: Rates | None = None
    peer_stream: Rates | None = None
    peering: Rates | None = None
    data_plane: Rates | None = None
    dns: Rates | None = msgspec.field(default=None, name="DNS")
    subscribe: Rates | None = None
    resource: Rates | None = None

    def validate(self) -> None:
        """Raise InvalidConfigEntry for an unknown mode or a negative rate."""
        self.require_name()
        super().validate()
        text = f'invalid mode "{self.mode}", must be one of "permissive", "enforcing" or "disabled"'
        require(self.mode in ("", *_MODES), text)
        for field in self.__struct_fields__:
            value = getattr(self, field)
            rates = value if isinstance(value, Rates) else None
            if field in ("read_rate", "write_rate"):
                require(value >= 0, f"{field} must not be negative")
            elif rates is not None:
                require(min(rates.read_rate, rates.write_rate) >= 0, f"rates of {field} must not be negative")
