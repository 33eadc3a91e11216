"""The names of Envoy's resources, which people meet in statistics, logs and `/config_dump`. Where Consul's Envoys have
such a resource, it has Consul's name, so that dashboards work with both.
"""

import ipaddress
import re
from urllib.parse import quote

from lictor.connect_proxy.envoy.snapshot import ProxySnapshot, Target, UpstreamNeeds
from lictor.model.spiffe import NAMESPACE, ServiceId

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

ORDER = (CLUSTER, ENDPOINTS, SECRET, LISTENER, ROUTES)
"""The types of resources, in the order in which they are told: what is referred to comes before what refers to it."""

LEAF_SECRET = "leaf"
ROOTS_SECRET = "roots"
PUBLIC = "public_listener"
OUTBOUND = "outbound_listener"
LOCAL_APP = "local_app"
ORIGINAL_DESTINATION = "original-destination"
PASSTHROUGH = "passthrough~"


def short(type_url: str) -> str:
    """A resource's type as a word: `Cluster`."""
    return type_url.rpartition(".")[2]


def target_name(target: Target, trust_domain: str) -> str:
    """The cluster of a target, which is also what its TLS server name is."""
    return f"{target.service}.default.{target.datacenter}.internal.{trust_domain}"


def cluster_of(upstream: UpstreamNeeds, snapshot: ProxySnapshot) -> str:
    """The cluster that an upstream's connections go to."""
    return target_name(upstream.target, snapshot.trust_domain)


def listener_name(prefix: str, address: str, port: int) -> str:
    """A listener at an address."""
    return f"{prefix}:{join(address, port)}"


def join(address: str, port: int) -> str:
    """Address and port as one writes them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_ip(address: str) -> bool:
    """Whether something is an IP address and no host name."""
    return bool(plain_ip(address))


def plain_ip(address: str) -> str:
    """An IP address as it is usually written; empty for anything else. One that names a network interface is none:
    elsewhere there may be no such interface, and Envoy then refuses the whole resource.
    """
    try:
        return "" if "%" in address else str(ipaddress.ip_address(address))
    except ValueError:
        return ""


def service_uri(trust_domain: str, datacenter: str, service: str) -> str:
    """What a service's certificate says that it is."""
    return ServiceId(trust_domain, datacenter, service).uri


def source_pattern(trust_domain: str, service: str) -> str:
    """A pattern of the ids of a service, in whatever datacenter; of all services for `*`."""
    name = "[^/]+" if service == "*" else re.escape(quote(service, safe=""))
    return f"^spiffe://{re.escape(trust_domain)}/ns/{NAMESPACE}/dc/[^/]+/svc/{name}$"
