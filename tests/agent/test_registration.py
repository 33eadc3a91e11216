"""From definitions to registrations: ids, names, addresses, sidecars."""

from typing import Any

import pytest

from lictor.agent.registration import ServiceRegistration, service_registrations
from lictor.model.errors import InvalidRequest
from lictor.model.service import ServiceAddress
from lictor.model.service_definition import decode_service

PORTS = range(21000, 21003)


def planned(taken: tuple[int, ...] = (), **definition: Any) -> list[ServiceRegistration]:
    return service_registrations(decode_service(definition), "n1", PORTS, taken)


def test_the_name_is_the_id_where_none_is_given() -> None:
    (own,) = planned(Name="web")
    assert (own.service.id, own.service.service) == ("web", "web")
    (own,) = planned(Name="web", ID="web-1")
    assert (own.service.id, own.service.service) == ("web-1", "web")


def test_one_check_has_the_services_id_several_are_numbered() -> None:
    (own,) = planned(Name="web", Check={"TTL": "1s"})
    assert [c.check.check_id for c in own.checks] == ["service:web"]
    (own,) = planned(Name="web", Check={"TTL": "1s"}, Checks=[{"TTL": "2s"}, {"CheckID": "mine", "TTL": "3s"}])
    assert [c.check.check_id for c in own.checks] == ["service:web:1", "service:web:2", "mine"]


def test_a_check_belongs_to_its_service() -> None:
    (own,) = planned(Name="web", ID="w1", Tags=["a"], Token="t", Check={"TTL": "1s", "Notes": "n", "Status": "passing"})
    (check,) = own.checks
    assert (check.check.service_id, check.check.service_name, check.check.service_tags) == ("w1", "web", ("a",))
    assert (check.check.name, check.check.notes, check.check.status) == ("Service 'web' check", "n", "passing")
    assert (check.token, check.definition.service_id) == ("t", "w1")


def test_a_checks_own_token_goes_before_the_services() -> None:
    (own,) = planned(Name="web", Token="t", Check={"TTL": "1s", "Token": "u"})
    assert own.checks[0].token == "u"


@pytest.mark.parametrize(
    ("address", "given", "expected"),
    [
        ("", {}, None),
        ("host.example", {}, None),
        ("10.0.0.1", {}, {"lan_ipv4": ("10.0.0.1", 5), "wan_ipv4": ("10.0.0.1", 5)}),
        ("fe80::1", {}, {"lan_ipv6": ("fe80::1", 5), "wan_ipv6": ("fe80::1", 5)}),
        (
            "10.0.0.1",
            {"wan_ipv4": {"Address": "1.2.3.4", "Port": 9}},
            {"lan_ipv4": ("10.0.0.1", 5), "wan_ipv4": ("1.2.3.4", 9)},
        ),
        ("", {"lan": {"Address": "1.2.3.4", "Port": 9}}, {"lan": ("1.2.3.4", 9)}),
    ],
)
def test_an_ip_address_is_tagged_by_its_family(
    address: str, given: dict[str, Any], expected: dict[str, tuple[str, int]] | None
) -> None:
    (own,) = planned(Name="web", Port=5, Address=address, TaggedAddresses=given)
    wanted = None if expected is None else {name: ServiceAddress(*pair) for name, pair in expected.items()}
    assert own.service.tagged_addresses == wanted


def test_a_sidecar_stands_for_its_service() -> None:
    own, sidecar = planned(
        Name="web", ID="web-1", Port=80, Tags=["a"], Meta={"k": "v"}, Token="t", Connect={"SidecarService": {}}
    )
    service = sidecar.service
    assert (service.id, service.service, service.kind) == ("web-1-sidecar-proxy", "web-sidecar-proxy", "connect-proxy")
    assert (service.port, service.tags, service.meta) == (21000, ("a",), {"k": "v"})
    proxy = service.proxy
    assert (proxy.destination_service_name, proxy.destination_service_id) == ("web", "web-1")
    assert (proxy.local_service_address, proxy.local_service_port) == ("127.0.0.1", 80)
    assert (sidecar.token, sidecar.sidecar_of, own.sidecar_of) == ("t", "web-1", "")
    listening, aliasing = sidecar.checks
    assert (listening.check.name, listening.definition.tcp) == ("Connect Sidecar Listening", "127.0.0.1:21000")
    assert (aliasing.check.name, aliasing.definition.alias_service) == ("Connect Sidecar Aliasing web-1", "web-1")


def test_a_sidecar_keeps_what_it_is_given() -> None:
    given = {
        "Port": 7,
        "Tags": ["b"],
        "Meta": {"x": "y"},
        "Address": "::1",
        "Proxy": {"LocalServicePort": 8, "LocalServiceAddress": "10.0.0.1"},
        "Checks": [{"TTL": "1s", "Name": "own"}],
    }
    _, sidecar = planned(Name="web", Tags=["a"], Meta={"k": "v"}, Connect={"SidecarService": given})
    service = sidecar.service
    assert (service.port, service.tags, service.meta, service.address) == (7, ("b",), {"x": "y"}, "::1")
    assert (service.proxy.local_service_address, service.proxy.local_service_port) == ("10.0.0.1", 8)
    assert [c.check.name for c in sidecar.checks] == ["own"]


def test_a_sidecar_gets_the_first_free_port() -> None:
    _, sidecar = planned((21000, 21001), Name="web", Connect={"SidecarService": {}})
    assert sidecar.service.port == 21002
    with pytest.raises(InvalidRequest, match=r"none left in the configured .* range \(21000-21002\)"):
        planned(tuple(PORTS), Name="web", Connect={"SidecarService": {}})
    with pytest.raises(InvalidRequest, match="give the sidecar a port"):
        service_registrations(decode_service({"Name": "web", "Connect": {"SidecarService": {}}}), "n1", range(0), ())


def test_a_sidecar_cannot_stand_for_another_service() -> None:
    with pytest.raises(InvalidRequest, match="destination_service_name is set from the service"):
        planned(Name="web", Connect={"SidecarService": {"Proxy": {"DestinationServiceName": "db"}}})
