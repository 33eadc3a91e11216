"""The mesh's authority on several servers: made once, signing through any of them, rotated, outliving its leaders."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lictor.ca import certificates, providers
from lictor.ca.builtin import BuiltinProvider
from lictor.ca.provider import Authority, Provider, ProviderUnavailable, Surroundings
from lictor.model.authorizer import Authorizer
from lictor.model.command import AuthorityWrite
from lictor.model.connect_ca import CAConfiguration, CARoot
from lictor.model.errors import Forbidden, InvalidRequest, LictorError, RateExceeded, Refused
from lictor.model.spiffe import AgentId, GatewayId, ServerId, ServiceId, SigningId, SpiffeId, trust_domain
from lictor.server import connect_ca_keeper
from lictor.server.connect_ca import ConnectCA
from lictor.server.connect_ca_requests import SignedLeaf
from lictor.server.connect_ca_settings import CAChange, CASettings
from lictor.store import snapshot
from lictor.store.connect_ca import ONLY
from lictor.store.snapshot import Image
from tests.agent.checks.virtual_time import run_virtually
from tests.ca.authorities import DAY, openssl_is_there, verifies
from tests.server.group import Group, Place, until

SHORT = {"LeafCertTTL": "100s", "SkipValidate": True}


def three(settings: CASettings | None = None) -> Group:
    """Three servers, led by `a`; the authority is not begun yet."""
    group = Group("a", "b", "c", authority=settings or CASettings())
    group.lead("id-a")
    return group


def ca(group: Group, name: str = "a") -> ConnectCA:
    return group.places[name].leadership.connect_ca


def begin(group: Group) -> None:
    for name in group.places:
        ca(group, name).begin()


def configured(place: Place) -> CAConfiguration:
    found: CAConfiguration | None = place.store.authority.get(ONLY)
    assert found is not None
    return found


def active(place: Place) -> CARoot | None:
    return next((root for root in place.store.ca_roots if root.active), None)


def root_of(place: Place) -> CARoot:
    found = active(place)
    assert found is not None
    return found


async def made(group: Group) -> CARoot:
    """Have the authority made; its root."""
    begin(group)
    await until(lambda: all(active(place) for place in group.places.values()), "a root")
    return root_of(group.places["a"])


def request(identity: SpiffeId) -> str:
    return certificates.make_request(certificates.make_key(), identity)


def web(group: Group) -> ServiceId:
    return ServiceId(trust_domain(configured(group.places["a"]).cluster), "dc1", "web")


async def leaf(group: Group, through: str = "a") -> SignedLeaf:
    return await ca(group, through).sign(request(web(group)))


def trusted(signed: SignedLeaf, *roots: str) -> bool:
    first, *between = certificates.split_chain(signed.certificate)
    return verifies(first, roots, between, at=signed.valid_after + 70)


def test_one_root_is_made_once_the_agent_answers_and_all_servers_have_it() -> None:
    async def scenario() -> None:
        group = three()
        await asyncio.sleep(100)
        assert not len(group.places["a"].store.authority)
        root = await made(group)
        for place in group.places.values():
            assert list(place.store.ca_roots) == [root]
            assert configured(place).cluster == root.cluster
        assert configured(group.places["b"]).config["LeafCertTTL"] == "72h"
        await group.close()

    run_virtually(scenario())


def test_what_the_agents_configuration_says_is_what_a_new_cluster_begins_with() -> None:
    async def scenario() -> None:
        cluster = "11111111-2222-3333-4444-555555555555"
        group = three(CASettings(True, "consul", {"leaf_cert_ttl": "24h", "private_key_bits": 384}, cluster))
        root = await made(group)
        assert configured(group.places["a"]).cluster == cluster
        config = configured(group.places["a"]).config
        assert (config["LeafCertTTL"], config["PrivateKeyBits"], root.key_bits) == ("24h", 384, 384)
        signed = await leaf(group)
        assert signed.valid_before - signed.valid_after == DAY + certificates.LEEWAY
        await group.close()

    run_virtually(scenario())


def test_without_a_mesh_nothing_is_made_and_nothing_signed() -> None:
    async def scenario() -> None:
        group = three(CASettings(enabled=False))
        begin(group)
        await asyncio.sleep(100)
        assert not len(group.places["a"].store.authority)
        with pytest.raises(LictorError, match="Connect must be enabled in order to use this endpoint"):
            await ca(group).sign("x")
        await group.close()

    run_virtually(scenario())


@pytest.mark.parametrize("through", ["a", "c"])
def test_a_leaf_is_signed_through_any_server(through: str) -> None:
    async def scenario() -> None:
        group = three()
        root = await made(group)
        signed = await leaf(group, through)
        assert signed.uri == web(group).uri
        assert signed.root == root.id
        found = certificates.read_certificate(signed.certificate)
        assert (found.serial_number, found.not_before, found.not_after) == (
            signed.serial_number,
            signed.valid_after,
            signed.valid_before,
        )
        assert found.authority_key_id == root.signing_key_id
        await group.close()

    run_virtually(scenario())


def test_who_asks_early_waits_for_the_authority() -> None:
    async def scenario() -> None:
        group = three()
        asyncio.get_running_loop().call_later(3, begin, group)
        with pytest.raises(InvalidRequest, match="cannot be read"):
            await ca(group, "b").sign("x")
        await group.close()

    run_virtually(scenario())


def test_who_asks_where_there_will_be_no_authority_is_told() -> None:
    async def scenario() -> None:
        group = three()
        with pytest.raises(LictorError, match="CA is not initialized yet"):
            await ca(group).sign("x")
        await group.close()

    run_virtually(scenario())


def test_only_identities_of_this_mesh_and_datacenter_are_signed() -> None:
    async def scenario() -> None:
        group = three()
        await made(group)
        own = web(group).domain
        for identity, what in (
            (ServiceId(trust_domain("22222222-2222-2222-2222-222222222222"), "dc1", "web"), "different trust domain"),
            (ServiceId(own, "dc2", "web"), "different datacenter"),
            (ServiceId(own, "dc1", "web", "other"), "namespace or partition"),
            (ServiceId(own, "dc1", "web", partition="other"), "namespace or partition"),
            (SigningId(own), "must be a service, agent or mesh gateway"),
            (ServerId(own, "dc1"), "must be a service, agent or mesh gateway"),
        ):
            with pytest.raises(InvalidRequest, match=what):
                await ca(group, "b").sign(request(identity))
        for other in (AgentId(own, "dc1", "n1"), GatewayId(own, "dc1")):
            assert (await ca(group).sign(request(other))).uri == other.uri
        await group.close()

    run_virtually(scenario())


class _Only:
    """The rights of whoever may write one thing."""

    def __init__(self, resource: str, name: str) -> None:
        self._allowed = (resource, name, "write")

    def allows(self, resource: str, name: str, access: str) -> bool:
        return (resource, name, access) == self._allowed


def test_it_takes_the_right_to_write_the_service() -> None:
    async def scenario() -> None:
        group = three()
        await made(group)
        rights: dict[str, Authorizer] = {"w": _Only("service", "web"), "n": _Only("node", "n1")}
        for place in group.places.values():
            place.leadership.connect_ca._authorizer = rights.__getitem__
        domain = web(group).domain
        assert await ca(group, "b").sign(request(web(group)), "w")
        assert await ca(group, "b").sign(request(AgentId(domain, "dc1", "n1")), "n")
        for identity, token in (
            (web(group), "n"),
            (ServiceId(domain, "dc1", "db"), "w"),
            (AgentId(domain, "dc1", "n2"), "n"),
            (GatewayId(domain, "dc1"), "w"),
        ):
            with pytest.raises(Forbidden, match="Permission denied"):
                await ca(group, "b").sign(request(identity), token)
        await group.close()

    run_virtually(scenario())


@pytest.mark.skipif(not openssl_is_there, reason="openssl is not on PATH")
def test_a_rotation_breaks_no_trust() -> None:
    async def scenario() -> None:
        group = three()
        first = await made(group)
        before = await leaf(group)
        await ca(group, "c").change(CAChange("consul", {"PrivateKeyBits": 384}))
        second = root_of(group.places["b"])
        assert second.id != first.id and second.key_bits == 384
        assert [root.id for root in group.places["b"].store.ca_roots if not root.active] == [first.id]
        after = await leaf(group, "b")
        assert after.root == second.id
        # Whoever knows only one of the two roots trusts the new leaves; whoever knows both trusts all.
        assert trusted(after, first.root) and trusted(after, second.root)
        assert trusted(before, first.root, second.root)
        assert not trusted(before, second.root)
        await ca(group).change(CAChange("consul", {"PrivateKeyType": "rsa"}))
        third = await leaf(group)
        for root in (first, second, root_of(group.places["a"])):
            assert trusted(third, root.root)
        await group.close()

    run_virtually(scenario())


def test_a_former_root_is_trusted_until_the_last_leaf_is_gone() -> None:
    async def scenario() -> None:
        group = three(CASettings(True, "consul", SHORT))
        first = await made(group)
        await ca(group).change(CAChange("consul", {**SHORT, "PrivateKeyBits": 384}))
        await asyncio.sleep(195)
        assert len(group.places["b"].store.ca_roots) == 2
        await until(lambda: len(group.places["b"].store.ca_roots) == 1, "the end of the former root", 20)
        assert root_of(group.places["b"]).id != first.id
        assert root_of(group.places["b"]).crosses == ()
        assert len(certificates.split_chain((await leaf(group)).certificate)) == 1
        await group.close()

    run_virtually(scenario())


def test_a_root_that_is_about_to_end_is_replaced_by_itself() -> None:
    async def scenario() -> None:
        config = {**SHORT, "IntermediateCertTTL": "1000s", "RootCertTTL": "2000s"}
        group = three(CASettings(True, "consul", config))
        first = await made(group)
        taken = await until(lambda: root_of(group.places["c"]).id != first.id, "another root", 1800)
        assert taken > 1600
        await until(lambda: len(group.places["c"].store.ca_roots) == 1, "the end of the former root", 300)
        await group.close()

    run_virtually(scenario())


def test_a_root_that_ended_while_nobody_led_is_replaced() -> None:
    async def scenario() -> None:
        group = three(CASettings(True, "consul", {**SHORT, "IntermediateCertTTL": "1000s", "RootCertTTL": "1000s"}))
        first = await made(group)
        group.lead("")
        await asyncio.sleep(1500)
        group.lead("id-b")
        await until(lambda: root_of(group.places["c"]).id != first.id, "another root", 20)
        signed = await leaf(group)
        assert signed.root == root_of(group.places["a"]).id
        assert len(certificates.split_chain(signed.certificate)) == 1
        await until(lambda: len(group.places["a"].store.ca_roots) == 1, "the end of the former root", 20)
        await group.close()

    run_virtually(scenario())


def test_a_root_that_an_operator_brought_is_not_replaced_but_complained_of() -> None:
    async def scenario() -> None:
        group = three()
        await made(group)
        now = asyncio.get_running_loop().time()
        key = certificates.make_key()
        mine = certificates.make_root(key, SigningId(web(group).domain), "mine", 5000, now, 9)
        config = {**SHORT, "PrivateKey": key, "RootCert": mine}
        await ca(group).change(CAChange("consul", config))
        kept = configured(group.places["b"])
        assert "PrivateKey" not in kept.config and kept.state["PrivateKey"] == key
        assert await ca(group, "b").leaders_trouble() == ""
        for _ in range(60):
            await asyncio.sleep(80)
        assert root_of(group.places["b"]).root == mine
        assert "only an operator" in await ca(group, "b").leaders_trouble()
        await group.close()

    run_virtually(scenario())


def test_the_same_configuration_and_other_lives_change_no_root() -> None:
    async def scenario() -> None:
        group = three()
        root = await made(group)
        before = configured(group.places["a"])
        await ca(group).change(CAChange("consul", dict(before.config)))
        assert configured(group.places["a"]).modify_index == before.modify_index
        await ca(group, "b").change(CAChange("consul", {**before.config, "LeafCertTTL": "24h"}))
        after = configured(group.places["a"])
        assert after.modify_index > before.modify_index and after.create_index == before.create_index
        assert [found.id for found in group.places["a"].store.ca_roots] == [root.id]
        signed = await leaf(group)
        assert signed.valid_before - signed.valid_after == DAY + certificates.LEEWAY
        await group.close()

    run_virtually(scenario())


def test_another_root_is_made_when_told_to() -> None:
    async def scenario() -> None:
        group = three()
        first = await made(group)
        config = dict(configured(group.places["a"]).config)
        await ca(group, "b").change(CAChange("consul", config, new_root=True))
        second = root_of(group.places["c"])
        assert second.signing_key_id != first.signing_key_id and second.key_bits == first.key_bits
        assert certificates.signed_by(second.crosses[0], first.root)
        assert configured(group.places["a"]).config == config
        key = certificates.make_key()
        with pytest.raises(Refused, match="take them out"):
            await ca(group, "b").change(CAChange("consul", {**config, "PrivateKey": key}, new_root=True))
        with pytest.raises(Refused, match="only the built-in provider"):
            await ca(group, "b").change(CAChange("vault", config, new_root=True))
        assert root_of(group.places["c"]) == second
        await group.close()

    run_virtually(scenario())


def test_a_configuration_that_was_read_before_another_change_is_refused() -> None:
    async def scenario() -> None:
        group = three()
        await made(group)
        index = configured(group.places["a"]).modify_index
        await ca(group).change(CAChange("consul", {"LeafCertTTL": "24h"}, modify_index=index))
        with pytest.raises(Refused, match="could not atomically update"):
            await ca(group, "b").change(CAChange("consul", {"LeafCertTTL": "48h"}, modify_index=index))
        assert configured(group.places["a"]).config == {"LeafCertTTL": "24h"}
        await group.close()

    run_virtually(scenario())


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (CAChange("nope", {}), 'could not initialize provider: unknown CA provider "nope"'),
        (CAChange("consul", {"LeafCertTTL": "1m"}), "error configuring provider: leaf cert TTL must be"),
        (CAChange("consul", {"RootCert": "x", "PrivateKey": "x"}), "RootCert must be one certificate"),
    ],
)
def test_what_cannot_be_configured_changes_nothing(given: CAChange, what: str) -> None:
    async def scenario() -> None:
        group = three()
        await made(group)
        before = configured(group.places["a"])
        with pytest.raises(LictorError, match=what):
            await ca(group, "b").change(given)
        assert configured(group.places["a"]) == before
        assert await leaf(group)
        await group.close()

    run_virtually(scenario())


def test_another_leader_goes_on_with_the_same_root() -> None:
    async def scenario() -> None:
        group = three()
        root = await made(group)
        group.lead("id-b")
        signed = await leaf(group, "c")
        assert signed.root == root.id
        group.lead("id-a")
        assert (await leaf(group, "c")).root == root.id
        assert list(group.places["a"].store.ca_roots) == [root]
        await group.close()

    run_virtually(scenario())


def test_leaders_that_change_while_the_authority_is_made_make_one() -> None:
    async def scenario() -> None:
        for pause in (0.0, 0.0005, 0.0015, 0.0025, 0.0035):
            group = three()
            begin(group)
            await asyncio.sleep(pause)
            group.lead("id-b")
            await asyncio.sleep(pause)
            group.lead("id-c")
            await until(lambda group=group: active(group.places["a"]) is not None, "a root")  # type: ignore[misc]
            assert len(group.places["a"].store.ca_roots) == 1
            assert (await leaf(group)).root == root_of(group.places["a"]).id
            await group.close()

    run_virtually(scenario())


def test_leaders_that_change_while_a_root_is_replaced_leave_all_of_it_or_nothing() -> None:
    async def scenario() -> None:
        outcomes = set()
        for pause in (0.0, 0.0005, 0.0015, 0.003):
            group = three()
            first = await made(group)
            change = asyncio.ensure_future(ca(group).change(CAChange("consul", {"PrivateKeyBits": 384})))
            await asyncio.sleep(pause)
            group.lead("id-b")
            outcome = await asyncio.gather(change, return_exceptions=True)
            config, root = configured(group.places["b"]), root_of(group.places["b"])
            changed = config.config == {"PrivateKeyBits": 384}
            assert changed == (root.id != first.id) == (config.state["RootCert"] != first.root)
            assert len(group.places["b"].store.ca_roots) == (2 if changed else 1)
            assert outcome[0] is None or isinstance(outcome[0], LictorError)
            assert (await leaf(group, "c")).root == root.id
            outcomes.add(changed)
            await group.close()
        assert outcomes == {True, False}

    run_virtually(scenario())


def test_a_snapshot_of_this_cluster_brings_back_its_root_and_one_of_another_that_ones() -> None:
    async def scenario() -> None:
        group, other = three(), three()
        first, theirs = await made(group), await made(other)
        own = b"".join(Image(group.places["a"].store).encode())
        foreign = b"".join(Image(other.places["a"].store).encode())
        await other.close()
        await ca(group).change(CAChange("consul", {"PrivateKeyBits": 384}))
        assert (await leaf(group)).root != first.id
        for state, root in ((own, first), (foreign, theirs)):
            for place in group.places.values():
                await snapshot.load_pieces(place.store, [state])
            await until(lambda root=root: root_of(group.places["a"]).id == root.id, "the root")  # type: ignore[misc]
            signed = await leaf(group, "b")
            assert signed.root == root.id and signed.uri.startswith(f"spiffe://{trust_domain(root.cluster)}/")
        await group.close()

    run_virtually(scenario())


def test_an_authority_of_another_cluster_is_not_written_over() -> None:
    async def scenario() -> None:
        group = three()
        await made(group)
        found = configured(group.places["a"])
        stranger = msgspec.structs.replace(found, cluster="22222222-2222-2222-2222-222222222222")
        assert await group.places["a"].server.apply(AuthorityWrite(found.revision, stranger, ())) is False
        assert await group.places["a"].server.apply(AuthorityWrite(found.revision - 1, found, ())) is False
        assert configured(group.places["a"]) == found
        await group.close()

    run_virtually(scenario())


def test_as_many_are_signed_as_the_rate_allows() -> None:
    async def scenario() -> None:
        group = three(CASettings(True, "consul", {"CSRMaxPerSecond": 10}))
        await made(group)
        asked = [request(web(group)) for _ in range(20)]
        results = await asyncio.gather(*(ca(group, "b").sign(one) for one in asked), return_exceptions=True)
        limited = [result for result in results if isinstance(result, RateExceeded)]
        assert 4 <= len(results) - len(limited) <= 8
        assert {str(error) for error in limited} == {"Rate limit reached, try again later"}
        await asyncio.sleep(10)
        assert await leaf(group)
        await group.close()

    run_virtually(scenario())


class Slow:
    """A provider that signs slowly, and is away when a test says so: the built-in one behind a bad line."""

    away = False
    closed: list[bool] = []
    most = busy = 0

    def __init__(self, config: dict[str, Any], state: dict[str, Any], around: Surroundings) -> None:
        self._real = BuiltinProvider({key: config[key] for key in config if key != "Line"}, state, around)

    kind = "slow"
    problem = ""

    @property
    def state(self) -> dict[str, Any]:
        return self._real.state

    async def open(self) -> Authority:
        self._reach()
        return await self._real.open()

    async def renew(self) -> Authority:
        self._reach()
        return await self._real.renew()

    async def sign(self, request: str, identity: SpiffeId, seconds: float) -> str:
        self._reach()
        Slow.busy += 1
        Slow.most = max(Slow.most, Slow.busy)
        await asyncio.sleep(0.3)
        Slow.busy -= 1
        return await self._real.sign(request, identity, seconds)

    async def sign_intermediate(self, request: str, identity: SpiffeId) -> str:
        return await self._real.sign_intermediate(request, identity)

    async def cross_sign(self, root: str) -> str:
        self._reach()
        return await self._real.cross_sign(root)

    async def close(self, *, remove: bool) -> None:
        Slow.closed.append(remove)

    def _reach(self) -> None:
        if Slow.away:
            raise ProviderUnavailable("the line is dead")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a provider by the name `slow`."""
    ordinary: Callable[..., Provider] = providers.make_provider
    Slow.away, Slow.closed, Slow.most, Slow.busy = False, [], 0, 0

    def make(kind: str, *rest: Any) -> Provider:
        return Slow(*rest) if kind == "slow" else ordinary(kind, *rest)

    monkeypatch.setattr(connect_ca_keeper, "make_provider", make)


