"""The mesh's authority in a secondary datacenter: the primary signs its intermediate, which outlives its absence."""

import asyncio

import pytest

from lictor.ca import certificates
from lictor.ca.configuration import shown
from lictor.model.connect_ca import CARoot
from lictor.model.errors import InvalidRequest, LictorError
from lictor.model.spiffe import ServiceId, SigningId, trust_domain
from lictor.server.connect_ca import ConnectCA
from lictor.server.connect_ca_requests import SignedLeaf
from lictor.server.connect_ca_settings import CAChange, CASettings
from lictor.server.datacenters import Origin
from lictor.server.for_secondaries import ROOTS, AskRoots, encode
from lictor.store.connect_ca import ONLY
from tests.agent.checks.virtual_time import run_virtually
from tests.ca.authorities import openssl_is_there, verifies
from tests.server.group import Group, until

SHORT = {"LeafCertTTL": "20s", "IntermediateCertTTL": "600s", "RootCertTTL": "100000h", "SkipValidate": True}
OWN = CASettings()


class Two:
    """Two datacenters, dc1 the primary one; the servers of dc2 begin with `second`."""

    def __init__(self, first: CASettings = OWN, second: CASettings = OWN) -> None:
        self.joined: list[Group] = []
        self.one = Group("a", "b", authority=first, datacenter="dc1", primary="dc1", joined=self.joined)
        self.two = Group("x", "y", "z", authority=second, datacenter="dc2", primary="dc1", joined=self.joined)
        self.one.lead("id-a")
        self.two.lead("id-x")

    def begin(self) -> None:
        for group in self.joined:
            for place in group.places.values():
                place.leadership.connect_ca.begin()

    async def made(self) -> None:
        self.begin()
        await until(lambda: active(self.two) is not None, "an authority of dc2")

    def part(self) -> None:
        """The datacenters do not reach each other."""
        for first in self.one.records.values():
            for second in self.two.records.values():
                pair = first.address, second.address
                self.one.wire.cut |= {pair, pair[::-1]}

    def meet(self) -> None:
        self.one.wire.cut.clear()

    async def close(self) -> None:
        for group in self.joined:
            await group.close()


def ca(group: Group, name: str = "") -> ConnectCA:
    return group.places[name or next(iter(group.places))].leadership.connect_ca


def roots(group: Group) -> dict[str, CARoot]:
    stores = [place.store for place in group.places.values()]
    found = {root.id: root for root in stores[0].ca_roots}
    assert all({root.id: root for root in store.ca_roots} == found for store in stores)
    return found


def active(group: Group) -> CARoot | None:
    return next((root for root in roots(group).values() if root.active), None)


def root_of(group: Group) -> CARoot:
    found = active(group)
    assert found is not None
    return found


async def leaf(group: Group, through: str = "", service: str = "web", datacenter: str = "") -> SignedLeaf:
    name = through or next(iter(group.places))
    configuration = group.places[name].store.authority.get(ONLY)
    assert configuration is not None
    identity = ServiceId(trust_domain(configuration.cluster), datacenter or group.datacenter, service)
    return await ca(group, name).sign(certificates.make_request(certificates.make_key(), identity))


def under(signed: SignedLeaf, *trusted: CARoot) -> bool:
    """Whether a leaf is believed by who knows these roots, and nothing but what the leaf brings along."""
    first, *between = certificates.split_chain(signed.certificate)
    return verifies(first, [root.root for root in trusted], between, at=signed.valid_after + 61)


pytestmark = pytest.mark.skipif(not openssl_is_there, reason="openssl is not on PATH")


def test_leaves_of_both_datacenters_are_under_the_primarys_root() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        first, second = root_of(two.one), root_of(two.two)
        assert (second.id, second.cluster, second.root) == (first.id, first.cluster, first.root)
        signed = await leaf(two.two, "z")
        assert signed.uri == f"spiffe://{trust_domain(first.cluster)}/ns/default/dc/dc2/svc/web"
        chain = certificates.split_chain(signed.certificate)
        assert chain[1:] == list(second.intermediates) and len(chain) == 2
        intermediate = certificates.read_certificate(chain[1])
        assert intermediate.is_authority and intermediate.authority_key_id == first.signing_key_id
        assert second.signing_key_id == intermediate.signing_key_id
        assert second.issuer_not_after == intermediate.not_after < second.not_after
        assert under(signed, first) and under(await leaf(two.one), second)
        assert not first.intermediates, "the primary's leaves need none"
        with pytest.raises(InvalidRequest, match="different datacenter"):
            await leaf(two.two, "y", datacenter="dc1")
        with pytest.raises(LictorError, match="signed in datacenter dc1"):
            await ca(two.two).sign_intermediate(certificates.make_request(certificates.make_key(), SigningId("x")))
        await two.close()

    run_virtually(scenario())


