"""What is read for a proxy: what it is told follows from that, and from nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lictor.connect_proxy.envoy.assembling import assemble
from lictor.connect_proxy.envoy.names import service_uri
from lictor.connect_proxy.envoy.place import Place
from lictor.connect_proxy.envoy.snapshot import Endpoint, ProxySnapshot
from lictor.model.check import Check
from lictor.model.command import AuthorityWrite, ConfigWrite, QuerySet, Register
from lictor.model.config_entry import decode_entry, entry_json
from lictor.model.connect_ca import CAConfiguration, CARoot
from lictor.model.errors import LictorError
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery, ServiceQuery
from lictor.model.service import CONNECT_PROXY, ConnectProxyConfig, NodeService, ServiceAddress, Upstream, Weights
from lictor.store.commands import apply
from lictor.store.store import Answer, Store
from tests.connect_proxy.envoy.snapshots import DOMAIN

CLUSTER = DOMAIN.removesuffix(".consul")
ROOT = CARoot("id", 1, "key", CLUSTER, 0.0, 1.0, "the root", True, "ec", 256, 1.0)
WEB = NodeService(
    kind=CONNECT_PROXY,
    id="web-proxy",
    service="web-proxy",
    port=21000,
    proxy=ConnectProxyConfig(
        destination_service_name="web", upstreams=(Upstream(destination_name="db", local_bind_port=9191),)
    ),
)


@pytest.fixture
def store() -> Store:
    """An authority, and three proxies of `db`: one passing, one warning, one critical."""
    made = Store()
    apply(made, AuthorityWrite(0, CAConfiguration(CLUSTER, "consul", {}, {}), (ROOT,)), 0)
    for number, status in enumerate(("passing", "warning", "critical"), 1):
        instance = NodeService(
            kind=CONNECT_PROXY,
            id="db-proxy",
            service="db-proxy",
            port=21000 + number,
            address="10.9.9.9" if number == 2 else "",
            weights=Weights(10, 3),
            tagged_addresses={"virtual": ServiceAddress("10.96.0.7", 0)} if number == 3 else None,
            proxy=ConnectProxyConfig(destination_service_name="db"),
        )
        check = Check(check_id="c", status=status, service_id="db-proxy")
        apply(made, Register(Node(node=f"n{number}", address=f"10.0.0.{number}"), instance, (check,)), 0)
    return made


def read(
    store: Store, service: NodeService | None = WEB, *, default_allow: bool = True
) -> Answer[ProxySnapshot | None]:
    """The read for a proxy."""
    return store.read(lambda view: assemble(view, "web-proxy", lambda _: service, Place("dc1", default_allow)))


def found(store: Store, service: NodeService = WEB) -> ProxySnapshot:
    """What a proxy needs."""
    snapshot = read(store, service).value
    assert snapshot is not None
    return snapshot


def configure(store: Store, kind: str, name: str, **fields: Any) -> None:
    """Write a config entry."""
    entry = decode_entry({"Kind": kind, "Name": name, **fields})
    apply(store, ConfigWrite("upsert", kind, name, entry_json(entry)), 0)


def with_proxy(**fields: Any) -> NodeService:
    """The proxy with another registration."""
    return msgspec.structs.replace(WEB, proxy=msgspec.structs.replace(WEB.proxy, **fields))


def test_instances_have_their_address_health_and_weight(store: Store) -> None:
    (upstream,) = found(store).upstreams
    assert upstream.target.endpoints == (
        Endpoint("10.0.0.1", 21001, weight=10),
        Endpoint("10.9.9.9", 21002, weight=3),
        Endpoint("10.0.0.3", 21003, weight=3, healthy=False),
    )
    assert upstream.target.identities == (service_uri(DOMAIN, "dc1", "db"),)


@pytest.mark.parametrize("service", [None, NodeService(id="web", service="web")])
def test_what_is_no_proxy_needs_nothing(store: Store, service: NodeService | None) -> None:
    assert read(store, service).value is None


def test_without_an_authority_there_are_no_roots_yet() -> None:
    snapshot = read(Store()).value
    assert snapshot is not None
    assert snapshot.roots == ()


def test_another_services_change_is_none_of_the_proxys(store: Store) -> None:
    before = read(store)
    configure(store, "service-defaults", "other", Protocol="http")
    configure(store, "service-intentions", "other", Sources=[{"Name": "web", "Action": "deny"}])
    apply(store, Register(Node(node="n1", address="10.0.0.1"), NodeService(id="o", service="other")), 0)
    after = read(store)
    assert after.value == before.value
    assert set(before.seen) == set(after.seen)
    assert not {("service", "other"), ("connect", "other"), ("config", "service-intentions")} & set(after.seen)


def test_protocols_come_from_the_services_defaults(store: Store) -> None:
    assert (found(store).protocol, found(store).upstreams[0].protocol) == ("tcp", "tcp")
    configure(store, "proxy-defaults", "global", Config={"protocol": "http"})
    assert (found(store).protocol, found(store).upstreams[0].protocol) == ("http", "http")
    configure(store, "service-defaults", "db", Protocol="grpc")
    configure(store, "service-defaults", "web", Protocol="http2")
    assert (found(store).protocol, found(store).upstreams[0].protocol) == ("http2", "grpc")
    configure(store, "service-defaults", "db", Protocol="mysql")
    assert found(store).upstreams[0].protocol == "tcp", "what is not known is carried as it is"


def test_intentions_come_in_the_order_in_which_they_are_considered(store: Store) -> None:
    configure(store, "service-intentions", "*", Sources=[{"Name": "api", "Action": "deny"}])
    sources = [{"Name": "*", "Action": "deny"}, {"Name": "api", "Action": "allow"}]
    sources += [{"Name": "far", "Peer": "p", "Action": "allow"}, {"Name": "x", "SamenessGroup": "g", "Action": "allow"}]
    configure(store, "service-intentions", "web", Sources=sources)
    assert [(rule.source, rule.action) for rule in found(store).rules] == [
        ("api", "allow"),
        ("*", "deny"),
        ("api", "deny"),
    ]
    snapshot = read(store, default_allow=False).value
    assert snapshot is not None
    assert not snapshot.default_allow


def test_issuers_of_tokens_are_those_that_intentions_name(store: Store) -> None:
    for name in ("used", "unused"):
        keys = {"Remote": {"URI": "https://keys.example"}}
        configure(store, "jwt-provider", name, Issuer=f"https://{name}.example", JSONWebKeySet=keys)
    source = {"Name": "api", "Action": "allow"}
    configure(store, "service-intentions", "web", Sources=[source], JWT={"Providers": [{"Name": "used"}]})
    assert [provider.name for provider in found(store).jwt_providers] == ["used"]


def test_a_prepared_query_leads_to_the_service_that_it_is_about(store: Store) -> None:
    upstream = Upstream(destination_type="prepared_query", destination_name="nearest", local_bind_port=1)
    service = with_proxy(upstreams=(upstream,))
    assert found(store, service).upstreams == (), "there is no such query yet"
    query = PreparedQuery(
        id="00000000-0000-0000-0000-000000000001", name="nearest", service=ServiceQuery("db", only_passing=True)
    )
    apply(store, QuerySet(query), 0)
    (needs,) = found(store, service).upstreams
    assert needs.target.identities == (service_uri(DOMAIN, "dc1", "db"),)
    assert [one.address for one in needs.target.endpoints] == ["10.0.0.1"]
    assert needs.name == "prepared_query:nearest"


def test_a_name_in_another_case_leads_to_the_service_that_has_it(store: Store) -> None:
    service = with_proxy(upstreams=(Upstream(destination_name="DB", local_bind_port=1),))
    (needs,) = found(store, service).upstreams
    assert needs.target.identities == (service_uri(DOMAIN, "dc1", "db"),), "as its certificate says it"
    assert len(needs.target.endpoints) == 3


def test_an_upstream_of_another_datacenter_has_no_instances_here(store: Store) -> None:
    service = with_proxy(upstreams=(Upstream(destination_name="db", datacenter="dc2", local_bind_port=1),))
    (needs,) = found(store, service).upstreams
    assert (needs.target.datacenter, needs.target.endpoints) == ("dc2", ())


TRANSPARENT = with_proxy(mode="transparent", upstreams=())


def reached(store: Store, *, default_allow: bool = True) -> list[str]:
    """The services that a transparent proxy reaches without being told."""
    snapshot = read(store, TRANSPARENT, default_allow=default_allow).value
    assert snapshot is not None
    return [needs.target.service for needs in snapshot.upstreams]


def test_a_transparent_proxy_reaches_what_intentions_let_it(store: Store) -> None:
    (needs,) = found(store, TRANSPARENT).upstreams
    (given,) = store.virtual_ips
    assert (needs.target.service, needs.has_listener, len(needs.target.endpoints)) == ("db", False, 3)
    assert needs.addresses == ("10.96.0.7", given.address)
    assert reached(store, default_allow=False) == []
    configure(store, "service-resolver", "named")
    assert reached(store) == ["db", "named"]
    configure(store, "service-intentions", "*", Sources=[{"Name": "*", "Action": "deny"}])
    assert reached(store) == []
    configure(store, "service-intentions", "DB", Sources=[{"Name": "web", "Action": "allow"}])
    configure(store, "service-intentions", "other", Sources=[{"Name": "other", "Action": "allow"}])
    assert reached(store) == ["db"], "the destination's own rule goes before that about all"
    permissions = [{"Action": "allow", "HTTP": {"PathExact": "/"}}]
    configure(store, "proxy-defaults", "global", Config={"protocol": "http"})
    configure(store, "service-intentions", "named", Sources=[{"Name": "web", "Permissions": permissions}])
    assert reached(store, default_allow=False) == ["db", "named"]
    configure(store, "service-intentions", "db", Sources=[{"Name": "web", "Action": "deny"}])
    configure(store, "service-intentions", "*", Sources=[{"Name": "*", "Action": "allow"}])
    assert reached(store, default_allow=False) == ["named", "other"]


@pytest.mark.parametrize(
    ("tagged", "expected"),
    [
        ("web's", ()),
        ("255.0.0.1", ()),
        ("FD00:0::1", ("fd00::1",)),
        ("fe80::1%eth0", ()),
        ("10.96.0.01", ()),
        ("elsewhere", ()),
    ],
)
def test_no_registration_takes_anothers_address_or_spoils_the_listener(
    store: Store, tagged: str, expected: tuple[str, ...]
) -> None:
    configure(store, "service-defaults", "web", Protocol="http")
    address = {one.service: one.address for one in store.virtual_ips}
    rogue = NodeService(
        kind=CONNECT_PROXY,
        id="rogue",
        service="rogue",
        address="fe80::2%eth0",
        tagged_addresses={"virtual": ServiceAddress(address["web"] if tagged == "web's" else tagged, 0)},
        proxy=ConnectProxyConfig(destination_service_name="a-rogue"),
    )
    apply(store, Register(Node(node="n4", address="10.0.0.4"), rogue), 0)
    configure(store, "service-defaults", "a-rogue", TransparentProxy={"DialedDirectly": True})
    (own,) = [one.address for one in store.virtual_ips if one.service == "a-rogue"]
    (needs,) = [one for one in found(store, TRANSPARENT).upstreams if one.target.service == "a-rogue"]
    assert needs.addresses == (own, *expected)
    assert needs.direct == ()


def test_a_proxy_that_is_not_transparent_does_not_look_at_virtual_addresses(store: Store) -> None:
    answer = read(store)
    assert answer.value is not None
    assert [needs.addresses for needs in answer.value.upstreams] == [()]
    assert not [topic for topic in answer.seen if topic[0].startswith("virtual-ip")]


def test_instances_are_dialed_directly_where_their_defaults_say_so(store: Store) -> None:
    assert [needs.direct for needs in found(store, TRANSPARENT).upstreams] == [()]
    configure(store, "service-defaults", "db", TransparentProxy={"DialedDirectly": True})
    (needs,) = found(store, TRANSPARENT).upstreams
    assert needs.direct == ("10.0.0.1", "10.0.0.3", "10.9.9.9")
    assert found(store).upstreams[0].direct == ()


def test_service_without_the_meshs_tls_has_to_be_allowed_first(store: Store) -> None:
    with pytest.raises(LictorError, match="AllowEnablingPermissiveMutualTLS=false"):
        configure(store, "service-defaults", "web", MutualTLSMode="permissive")
    assert not found(store).permissive
    configure(store, "mesh", "mesh", AllowEnablingPermissiveMutualTLS=True)
    configure(store, "proxy-defaults", "global", MutualTLSMode="permissive")
    assert found(store).permissive
    configure(store, "service-defaults", "web", MutualTLSMode="strict")
    assert not found(store).permissive
    configure(store, "service-defaults", "web", MutualTLSMode="permissive")
    configure(store, "mesh", "mesh", AllowEnablingPermissiveMutualTLS=False)
    configure(store, "service-defaults", "web", MutualTLSMode="permissive", Protocol="http")
    assert found(store).permissive, "what is permissive stays so"
    configure(store, "service-defaults", "web", MutualTLSMode="strict")
    with pytest.raises(LictorError, match="AllowEnablingPermissiveMutualTLS=false"):
        configure(store, "service-defaults", "web", MutualTLSMode="permissive")


def test_limits_of_requests_are_those_of_the_services_own_defaults(store: Store) -> None:
    assert found(store).limits is None
    configure(store, "service-defaults", "web", RateLimits={"InstanceLevel": {"RequestsPerSecond": 7}})
    limits = found(store).limits
    assert limits is not None
    assert limits.requests_per_second == 7
