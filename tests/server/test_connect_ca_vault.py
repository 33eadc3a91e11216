"""The mesh's authority in Vault, on several servers: Vault sealed and away, leaders that follow one another. Requests
to the stand-in take no virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from lictor.ca import certificates
from lictor.ca.configuration import VAULT, shown
from lictor.model.connect_ca import CARoot
from lictor.model.errors import LictorError
from lictor.model.spiffe import ServiceId, trust_domain
from lictor.server.connect_ca import ConnectCA
from lictor.server.connect_ca_requests import SignedLeaf
from lictor.server.connect_ca_settings import CAChange, CASettings
from lictor.store.connect_ca import ONLY
from tests.agent.checks.virtual_time import run_virtually
from tests.ca.vault_standin import ROOT_TOKEN, VaultStandin
from tests.server.group import Group, until


@pytest.fixture
def vault() -> Generator[VaultStandin]:
    with VaultStandin() as running:
        yield running


def config(vault: VaultStandin, **other: Any) -> dict[str, Any]:
    """As an agent's file has it."""
    return {
        "address": vault.address,
        "token": ROOT_TOKEN,
        "root_pki_path": "root",
        "intermediate_pki_path": "leaves",
    } | other


def ca(group: Group, name: str = "a") -> ConnectCA:
    return group.places[name].leadership.connect_ca


def roots(group: Group, name: str = "a") -> list[CARoot]:
    """The active one first."""
    return sorted(group.places[name].store.ca_roots, key=lambda root: not root.active)


async def three(vault: VaultStandin) -> Group:
    """Three servers, led by `a`, with their authority in Vault."""
    group = Group("a", "b", "c", authority=CASettings(True, VAULT, config(vault)))
    group.lead("id-a")
    for name in group.places:
        ca(group, name).begin()
    await until(lambda: all(roots(group, name) for name in group.places), "a root")
    return group


async def leaf(group: Group, through: str = "a") -> SignedLeaf:
    cluster = group.places["a"].store.authority.get(ONLY)
    assert cluster is not None
    identity = ServiceId(trust_domain(cluster.cluster), "dc1", "web")
    return await ca(group, through).sign(certificates.make_request(certificates.make_key(), identity))


def is_under(signed: SignedLeaf, root: CARoot) -> bool:
    """Whether a chain leads from the leaf to the root, in any order of what is between."""
    first, *between = certificates.split_chain(signed.certificate)
    reached = [first]
    for pem in reached:
        reached += [other for other in between if other not in reached and certificates.signed_by(pem, other)]
    return any(certificates.signed_by(pem, root.root) for pem in reached)


def test_vault_sealed_is_told_of_and_that_it_is_back_too(vault: VaultStandin) -> None:
    async def scenario() -> None:
        group = await three(vault)
        root = roots(group)[0]
        assert is_under(await leaf(group), root)
        vault.sealed = True
        with pytest.raises(LictorError, match="is sealed: unseal it"):
            await leaf(group, through="b")
        assert "is sealed" in await ca(group, "c").leaders_trouble()
        await asyncio.sleep(600)
        assert "is sealed" in await ca(group, "c").leaders_trouble()
        vault.sealed = False
        await leaf(group, through="b")
        await until(lambda: not ca(group).trouble, "the leader well again")
        assert roots(group, "c") == [root]
        await group.close()

    run_virtually(scenario())


def test_vault_away_is_told_of_though_nobody_asks_for_a_leaf(vault: VaultStandin) -> None:
    async def scenario() -> None:
        group = await three(vault)
        vault.sealed = True
        await asyncio.sleep(120)
        assert "is sealed" in await ca(group, "c").leaders_trouble()
        vault.sealed = False
        await asyncio.sleep(120)
        assert await ca(group, "c").leaders_trouble() == ""
        written = group.places["a"].store.index
        await asyncio.sleep(600)
        assert group.places["a"].store.index == written, "looking after the authority writes nothing"
        await group.close()

    run_virtually(scenario())


def test_the_next_leader_goes_on_with_what_is_in_vault(vault: VaultStandin) -> None:
    async def scenario() -> None:
        group = await three(vault)
        before, root = await leaf(group), roots(group)[0]
        group.lead("id-b")
        after = await leaf(group, through="c")
        chains = [certificates.split_chain(signed.certificate)[1:] for signed in (before, after)]
        assert chains[0] == chains[1] and roots(group, "b") == [root]
        await group.close()

    run_virtually(scenario())


def test_from_the_built_in_provider_to_vault_and_back(vault: VaultStandin) -> None:
    async def scenario() -> None:
        group = Group("a", "b", "c", authority=CASettings())
        group.lead("id-a")
        for name in group.places:
            ca(group, name).begin()
        await until(lambda: bool(roots(group)), "a root")
        built_in, seen = roots(group)[0], []
        for provider, given in ((VAULT, config(vault)), ("consul", {})):
            await ca(group, "b").change(CAChange(provider, given))
            signed = await leaf(group, through="c")
            seen.append(roots(group)[0])
            assert all(is_under(signed, root) for root in roots(group)), "who trusts a former root trusts the new one"
        assert len({root.id for root in (built_in, *seen)}) == 3
        assert [path for _, path in vault.mounts] == ["root"], "what only the provider used is taken away"
        await group.close()

    run_virtually(scenario())


def test_what_is_read_can_be_written_back_without_the_token(vault: VaultStandin) -> None:
    async def scenario() -> None:
        group = await three(vault)
        found = group.places["b"].store.authority.get(ONLY)
        assert found is not None
        read = shown(found.config)
        assert ROOT_TOKEN not in str(read)
        before = roots(group)
        await ca(group, "b").change(CAChange(VAULT, read | {"LeafCertTTL": "24h"}))
        signed = await leaf(group)
        assert signed.valid_before - signed.valid_after <= 24 * 3600 + certificates.LEEWAY
        assert [root.id for root in roots(group)] == [root.id for root in before]
        await group.close()

    run_virtually(scenario())


def test_a_vault_that_cannot_be_had_changes_nothing(vault: VaultStandin) -> None:
    async def scenario() -> None:
        group = Group("a", "b", "c", authority=CASettings())
        group.lead("id-a")
        for name in group.places:
            ca(group, name).begin()
        await until(lambda: bool(roots(group)), "a root")
        before = roots(group)
        for wrong, words in (
            ({"token": "s.unknown"}, "refuses the token"),
            ({"root_pki_path": ""}, "must provide a valid path to a root PKI backend"),
            ({"address": "http://127.0.0.1:1"}, "cannot be reached"),
        ):
            with pytest.raises(LictorError, match=words) as refused:
                await ca(group, "b").change(CAChange(VAULT, config(vault, **wrong)))
            assert "s.unknown" not in str(refused.value)
        assert roots(group) == before and await leaf(group)
        await group.close()

    run_virtually(scenario())