def test_the_intermediates_key_is_nowhere_but_in_the_servers_state() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        store = two.two.places["y"].store
        configuration = store.authority.get(ONLY)
        assert configuration is not None
        assert configuration.state["PrivateKey"].startswith("-----BEGIN EC PRIVATE KEY-----")
        assert "PRIVATE" not in repr((list(store.ca_roots), shown(configuration.config), await leaf(two.two)))
        assert "PRIVATE" not in repr(list(two.one.places["a"].store.ca_roots))
        await two.close()

    run_virtually(scenario())


def test_before_the_primary_was_reached_it_is_told_what_is_missing_and_then_it_begins() -> None:
    async def scenario() -> None:
        two = Two()
        two.part()
        two.begin()
        await asyncio.sleep(100)
        told = await ca(two.two, "y").leaders_trouble()
        assert told.startswith("datacenter dc1, the primary one, has to sign the authority of this one")
        assert active(two.two) is None and active(two.one) is not None
        with pytest.raises(LictorError, match="CA is not initialized yet: datacenter dc1, the primary one"):
            await ca(two.two, "z").sign("x")
        two.meet()
        await until(lambda: active(two.two) is not None, "an authority of dc2", 20)
        await until(lambda: not ca(two.two).trouble, "an end of the trouble", 5)
        assert under(await leaf(two.two), root_of(two.one))
        await two.close()

    run_virtually(scenario())


def test_while_the_primary_is_away_all_goes_on_under_any_leader() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        before = root_of(two.two)
        two.part()
        await asyncio.sleep(600)
        assert (await leaf(two.two)).root == before.id
        two.two.lead("id-z")
        assert under(await leaf(two.two, "x"), root_of(two.one))
        await asyncio.sleep(100)
        assert await ca(two.two, "x").leaders_trouble() == "", "nothing is due, nothing is wrong"
        assert root_of(two.two) == before
        await two.close()

    run_virtually(scenario())


def test_a_primary_that_answers_at_once_without_news_is_not_asked_all_the_time() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        asked = 0
        for place in two.one.places.values():
            calls = place.leadership.datacenters
            assert calls is not None
            told = await calls._calls[ROOTS](Origin("dc2", "id-x"), encode(AskRoots()))

            async def answer(origin: Origin, body: bytes, told: bytes = told) -> bytes:
                nonlocal asked
                asked += 1
                return told

            calls.on_call(ROOTS, answer)
        await asyncio.sleep(100)
        assert 10 < asked < 500
        await two.close()

    run_virtually(scenario())


def test_the_intermediate_is_replaced_at_half_of_its_life_and_goes_on_where_the_primary_is_away() -> None:
    async def scenario() -> None:
        two = Two(CASettings(True, "consul", SHORT), CASettings(True, "consul", SHORT))
        await two.made()
        first = root_of(two.two)
        old = await leaf(two.two)
        await asyncio.sleep(200)
        assert root_of(two.two) == first
        await until(lambda: root_of(two.two).intermediates != first.intermediates, "another intermediate", 140)
        second = root_of(two.two)
        assert second.id == first.id and second.signing_key_id != first.signing_key_id
        assert under(old, second) and under(await leaf(two.two), root_of(two.one))
        two.part()
        await asyncio.sleep(400)
        assert "the present one goes on: datacenter dc1" in await ca(two.two, "y").leaders_trouble()
        assert under(await leaf(two.two), root_of(two.one))
        await asyncio.sleep(300)
        with pytest.raises(LictorError, match="the intermediate has ended"):
            await leaf(two.two)
        two.meet()
        await until(lambda: root_of(two.two).intermediates != second.intermediates, "another intermediate", 120)
        assert under(await leaf(two.two), root_of(two.one))
        await until(lambda: not ca(two.two).trouble, "an end of the trouble", 120)
        await two.close()

    run_virtually(scenario())


def test_a_rotation_of_the_primarys_root_is_followed_and_breaks_no_trust() -> None:
    async def scenario() -> None:
        two = Two(CASettings(True, "consul", SHORT), CASettings(True, "consul", SHORT))
        await two.made()
        first = root_of(two.one)
        old = await leaf(two.two)
        await ca(two.one, "b").change(CAChange("consul", {**SHORT, "PrivateKeyBits": 384}))
        await until(lambda: root_of(two.two).id != first.id, "the other root in dc2", 5)
        second = root_of(two.two)
        assert second.id == root_of(two.one).id and set(roots(two.two)) == {first.id, second.id}
        new = await leaf(two.two)
        for signed in (new, await leaf(two.one)):
            # Whoever knows one of the two roots trusts what is signed now; whoever knows both trusts all.
            assert under(signed, first) and under(signed, second)
        assert under(old, first, second)
        await asyncio.sleep(30)
        await until(lambda: len(roots(two.two)) == 1, "an end of the former root", 120)
        assert roots(two.two)[second.id].active
        await two.close()

    run_virtually(scenario())


