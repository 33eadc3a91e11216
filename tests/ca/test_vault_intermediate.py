"""An intermediate in Vault that another authority signs, that of the primary datacenter: against the stand-in and a
real server alike.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator

import msgspec
import pytest

from lictor.ca import certificates
from lictor.ca.builtin import BuiltinProvider
from lictor.ca.provider import Provider, ProviderError, ProviderUnavailable
from lictor.ca.vault_intermediate import VaultIntermediate
from lictor.model.spiffe import SigningId
from tests.ca.vault_standin import ROOT_TOKEN, VaultStandin
from tests.ca.vaults import DOMAIN, WEB, Vault, around, web_request


@pytest.fixture(params=["stand-in", "stand-in of an old version", "real"])
def vault(request: pytest.FixtureRequest) -> Generator[Vault]:
    if request.param == "real":
        running: Vault = request.getfixturevalue("real")
        vault = Vault(running.address, running.token)
        yield vault
        for path in ("root", "leaves", "second"):
            vault.ask("DELETE", f"sys/mounts/{vault.mounts}/{path}")
    else:
        with VaultStandin(several_issuers=request.param == "stand-in") as standin:
            yield Vault(standin.address, ROOT_TOKEN, standin)


class Primary:
    """The authority above: a provider of the primary datacenter."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.root = ""
        self.away = False

    async def open(self) -> Primary:
        self.root = (await self.provider.open()).root
        return self

    async def sign(self, request: str) -> str:
        if self.away:
            raise ProviderUnavailable("dc1 is away")
        return await self.provider.sign_intermediate(request, SigningId(DOMAIN))


def second(vault: Vault, primary: Primary, state: dict[str, object] | None = None) -> VaultIntermediate:
    """The provider of the second datacenter."""
    config = vault.config | {"IntermediatePKIPath": f"{vault.mounts}/second"}
    surroundings = msgspec.structs.replace(around(time.time, asyncio.to_thread), datacenter="dc2", above=primary)
    return VaultIntermediate(config, state or {}, surroundings, primary)


@pytest.mark.parametrize("above", ["built-in", "vault"])
async def test_leaves_are_signed_under_the_primarys_root(vault: Vault, above: str) -> None:
    first = BuiltinProvider({}, {}, around()) if above == "built-in" else vault.provider()
    primary = await Primary(first).open()
    provider = second(vault, primary)
    authority = await provider.open()
    signed = await provider.sign(web_request(), WEB, 3600.0)
    assert authority.root == primary.root
    assert certificates.split_chain(signed)[1:] == list(authority.intermediates)
    assert len(certificates.chain_below(primary.root, signed)) == 2

    primary.away = True
    following = second(vault, primary, provider.state)
    assert await following.open() == authority, "the next leader goes on with what is there"
    primary.root = await other_root()
    assert await following.renew() == authority
    assert "the present one goes on: dc1 is away" in following.problem
    assert await following.sign(web_request(), WEB, 3600.0)

    primary.away = False
    primary.provider = BuiltinProvider({"PrivateKeyBits": 384}, {}, around())
    await primary.open()
    moved = await following.renew()
    assert moved.root == primary.root and moved.intermediates != authority.intermediates
    assert certificates.chain_below(primary.root, await following.sign(web_request(), WEB, 3600.0))
    assert not following.problem
    for one in (provider, following, first):
        await one.close(remove=True)


async def other_root() -> str:
    return (await BuiltinProvider({}, {}, around()).open()).root


async def test_nothing_else_is_signed(vault: Vault) -> None:
    provider = second(vault, await Primary(BuiltinProvider({}, {}, around())).open())
    await provider.open()
    with pytest.raises(ProviderError, match="only the authority of the primary datacenter"):
        await provider.sign_intermediate(certificates.make_request(certificates.make_key(), SigningId(DOMAIN)), WEB)
    with pytest.raises(ProviderError, match="only the authority of the primary datacenter"):
        await provider.cross_sign(await other_root())
    await provider.close(remove=True)
