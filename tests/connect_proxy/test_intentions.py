"""Who may come in: the intentions, when a connection is made and when they change."""

from __future__ import annotations

import pytest

from lictor.connect_proxy.authorizing import Authorizer
from lictor.connect_proxy.certificates import Peer
from lictor.model.config_entry.intentions import Permission
from lictor.model.intention import Intention
from lictor.model.spiffe import ServiceId
from tests.connect_proxy.authority import DOMAIN, service_uri
from tests.connect_proxy.loops import on_uvloop
from tests.connect_proxy.mesh import Mesh, intention, is_refused, say, target
from tests.patience import soon


def peer(service: str, domain: str = DOMAIN) -> Peer:
    """A peer that is a service."""
    return Peer(service_uri(service, domain), ServiceId(domain, "dc1", service), 1e12)


def test_nobody_comes_in_before_the_intentions_are_known() -> None:
    authorizer = Authorizer()
    authorizer.trust(DOMAIN)
    assert not authorizer.ready
    assert not authorizer.rule(peer("client")).allowed


def test_the_default_holds_where_no_intention_matches() -> None:
    for allow in (True, False):
        authorizer = Authorizer()
        authorizer.trust(DOMAIN)
        authorizer.update([intention("other", "deny")], allow)
        assert authorizer.rule(peer("client")).allowed is allow


def test_a_decision_changes_with_the_intentions() -> None:
    authorizer = Authorizer()
    authorizer.trust(DOMAIN)
    assert authorizer.update([intention("client", "allow")], False)
    assert authorizer.rule(peer("client")).allowed
    assert not authorizer.update([intention("client", "allow")], False), "the same is no news"
    assert authorizer.update([intention("client", "deny")], False)
    assert not authorizer.rule(peer("client")).allowed


def test_another_trust_domain_is_never_allowed() -> None:
    authorizer = Authorizer()
    authorizer.trust(DOMAIN)
    authorizer.update([intention("*", "allow")], True)
    ruling = authorizer.rule(peer("client", "99999999-2222-3333-4444-555555555555.consul"))
    assert not ruling.allowed
    assert "external trust domain" in ruling.reason


@pytest.mark.parametrize(("namespace", "partition"), [("other", ""), ("*", ""), ("default", "p")])
def test_a_namespace_or_partition_of_elsewhere_does_not_get_round_what_holds_for_all(
    namespace: str, partition: str
) -> None:
    authorizer = Authorizer()
    authorizer.trust(DOMAIN)
    authorizer.update([intention("*", "deny")], True)
    service = ServiceId(DOMAIN, "dc1", "client", namespace, partition)
    ruling = authorizer.rule(Peer(service.uri, service, 1e12))
    assert not ruling.allowed
    assert "namespace or partition" in ruling.reason


def test_an_intention_about_requests_is_refused_with_its_reason() -> None:
    authorizer = Authorizer()
    authorizer.trust(DOMAIN)
    rule = Intention(
        source_name="client", destination_name="web", permissions=(Permission(action="allow"),), precedence=9
    )
    authorizer.update([rule], True)
    ruling = authorizer.rule(peer("client"))
    assert not ruling.allowed
    assert "use Envoy" in ruling.reason


@on_uvloop
async def test_who_is_forbidden_reaches_nothing() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(), [intention("client", "deny")])
        assert await is_refused(await mesh.connect(await mesh.outbound(target(inbound))))
        assert mesh.connections == 0, "the service must not be connected to"
        assert inbound.ends["intention"] == 1


@on_uvloop
async def test_a_changed_intention_cuts_whom_it_forbids_and_nobody_else() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        good = await mesh.connect(await mesh.outbound(target(inbound), service="good"))
        bad = await mesh.connect(await mesh.outbound(target(inbound), service="bad"))
        assert await say(good, b"hello") == b"hello"
        assert await say(bad, b"hello") == b"hello"
        assert inbound.by_peer == {service_uri("good"): 1, service_uri("bad"): 1}
        cut = inbound.authorize([intention("bad", "deny"), intention("*", "allow", 8)], False)
        assert cut == 1
        with pytest.raises((ConnectionResetError, EOFError)):
            if await bad[0].read(1) == b"":
                raise EOFError
        assert await say(good, b"still here") == b"still here"
        await soon(lambda: inbound.by_peer == {service_uri("good"): 1}, "the other is gone")


@on_uvloop
async def test_a_resumed_session_is_judged_anew() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service(), reuse=False)
        outbound = await mesh.outbound(target(inbound))
        for _ in range(2):
            streams = await mesh.connect(outbound)
            assert await say(streams, b"hello") == b"hello"
            streams[1].close()
            await soon(lambda: not outbound.passages and not inbound.passages, "the connection is closed")
        assert (inbound.resumed, outbound.resumed) == (1, 1)
        inbound.authorize([intention("client", "deny")], False)
        assert await is_refused(await mesh.connect(outbound))