def test_a_rotation_while_the_datacenters_are_apart_is_followed_when_they_meet() -> None:
    async def scenario() -> None:
        two = Two(CASettings(True, "consul", SHORT), CASettings(True, "consul", SHORT))
        await two.made()
        first = root_of(two.one)
        two.part()
        await ca(two.one).change(CAChange("consul", {**SHORT, "PrivateKeyBits": 384}))
        await asyncio.sleep(30)
        await until(lambda: len(roots(two.one)) == 1, "the former root gone in dc1", 120)
        old = await leaf(two.two)
        assert old.root == first.id
        two.two.lead("id-y")
        two.meet()
        await until(lambda: root_of(two.two).id == root_of(two.one).id, "the other root in dc2", 60)
        assert set(roots(two.two)) == {first.id, root_of(two.one).id}, "leaves of dc2 are under the former one still"
        assert under(old, *roots(two.two).values())
        await asyncio.sleep(30)
        await until(lambda: len(roots(two.two)) == 1, "an end of the former root in dc2", 120)
        await two.close()

    run_virtually(scenario())


def test_until_another_intermediate_is_signed_the_new_root_is_trusted_beside_the_present_one() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        first = root_of(two.one)

        async def refuse(*_: object) -> bytes:
            raise LictorError("the primary's provider is away")

        for place in two.one.places.values():
            assert place.leadership.datacenters is not None
            place.leadership.datacenters.on_call("primary.sign-intermediate", refuse)
        await ca(two.one).change(CAChange("consul", {"PrivateKeyBits": 384}))
        await until(lambda: len(roots(two.two)) == 2, "the other root in dc2", 60)
        second = root_of(two.one)
        assert root_of(two.two).id == first.id and not roots(two.two)[second.id].active
        assert under(await leaf(two.one), root_of(two.two)) and under(await leaf(two.two), first)
        assert "the primary's provider is away" in await ca(two.two).leaders_trouble()
        await two.close()

    run_virtually(scenario())


def test_the_secondarys_configuration_is_its_own() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        first = root_of(two.two)
        await ca(two.two, "y").change(CAChange("consul", {"LeafCertTTL": "24h", "PrivateKeyBits": 384}))
        second = root_of(two.two)
        assert second.id == first.id and second.intermediates != first.intermediates
        assert certificates.read_certificate(second.intermediates[0]).key_bits == 384
        signed = await leaf(two.two)
        assert signed.valid_before - signed.valid_after < 25 * 3600
        assert under(signed, root_of(two.one))
        primary = two.one.places["a"].store.authority.get(ONLY)
        assert primary is not None and primary.config["LeafCertTTL"] == "72h"
        with pytest.raises(LictorError, match="made in datacenter dc1"):
            await ca(two.two).change(CAChange("consul", {}, new_root=True))
        await two.close()

    run_virtually(scenario())


def test_a_datacenter_with_an_authority_of_its_own_becomes_a_secondary() -> None:
    async def scenario() -> None:
        alone = Group("x", authority=OWN, datacenter="dc2")
        alone.lead("id-x")
        ca(alone).begin()
        await until(lambda: active(alone) is not None, "an authority of its own")
        own = root_of(alone)
        configuration = alone.places["x"].store.authority.get(ONLY)
        assert configuration is not None
        await alone.close()

        two = Two()
        for place in two.two.places.values():
            for root in alone.places["x"].store.ca_roots:
                place.store.ca_roots.put(root)
            place.store.authority.put(configuration)
        two.begin()
        await until(lambda: active(two.two) is not None and root_of(two.two).id != own.id, "the primary's root")
        assert set(roots(two.two)) == {root_of(two.one).id}
        assert under(await leaf(two.two), root_of(two.one))
        await two.close()

    run_virtually(scenario())


def test_a_secondary_that_becomes_a_primary_has_a_root_of_its_own_in_the_same_trust_domain() -> None:
    async def scenario() -> None:
        two = Two()
        await two.made()
        former, old = root_of(two.two), await leaf(two.two)
        configuration = two.two.places["x"].store.authority.get(ONLY)
        assert configuration is not None
        await two.close()

        alone = Group("x", authority=OWN, datacenter="dc2", primary="dc2")
        alone.places["x"].store.ca_roots.put(former)
        alone.places["x"].store.authority.put(configuration)
        alone.lead("id-x")
        ca(alone).begin()
        await until(lambda: root_of(alone).id != former.id, "a root of its own")
        new = root_of(alone)
        assert new.cluster == former.cluster and not new.intermediates
        assert under(await leaf(alone), new)
        assert under(old, *roots(alone).values()), "what was signed before stays trusted"
        await alone.close()

    run_virtually(scenario())
