"""The decision on a connection, by the peer's certificate and what the agent has said. Pure."""

from typing import Any

import msgspec
import pytest

from lictor.client.errors import PeerRefused
from lictor.client.families.connect import Rules
from lictor.client.records import ConnectLeaf, ConnectRoots
from lictor.client.trust import Trust
from lictor.model.intention import DefaultPolicy, Intention, in_order

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
OWN = f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/db"
ALLOWED = DefaultPolicy(True)
NOW = 1_800_000_000.0  # 2027-01-15
GOOD = {"notBefore": "Jan 14 08:00:00 2027 GMT", "notAfter": "Jan 17 08:00:00 2027 GMT"}
ENDED = {"notBefore": "Jan  1 08:00:00 2027 GMT", "notAfter": "Jan  4 08:00:00 2027 GMT"}
COMING = {"notBefore": "Jan 16 08:00:00 2027 GMT", "notAfter": "Jan 19 08:00:00 2027 GMT"}


def intention(source: str, action: str, precedence: int = 9, **more: Any) -> Intention:
    return Intention(source_name=source, destination_name="db", action=action, precedence=precedence, **more)


def trust(*intentions: Intention, default: DefaultPolicy | None = ALLOWED, uri: str = OWN) -> Trust:
    leaf = ConnectLeaf("07", "certificate", "key", "db", uri)
    return Trust(ConnectRoots(), leaf, Rules(tuple(in_order(intentions)), default))


def certificate(*uris: str, **times: str) -> dict[str, Any]:
    return {"subjectAltName": tuple(("URI", uri) for uri in uris), **(times or GOOD)}


def service(name: str, domain: str = DOMAIN, datacenter: str = "dc1") -> str:
    return f"spiffe://{domain}/ns/default/dc/{datacenter}/svc/{name}"


def test_a_service_of_the_mesh_is_known_by_its_id() -> None:
    peer = trust().peer(certificate(service("web")), NOW)
    assert (peer.service, peer.datacenter) == ("web", "dc1")
    assert trust().peer(certificate(service("a%20b")), NOW).service == "a b"


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (certificate(), "must have one URI"),
        ({"subject": ((("commonName", "web"),),), **GOOD}, "must have one URI"),
        (certificate(service("web"), service("db")), "must have one URI"),
        ({"subjectAltName": (("DNS", "web.service.consul"),), **GOOD}, "must have one URI"),
        ({"subjectAltName": (("URI", service("web")), ("DNS", "web")), **GOOD}, "must have one URI"),
        (certificate("https://web"), "names nobody of a mesh"),
        (certificate(f"spiffe://{DOMAIN}"), "is no service"),
        (certificate(f"spiffe://{DOMAIN}/agent/client/dc/dc1/id/n1"), "is no service"),
        (certificate(service("web", domain="99999999-2222-3333-4444-555555555555.consul")), "another trust domain"),
        (certificate(f"spiffe://{DOMAIN}/ns/other/dc/dc1/svc/web"), "a namespace or partition that is not here"),
        (certificate(f"spiffe://{DOMAIN}/ap/p/ns/default/dc/dc1/svc/web"), "a namespace or partition that is not here"),
        (certificate(service("web"), **ENDED), "not valid at this time"),
        (certificate(service("web"), **COMING), "not valid at this time"),
    ],
)
def test_what_is_no_service_of_the_mesh_is_refused(shown: dict[str, Any], words: str) -> None:
    with pytest.raises(PeerRefused, match=words):
        trust().peer(shown, NOW)


def test_a_revoked_certificate_is_refused_however_its_serial_number_is_written() -> None:
    found = msgspec.structs.replace(trust(), revoked=frozenset({"a01"}))
    shown = certificate(service("web"))
    for serial in ("0A01", "A01", "000a01"):
        for check in (found.caller, lambda shown, now: found.called(shown, "web", "", now)):
            with pytest.raises(PeerRefused, match="has been revoked"):
                check({**shown, "serialNumber": serial}, NOW)
    assert found.caller({**shown, "serialNumber": "0A02"}, NOW).service == "web"


def test_who_is_called_must_answer() -> None:
    found = trust()
    assert found.called(certificate(service("web")), "web", "", NOW).service == "web"
    assert found.called(certificate(service("web", datacenter="dc2")), "web", "dc2", NOW).datacenter == "dc2"
    for shown, datacenter in ((service("api"), ""), (service("web", datacenter="dc2"), ""), (service("web"), "dc2")):
        with pytest.raises(PeerRefused, match=f"web was called, and {shown} has answered"):
            found.called(certificate(shown), "web", datacenter, NOW)


@pytest.mark.parametrize(
    ("intentions", "default", "allowed"),
    [
        ((), DefaultPolicy(True), True),
        ((), DefaultPolicy(False), False),
        ((intention("web", "deny"),), DefaultPolicy(True), False),
        ((intention("web", "allow"),), DefaultPolicy(False), True),
        ((intention("*", "allow", 8), intention("web", "deny")), DefaultPolicy(True), False),
        ((intention("*", "deny", 8), intention("web", "allow")), DefaultPolicy(True), True),
        ((intention("api", "deny"),), DefaultPolicy(True), True),
    ],
)
def test_intentions_decide_on_callers(intentions: tuple[Intention, ...], default: DefaultPolicy, allowed: bool) -> None:
    found = trust(*intentions, default=default)
    if allowed:
        assert found.caller(certificate(service("web")), NOW).service == "web"
    else:
        with pytest.raises(PeerRefused, match="web may not connect to db: "):
            found.caller(certificate(service("web")), NOW)


def test_layer_7_permissions_refuse_since_nobody_looks_into_the_connection() -> None:
    body = {
        "SourceName": "web",
        "DestinationName": "db",
        "Permissions": [{"Action": "allow", "HTTP": {"PathExact": "/"}}],
    }
    with pytest.raises(PeerRefused, match="Matched L7 intention"):
        trust(msgspec.convert(body, Intention)).caller(certificate(service("web")), NOW)


def test_an_agent_that_does_not_say_the_default_lets_nobody_in() -> None:
    with pytest.raises(PeerRefused, match="does not say what holds"):
        trust(default=None).caller(certificate(service("web")), NOW)


@pytest.mark.parametrize("uri", ["", "spiffe://x.consul", "http://x"])
def test_an_own_certificate_that_names_no_service_is_of_no_use(uri: str) -> None:
    with pytest.raises(PeerRefused, match="the certificate that the agent gave"):
        trust(uri=uri).peer(certificate(service("web")), NOW)