def test_as_many_are_signed_at_a_time_as_configured(slow: None) -> None:
    async def scenario() -> None:
        group = three(CASettings(True, "slow", {"CSRMaxPerSecond": 0, "CSRMaxConcurrent": 2}))
        await made(group)
        asked = [request(web(group)) for _ in range(6)]
        results = await asyncio.gather(*(ca(group, "b").sign(one) for one in asked), return_exceptions=True)
        assert Slow.most == 2
        assert sum(isinstance(result, RateExceeded) for result in results) == 2
        await group.close()

    run_virtually(scenario())


def test_a_provider_that_is_away_at_first_is_tried_again(slow: None) -> None:
    async def scenario() -> None:
        Slow.away = True
        group = three(CASettings(True, "slow", {}))
        begin(group)
        await asyncio.sleep(300)
        assert await ca(group, "b").leaders_trouble() == "the line is dead"
        with pytest.raises(LictorError, match="CA is not initialized yet: the line is dead"):
            await leaf(group, "b")
        Slow.away = False
        await until(lambda: active(group.places["c"]) is not None, "a root", 61)
        assert await ca(group, "b").leaders_trouble() == ""
        assert await leaf(group)
        await group.close()

    run_virtually(scenario())


def test_a_provider_that_goes_away_is_complained_of_and_can_be_left(slow: None) -> None:
    async def scenario() -> None:
        group = three(CASettings(True, "slow", {}))
        first = await made(group)
        assert await leaf(group)
        Slow.away = True
        with pytest.raises(LictorError, match="the line is dead"):
            await leaf(group, "b")
        await asyncio.sleep(4000)
        assert await ca(group, "b").leaders_trouble() == "the line is dead"
        with pytest.raises(LictorError, match="ForceWithoutCrossSigning"):
            await ca(group, "b").change(CAChange("consul", {}))
        assert root_of(group.places["a"]).id == first.id
        await ca(group, "b").change(CAChange("consul", {}, force=True))
        assert (await leaf(group, "c")).root == root_of(group.places["a"]).id != first.id
        assert await ca(group, "b").leaders_trouble() == ""
        assert True in Slow.closed
        await group.close()

    run_virtually(scenario())


def test_a_change_from_one_provider_to_another_is_a_rotation(slow: None) -> None:
    async def scenario() -> None:
        group = three()
        first = await made(group)
        await ca(group, "b").change(CAChange("slow", {"LeafCertTTL": "24h"}))
        second = root_of(group.places["c"])
        assert second.id != first.id and len(second.crosses) == 1
        assert certificates.signed_by(second.crosses[0], first.root)
        assert configured(group.places["c"]).provider == "slow"
        group.lead("id-c")
        assert (await leaf(group, "b")).root == second.id
        await group.close()

    run_virtually(scenario())


def test_another_datacenters_authority_is_signed() -> None:
    async def scenario() -> None:
        group = three()
        root = await made(group)
        domain = web(group).domain
        signed = await ca(group, "b").sign_intermediate(request(SigningId(domain)))
        found = certificates.read_certificate(signed)
        assert found.is_authority and found.authority_key_id == root.signing_key_id
        with pytest.raises(LictorError, match="not that of an authority"):
            await ca(group, "b").sign_intermediate(request(web(group)))
        await group.close()

    run_virtually(scenario())
