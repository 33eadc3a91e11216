"""SPIFFE ids: the names that certificates of the mesh carry, each a URI under the cluster's trust domain.

    spiffe://<trust domain>/ns/default/dc/<datacenter>/svc/<service>     a service
    spiffe://<trust domain>/agent/client/dc/<datacenter>/id/<node>       an agent
    spiffe://<trust domain>/agent/server/dc/<datacenter>                 a server
    spiffe://<trust domain>/gateway/mesh/dc/<datacenter>                 a mesh gateway
    spiffe://<trust domain>                                              the authority itself

Sources: the SPIFFE ID standard, section 2 (https://spiffe.io/docs/latest/spiffe-about/spiffe-concepts/), and the forms
that Consul's certificates have, so that proxies of both know each other.
"""

from urllib.parse import quote, unquote

import msgspec

SCHEME = "spiffe://"
LONGEST = 2048  # bytes that an id may have (SPIFFE ID standard, section 2.3)
NAMESPACE = "default"


class BadSpiffeId(ValueError):
    """A URI that names nothing of a mesh; the message says what is wrong with it."""


def trust_domain(cluster_id: str) -> str:
    """The trust domain of the cluster with that id, a UUID."""
    return f"{cluster_id}.consul".lower()


class SpiffeId(msgspec.Struct, frozen=True):
    """The shape all ids share. `uri` is how a certificate spells it."""

    domain: str

    @property
    def path(self) -> str:
        """What follows the trust domain, with its slash; empty for the authority."""
        raise NotImplementedError

    @property
    def uri(self) -> str:
        """The id as the URI that a certificate carries."""
        return f"{SCHEME}{self.domain}{self.path}"


class SigningId(SpiffeId, frozen=True):
    """The authority of a trust domain."""

    @property
    def path(self) -> str:
        return ""


class ServiceId(SpiffeId, frozen=True):
    """A service of a datacenter. `namespace` is read where others have written one, and is `default` here."""

    datacenter: str
    service: str
    namespace: str = NAMESPACE
    partition: str = ""

    @property
    def path(self) -> str:
        partition = f"/ap/{quote(self.partition, safe='')}" if self.partition else ""
        where = f"/ns/{quote(self.namespace, safe='')}/dc/{quote(self.datacenter, safe='')}"
        return f"{partition}{where}/svc/{quote(self.service, safe='')}"


class AgentId(SpiffeId, frozen=True):
    """An agent, by its node's name."""

    datacenter: str
    node: str

    @property
    def path(self) -> str:
        return f"/agent/client/dc/{quote(self.datacenter, safe='')}/id/{quote(self.node, safe='')}"


class ServerId(SpiffeId, frozen=True):
    """A server of a datacenter: which one does not matter."""

    datacenter: str

    @property
    def path(self) -> str:
        return f"/agent/server/dc/{quote(self.datacenter, safe='')}"


class GatewayId(SpiffeId, frozen=True):
    """A mesh gateway of a datacenter."""

    datacenter: str

    @property
    def path(self) -> str:
        return f"/gateway/mesh/dc/{quote(self.datacenter, safe='')}"


def parse_spiffe_id(uri: str) -> SpiffeId:
    """Read an id as certificates carry it. Raises `BadSpiffeId`."""
    if len(uri.encode("utf-8", "replace")) > LONGEST:
        raise BadSpiffeId(f"the SPIFFE id is longer than {LONGEST} bytes")
    if not uri.lower().startswith(SCHEME):
        raise BadSpiffeId(f'"{uri}" is no SPIFFE id: it must start with {SCHEME}')
    domain, _, rest = uri[len(SCHEME) :].partition("/")
    if not domain or any(c in domain for c in "@:?#"):
        raise BadSpiffeId(f'"{uri}" is no SPIFFE id: it has no plain trust domain')
    if any(c in rest for c in "?#"):
        raise BadSpiffeId(f'"{uri}" is no SPIFFE id: it has a query or a fragment')
    domain = domain.lower()
    if not rest:
        return SigningId(domain)
    segments = [unquote(segment) for segment in rest.split("/")]
    match segments:
        case [_, "", *_] | [_, _, _, "", *_] | [*_, ""]:
            pass
        case ["ap", partition, "ns", namespace, "dc", datacenter, "svc", service] if namespace and service:
            return ServiceId(domain, datacenter, service, namespace, "" if partition == "default" else partition)
        case ["ns", namespace, "dc", datacenter, "svc", service]:
            return ServiceId(domain, datacenter, service, namespace)
        case ["agent", "client", "dc", datacenter, "id", node]:
            return AgentId(domain, datacenter, node)
        case ["agent", "server", "dc", datacenter]:
            return ServerId(domain, datacenter)
        case ["gateway", "mesh", "dc", datacenter]:
            return GatewayId(domain, datacenter)
    raise BadSpiffeId(f'"{uri}" is no SPIFFE id of a service, an agent, a server or a gateway')
