"""SPIFFE ids are written and read as certificates carry them."""

import pytest

from lictor.model.spiffe import (
    AgentId,
    BadSpiffeId,
    GatewayId,
    ServerId,
    ServiceId,
    SigningId,
    SpiffeId,
    parse_spiffe_id,
    trust_domain,
)

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"


@pytest.mark.parametrize(
    ("identity", "uri"),
    [
        (ServiceId(DOMAIN, "dc1", "web"), f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web"),
        (ServiceId(DOMAIN, "dc1", "a/b"), f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/a%2Fb"),
        (ServiceId(DOMAIN, "dc1", "web", "team", "p"), f"spiffe://{DOMAIN}/ap/p/ns/team/dc/dc1/svc/web"),
        (AgentId(DOMAIN, "dc1", "n1"), f"spiffe://{DOMAIN}/agent/client/dc/dc1/id/n1"),
        (ServerId(DOMAIN, "dc1"), f"spiffe://{DOMAIN}/agent/server/dc/dc1"),
        (GatewayId(DOMAIN, "dc1"), f"spiffe://{DOMAIN}/gateway/mesh/dc/dc1"),
        (SigningId(DOMAIN), f"spiffe://{DOMAIN}"),
    ],
)
def test_an_id_is_the_uri_and_back(identity: SpiffeId, uri: str) -> None:
    assert identity.uri == uri
    assert parse_spiffe_id(uri) == identity


def test_the_trust_domain_is_the_clusters_and_in_lower_case() -> None:
    assert trust_domain("ABCD") == "abcd.consul"
    assert parse_spiffe_id("spiffe://ABCD.consul/ns/default/dc/dc1/svc/Web") == ServiceId("abcd.consul", "dc1", "Web")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://x/ns/default/dc/dc1/svc/web",
        "spiffe://",
        "spiffe:///ns/default/dc/dc1/svc/web",
        "spiffe://x:80/ns/default/dc/dc1/svc/web",
        "spiffe://me@x/ns/default/dc/dc1/svc/web",
        "spiffe://x/ns/default/dc/dc1/svc/",
        "spiffe://x/ns//dc/dc1/svc/web",
        "spiffe://x/ns/default/dc/dc1/svc/web/more",
        "spiffe://x/ns/default/dc/dc1/svc/web?a",
        "spiffe://x/ns/default/dc/dc1/svc/web#a",
        "spiffe://x/agent/server/dc/",
        "spiffe://x/other",
        "spiffe://x/" + "a" * 3000,
    ],
)
def test_what_is_no_id_is_refused(uri: str) -> None:
    with pytest.raises(BadSpiffeId):
        parse_spiffe_id(uri)
