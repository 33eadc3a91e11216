"""All that one proxy needs, as an immutable record: what Envoy's configuration is a pure function of.

Two snapshots that are equal make the same configuration. The leaf's key is in it: it is never logged or shown.
"""

import msgspec

from lictor.model.config_entry.defaults import InstanceLevelRateLimits
from lictor.model.config_entry.intentions import JWTRequirement, Permission
from lictor.model.config_entry.jwt_provider import JWTProvider
from lictor.model.config_entry.mesh import Mesh
from lictor.model.service import ConnectProxyConfig, Upstream

TRANSPARENT = "transparent"


class Endpoint(msgspec.Struct, frozen=True):
    """An instance of a service: where its proxy (or the service itself) takes connections of the mesh."""

    address: str
    port: int
    weight: int = 1
    healthy: bool = True


class Target(msgspec.Struct, frozen=True):
    """A service in a datacenter, with its instances and who they may be: the names in their certificates."""

    service: str
    datacenter: str
    identities: tuple[str, ...]
    endpoints: tuple[Endpoint, ...] = ()


class UpstreamNeeds(msgspec.Struct, frozen=True):
    """One upstream of the proxy: what the registration and the config entries say of it, and where it leads.

    `addresses` are the virtual addresses that the service is reached under in transparent mode, `direct` those of
    instances that may be reached each by its own.
    """

    upstream: Upstream
    protocol: str
    target: Target
    addresses: tuple[str, ...] = ()
    direct: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What tells this upstream from the proxy's others."""
        upstream = self.upstream
        name = upstream.destination_name
        if upstream.destination_type == "prepared_query":
            name = f"prepared_query:{name}"
        return f"{name}?dc={upstream.datacenter}" if upstream.datacenter else name

    @property
    def has_listener(self) -> bool:
        """Whether the proxy's own service reaches it on an address or a socket of its own."""
        return bool(self.upstream.local_bind_port or self.upstream.local_bind_socket_path)


class Rule(msgspec.Struct, frozen=True):
    """An intention about connections to the proxy's service: an action, or permissions that look at requests."""

    source: str
    action: str = ""
    permissions: tuple[Permission, ...] = ()
    jwt: JWTRequirement | None = None


class Leaf(msgspec.Struct, frozen=True):
    """The proxy's certificate, its intermediates after it, and its key, as PEM."""

    certificate: str
    key: str


class ProxySnapshot(msgspec.Struct, frozen=True):
    """See above. `service` is what the proxy stands for; `rules` are in the order in which they are considered;
    `revoked` are the fingerprints (SHA-256 in hex) of certificates that are not to be believed. With `permissive` the
    service is also reached without the mesh's TLS; `limits` are of requests to it. Paths that are exposed for checks
    are so for the node itself and for `checked_from`. `token` is the one with which the Envoy asked.
    """

    proxy_id: str
    service: str
    address: str
    port: int
    proxy: ConnectProxyConfig
    datacenter: str
    trust_domain: str
    roots: tuple[str, ...]
    leaf: Leaf
    protocol: str = "tcp"
    default_allow: bool = True
    rules: tuple[Rule, ...] = ()
    upstreams: tuple[UpstreamNeeds, ...] = ()
    jwt_providers: tuple[JWTProvider, ...] = ()
    mesh: Mesh = msgspec.field(default_factory=Mesh)
    revoked: tuple[str, ...] = ()
    permissive: bool = False
    limits: InstanceLevelRateLimits | None = None
    checked_from: str = ""
    token: str = ""

    @property
    def is_transparent(self) -> bool:
        """Whether connections are redirected to the proxy without the service knowing."""
        return self.proxy.mode == TRANSPARENT
