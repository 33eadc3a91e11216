"""Vault behind the authority of the primary datacenter, of a secondary one, and of both. Requests to the stand-in take
no virtual time.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from lictor.ca import certificates
from lictor.ca.certificates import BadCertificate
from lictor.ca.configuration import VAULT
from lictor.model.connect_ca import CARoot
from lictor.model.errors import LictorError
from lictor.server.connect_ca_requests import SignedLeaf
from lictor.server.connect_ca_settings import CAChange, CASettings
from lictor.store.connect_ca import ONLY
from tests.agent.checks.virtual_time import run_virtually
from tests.ca.vault_standin import ROOT_TOKEN, VaultStandin
from tests.server.group import until
from tests.server.test_connect_ca_secondary import OWN, Two, active, ca, leaf, root_of, roots


class Vault(VaultStandin):
    """A stand-in with the clock of the servers."""

    clock: Callable[[], float] = time.time

    def now(self) -> float:
        """Seconds on it."""
        return self.clock()


@pytest.fixture
def vault() -> Generator[Vault]:
    running = Vault()
    with running:
        yield running


def under(signed: SignedLeaf, *trusted: CARoot) -> bool:
    """Whether a chain leads from a leaf, by what it brings along, to one of these roots."""
    for root in trusted:
        with contextlib.suppress(BadCertificate):
            return bool(certificates.chain_below(root.root, signed.certificate))
    return False


def config(vault: Vault, leaves: str) -> dict[str, Any]:
    """The root's mount is the same everywhere: only the primary uses it."""
    return {"Address": vault.address, "Token": ROOT_TOKEN, "RootPKIPath": "root", "IntermediatePKIPath": leaves}


def in_vault(vault: Vault, leaves: str) -> CASettings:
    return CASettings(True, VAULT, config(vault, leaves))


@pytest.mark.parametrize("where", ["primary", "secondary", "both"])
def test_leaves_of_both_datacenters_are_under_one_root(vault: Vault, where: str) -> None:
    async def scenario() -> None:
        vault.clock = asyncio.get_running_loop().time
        two = Two(
            in_vault(vault, "leaves1") if where != "secondary" else OWN,
            in_vault(vault, "leaves2") if where != "primary" else OWN,
        )
        await two.made()
        first, second = root_of(two.one), root_of(two.two)
        assert second.id == first.id
        for group in two.joined:
            assert under(await leaf(group), first)
        paths = {path for _, path in vault.mounts}
        assert ("leaves2" in paths) == (where != "primary") and ("root" in paths) == (where != "secondary")
        configuration = two.two.places["z"].store.authority.get(ONLY)
        assert configuration is not None
        assert ("PrivateKey" in configuration.state) == (where == "primary"), "Vault's keys never leave it"
        two.two.lead("id-y")
        assert certificates.split_chain((await leaf(two.two, "x")).certificate)[1] == second.intermediates[0]
        assert root_of(two.two) == second, "the next leader goes on with the same intermediate"
        await two.close()

    run_virtually(scenario())


def test_the_primary_moves_into_vault_and_the_secondary_too(vault: Vault) -> None:
    async def scenario() -> None:
        vault.clock = asyncio.get_running_loop().time
        two = Two()
        await two.made()
        first, old = root_of(two.one), await leaf(two.two)
        await ca(two.one, "b").change(CAChange(VAULT, config(vault, "leaves1")))
        await until(lambda: root_of(two.two).id != first.id, "the root in Vault in dc2")
        second = root_of(two.two)
        for group in two.joined:
            signed = await leaf(group)
            assert under(signed, first) and under(signed, root_of(two.one))
        await ca(two.two, "z").change(CAChange(VAULT, config(vault, "leaves2")))
        third = root_of(two.two)
        assert third.id == second.id and third.intermediates != second.intermediates
        assert under(await leaf(two.two, "y"), first) and under(old, *roots(two.two).values())
        await ca(two.two, "z").change(CAChange("consul", {}))
        assert "leaves2" not in {path for _, path in vault.mounts}, "what only the provider used is taken away"
        assert under(await leaf(two.two, "y"), root_of(two.one))
        await two.close()

    run_virtually(scenario())


def test_vault_goes_on_with_its_intermediate_while_the_primary_is_away(vault: Vault) -> None:
    async def scenario() -> None:
        vault.clock = asyncio.get_running_loop().time
        two = Two(second=in_vault(vault, "leaves2"))
        two.part()
        two.begin()
        await asyncio.sleep(100)
        assert active(two.two) is None
        assert "has to sign" in await ca(two.two, "y").leaders_trouble()
        two.meet()
        await until(lambda: active(two.two) is not None, "an authority of dc2", 60)
        before = root_of(two.two)
        two.part()
        two.two.lead("id-z")
        await asyncio.sleep(600)
        assert under(await leaf(two.two), root_of(two.one)) and root_of(two.two) == before
        vault.sealed = True
        await until(lambda: "is sealed" in ca(two.two, "z").trouble, "word that Vault is sealed")
        vault.sealed = False
        two.meet()
        await ca(two.one).change(CAChange("consul", {"PrivateKeyBits": 384}))
        await until(lambda: root_of(two.two).id == root_of(two.one).id != before.id, "the other root in dc2", 90)
        assert under(await leaf(two.two), root_of(two.one)) and under(await leaf(two.two), before)
        mount = next(mount for (_, path), mount in vault.mounts.items() if path == "leaves2")
        assert len(mount.asked_keys) <= 3, "no key is left behind for each time that the primary was asked in vain"
        await two.close()

    run_virtually(scenario())


def test_a_mount_that_has_a_root_is_left_alone(vault: Vault) -> None:
    async def scenario() -> None:
        vault.clock = asyncio.get_running_loop().time
        two = Two(in_vault(vault, "leaves1"))
        await two.made()
        with pytest.raises(LictorError, match="set an IntermediatePKIPath that nothing else uses"):
            await ca(two.two).change(CAChange(VAULT, config(vault, "root") | {"RootPKIPath": "elsewhere"}))
        assert under(await leaf(two.two), root_of(two.one)) and under(await leaf(two.one), root_of(two.one))
        await two.close()

    run_virtually(scenario())
