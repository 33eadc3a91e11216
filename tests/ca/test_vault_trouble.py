"""Vault away, sealed, slow, refusing, talking nonsense: an error that names the remedy and no secret; and a token kept
alive for as long as it can be. Against the stand-in; what waits does so on virtual time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest
from cryptography import x509

from lictor.ca import vault_client, vault_pki
from lictor.ca.certificates import read_certificate, split_chain
from lictor.ca.provider import ProviderError, ProviderUnavailable
from lictor.ca.vault import VaultProvider
from tests.agent.checks.virtual_time import run_virtually
from tests.ca.vault_standin import ROOT_TOKEN, VaultStandin
from tests.ca.vaults import HOUR, WEB, Vault, around, at_once, web_request
from tests.ports import free_port


@pytest.fixture
def standin() -> Generator[VaultStandin]:
    with VaultStandin() as running:
        yield running


@pytest.fixture
def vault(standin: VaultStandin) -> Vault:
    return Vault(standin.address, ROOT_TOKEN, standin)


def virtual(vault: Vault, standin: VaultStandin, **other: Any) -> VaultProvider:
    """A provider for virtual time, with the stand-in's clock."""
    return VaultProvider(vault.config | other, {}, around(standin.now, at_once))


async def refused(provider: VaultProvider, words: str, kind: type[ProviderError] = ProviderError) -> str:
    """See that opening fails with such words, and that none of them is secret."""
    with pytest.raises(kind, match=words) as failure:
        await provider.open()
    await provider.close(remove=True)
    assert ROOT_TOKEN not in str(failure.value)
    return str(failure.value)


async def test_nobody_listens() -> None:
    vault = Vault(f"http://127.0.0.1:{free_port()}", ROOT_TOKEN)
    await refused(
        vault.provider(), r"cannot be reached \(connection refused\): check that it runs", ProviderUnavailable
    )
    nowhere = Vault("http://vault.invalid", ROOT_TOKEN)
    await refused(nowhere.provider(), "http://vault.invalid cannot be reached", ProviderUnavailable)


async def test_sealed_and_unsealed(standin: VaultStandin, vault: Vault) -> None:
    provider = vault.provider()
    await provider.open()
    standin.sealed = True
    for attempt in (provider.renew, lambda: provider.sign(web_request(), WEB, HOUR)):
        with pytest.raises(ProviderUnavailable, match="is sealed: unseal it with `vault operator unseal`"):
            await attempt()
    standin.sealed = False
    assert await provider.sign(web_request(), WEB, HOUR)
    await provider.close(remove=True)


async def test_not_initialized(standin: VaultStandin, vault: Vault) -> None:
    standin.uninitialized = True
    await refused(vault.provider(), "is not initialized: run `vault operator init`", ProviderUnavailable)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (429, ProviderUnavailable, "limits how often it is asked .*raise its quota"),
        (500, ProviderUnavailable, "cannot do POST .*: see its log"),
        (502, ProviderUnavailable, "cannot do POST"),
        (503, ProviderUnavailable, "cannot do POST"),
        (412, ProviderUnavailable, "cannot do POST"),
        (400, ProviderError, "refuses POST .*: some words"),
        (418, ProviderError, "refuses POST .*: some words"),
    ],
)
async def test_statuses(
    standin: VaultStandin, vault: Vault, status: int, kind: type[ProviderError], words: str
) -> None:
    standin.failing["root/generate"] = (status, "some words")
    await refused(vault.provider(), words, kind)


async def test_it_takes_up_where_it_was(standin: VaultStandin, vault: Vault) -> None:
    provider = vault.provider()
    for step in ("lookup-self", "sys/mounts", "root/generate", "sign-intermediate", "set-signed", "roles/"):
        standin.failing = {step: (500, "a bad moment")}
        with pytest.raises(ProviderUnavailable, match="a bad moment"):
            await provider.open()
    standin.failing = {}
    authority = await provider.open()
    assert split_chain(await provider.sign(web_request(), WEB, HOUR))[1:] == list(authority.intermediates)
    assert standin.count("^POST .*root/generate") == 2
    await provider.close(remove=True)


async def test_what_the_policy_must_allow_is_named(standin: VaultStandin, vault: Vault) -> None:
    standin.forbidden = ["^POST sys/mounts/.*/root"]
    said = await refused(vault.provider(), "the policy of the token must allow create and update on")
    assert f'"sys/mounts/{vault.mounts}/root"' in said and "permission denied" in said
    standin.forbidden = ["sign-self-issued"]
    provider = vault.provider()
    authority = await provider.open()
    with pytest.raises(ProviderError, match="create and update and sudo on"):
        await provider.cross_sign(authority.root)
    await provider.close(remove=True)


async def test_a_token_of_few_rights_is_enough_where_the_operator_made_the_mounts(
    standin: VaultStandin, vault: Vault
) -> None:
    former = vault.provider()
    authority = await former.open()
    await former.close(remove=False)
    standin.forbidden = ["sys/mounts", "POST .*/roles/", "root/generate", "tidy"]
    provider = vault.provider(PrivateKeyType="rsa", PrivateKeyBits=2048)
    assert (await provider.open()).root == authority.root
    assert await provider.sign(web_request(), WEB, HOUR)
    await provider.close(remove=True)
    standin.forbidden = ["/roles/"]
    await refused(vault.provider(), "must allow create and update on .*/roles/leaf-cert")


async def test_a_token_that_is_not_good(standin: VaultStandin, vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = Vault(vault.address, "s.this-token-is-not-known")
    said = await refused(wrong.provider(), "refuses the token: .* set another with `lictor connect ca set-config`")
    short = standin.token(ttl=60.0)
    provider = Vault(vault.address, short).provider()
    await provider.open()
    standin.advance(61)
    with pytest.raises(ProviderError, match="refuses the token: it has ended") as failure:
        await provider.sign(web_request(), WEB, HOUR)
    await provider.close(remove=True)
    everything = f"{said}{failure.value}{caplog.text}"
    assert "this-token" not in everything and short not in everything


async def test_the_root_s_mount_is_gone(standin: VaultStandin, vault: Vault) -> None:
    provider = vault.provider()
    await provider.open()
    kept = standin.mounts.pop(("", f"{vault.mounts}/root"))
    following = vault.provider(provider.state)
    for each in (provider, following):
        with pytest.raises(ProviderError, match='"lictor-.*/root" .*is gone from Vault .*set another RootPKIPath'):
            await each.open()
    assert await provider.sign(web_request(), WEB, HOUR)
    standin.mounts["", f"{vault.mounts}/root"] = kept
    kept.issuers, issuers = [], kept.issuers
    kept.default, default = None, kept.default
    with pytest.raises(ProviderError, match="the root is gone"):
        await following.open()
    kept.issuers, kept.default = issuers, default
    assert await following.open() == await provider.renew()
    await following.close(remove=False)
    await provider.close(remove=True)


async def test_a_role_that_was_deleted_is_written_again(standin: VaultStandin, vault: Vault) -> None:
    provider = vault.provider()
    await provider.open()
    standin.mounts["", f"{vault.mounts}/leaves"].roles.clear()
    with pytest.raises(ProviderError, match="unknown role: leaf-cert"):
        await provider.sign(web_request(), WEB, HOUR)
    await provider.renew()
    assert await provider.sign(web_request(), WEB, HOUR)
    asked = len(standin.asked)
    await provider.renew()
    assert standin.asked[asked:] == [f"GET {vault.mounts}/{name}/ca/pem" for name in ("root", "leaves")]
    await provider.close(remove=True)


async def test_a_root_that_has_ended(standin: VaultStandin, vault: Vault) -> None:
    provider = vault.provider()
    authority = await provider.open()
    after = VaultProvider(vault.config, {}, around(lambda: read_certificate(authority.root).not_after))
    await refused(after, "has ended: make another there .*or set another RootPKIPath")
    await provider.close(remove=True)


async def test_nothing_outlives_its_issuer(standin: VaultStandin, vault: Vault) -> None:
    provider = vault.provider(RootCertTTL="720h", IntermediateCertTTL="700h", LeafCertTTL="72h")
    authority = await provider.open()
    root = read_certificate(authority.root)
    standin.advance(600 * HOUR)
    later = VaultProvider(vault.config, provider.state, around(standin.now))
    renewed = await later.open()
    assert renewed.root == authority.root
    assert read_certificate(renewed.intermediates[0]).not_after <= root.not_after
    leaf = read_certificate(await later.sign(web_request(), WEB, 200 * HOUR))
    assert leaf.not_after <= read_certificate(renewed.intermediates[0]).not_after
    standin.advance(119.9 * HOUR)
    with pytest.raises(ProviderUnavailable, match="refuses|has ended"):
        standin.advance(HOUR)
        await later.sign(web_request(), WEB, HOUR)
    await later.close(remove=False)
    await provider.close(remove=True)


def other_name(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    """A role that puts another name into what it signs."""
    builder._extensions = [e for e in builder._extensions if not isinstance(e.value, x509.SubjectAlternativeName)]
    uri = x509.UniformResourceIdentifier(WEB.uri.replace("web", "billing"))
    return builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)


def authority_bit(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    """A role that makes an authority of whoever asks."""
    builder._extensions = [e for e in builder._extensions if not isinstance(e.value, x509.BasicConstraints)]
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)


@pytest.mark.parametrize("alter", [other_name, authority_bit])
async def test_a_leaf_that_is_not_what_was_asked_for_is_refused(
    standin: VaultStandin, vault: Vault, alter: Callable[[x509.CertificateBuilder], x509.CertificateBuilder]
) -> None:
    provider = vault.provider()
    await provider.open()
    standin.alter_leaf = alter
    with pytest.raises(ProviderError, match="signed a certificate of .*: see its role"):
        await provider.sign(web_request(), WEB, HOUR)
    await provider.close(remove=True)


async def test_somebody_else_puts_another_authority_into_the_mount(standin: VaultStandin, vault: Vault) -> None:
    provider = vault.provider()
    authority = await provider.open()
    other = vault.provider(RootPKIPath=f"{vault.mounts}/other")
    await other.open()
    with pytest.raises(ProviderUnavailable, match="see that nothing else uses it"):
        await provider.sign(web_request(), WEB, HOUR)
    renewed = await provider.renew()
    assert renewed.root == authority.root and await provider.sign(web_request(), WEB, HOUR)
    await other.close(remove=False)
    await provider.close(remove=True)


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>a proxy's page</html>",
        b"[]",
        b"{",
        b"{}",
        b'{"data":{"ttl":"x"},"auth":7}',
        b"\xff" * 100,
        b"[" * 99_999,
    ],
)
async def test_what_is_not_vault_s_answer(standin: VaultStandin, vault: Vault, raw: bytes) -> None:
    standin.raw = raw
    await refused(vault.provider(), "see that it is a PKI engine|does not use it|no use|cannot|nothing")


async def test_an_answer_without_end(standin: VaultStandin, vault: Vault) -> None:
    standin.raw = b" " * (2 * 1024 * 1024)
    await refused(vault.provider(), "is longer than 1048576 bytes")


async def test_a_standby_sends_to_the_active_one(standin: VaultStandin, vault: Vault) -> None:
    with VaultStandin() as standby:
        standby.redirect = standin.address
        provider = Vault(standby.address, ROOT_TOKEN).provider()
        await provider.open()
        await provider.close(remove=True)
        assert standin.count("root/generate") == 1
        for elsewhere, words in (
            (standby.address, "from one address to the next"),
            (f"{standin.address}/v1/elsewhere?", "redirects elsewhere"),
            ("file:///etc", "not https, where no token goes"),
        ):
            standby.redirect = elsewhere
            await refused(Vault(standby.address, ROOT_TOKEN).provider(), words)


async def test_slow_and_given_up(standin: VaultStandin, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = vault.provider()
    await provider.open()
    may_answer = threading.Event()
    standin.steps = lambda asked: (may_answer.wait(60), None)[1] if "/sign/" in asked else None
    monkeypatch.setattr(vault_pki, "SIGNING_PATIENCE", 0.2)
    try:
        with pytest.raises(ProviderUnavailable, match=r"does not answer in 0\.2 seconds: check that it runs"):
            await provider.sign(web_request(), WEB, HOUR)
    finally:
        may_answer.set()
    monkeypatch.undo()
    assert await provider.sign(web_request(), WEB, HOUR)
    await provider.close(remove=True)


async def test_a_vault_that_hangs_holds_few_threads(
    standin: VaultStandin, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = vault.provider()
    await provider.open()
    may_answer, asked = threading.Event(), len(standin.asked)
    standin.steps = lambda asked: (may_answer.wait(60), None)[1]
    monkeypatch.setattr(vault_pki, "SIGNING_PATIENCE", 1.0)
    try:
        requests = [provider.sign(web_request(), WEB, HOUR) for _ in range(50)]
        failures = await asyncio.gather(*requests, return_exceptions=True)
        assert all(isinstance(failure, ProviderUnavailable) for failure in failures)
        assert len(standin.asked) - asked <= 6 * vault_client.MOST_AT_ONCE, "a seat may be free again before the end"
    finally:
        may_answer.set()
    monkeypatch.undo()
    for _ in range(2 * vault_client.MOST_AT_ONCE):
        assert await provider.sign(web_request(), WEB, HOUR), "all seats are free again"
    await provider.close(remove=True)


async def test_the_loop_goes_on_while_vault_thinks(standin: VaultStandin, vault: Vault) -> None:
    provider = vault.provider()
    await provider.open()
    loop, may_answer, asked = asyncio.get_running_loop(), threading.Event(), asyncio.Event()

    def hold(request: str) -> None:
        if "/sign/" in request:
            loop.call_soon_threadsafe(asked.set)
            may_answer.wait(60)

    standin.steps = hold
    signing = [asyncio.create_task(provider.sign(web_request(), WEB, HOUR)) for _ in range(5)]
    try:
        await asked.wait()
        assert not any(task.done() for task in signing)
    finally:
        may_answer.set()
    assert len({read_certificate(leaf).serial for leaf in await asyncio.gather(*signing)}) == 5
    await provider.close(remove=True)


async def test_without_the_library_the_remedy_is_said(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvac", None)
    monkeypatch.setitem(sys.modules, "hvac.adapters", None)
    monkeypatch.delitem(sys.modules, "lictor.ca.vault_http", raising=False)
    await refused(vault.provider(), r"pip install 'lictor\[vault\]'")


# -- the token --------------------------------------------------------------------------------------------------------


def test_a_periodic_token_lives_as_long_as_the_provider(standin: VaultStandin) -> None:
    token = standin.token(ttl=600.0, renewable=True)
    vault = Vault(standin.address, token)

    async def use() -> None:
        provider = virtual(vault, standin)
        await provider.open()
        for _ in range(30):
            await asyncio.sleep(100)
            standin.advance(100)
            assert await provider.sign(web_request(), WEB, HOUR)
        assert provider.problem == ""
        await provider.close(remove=True)

    run_virtually(use())
    assert 8 <= standin.count("renew-self") <= 12
    assert standin.count("revoke-self") == 0


def test_a_token_that_can_only_be_prolonged_so_far_is_told_of_in_time(
    standin: VaultStandin, caplog: pytest.LogCaptureFixture
) -> None:
    token = standin.token(ttl=600.0, renewable=True, most=2000.0)
    vault = Vault(standin.address, token)

    async def use() -> None:
        provider = virtual(vault, standin)
        await provider.open()
        while not provider.problem:
            await asyncio.sleep(10)
            standin.advance(10)
        assert "ends in" in provider.problem and "set another Token" in provider.problem
        assert await provider.sign(web_request(), WEB, HOUR)
        for _ in range(60):
            await asyncio.sleep(10)
            standin.advance(10)
        assert "has ended" in provider.problem
        await provider.close(remove=True)

    run_virtually(use())
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    soon, over, left = warnings
    assert "ends in" in soon and "has ended" in over and "is left behind" in left
    assert not any(token in warning for warning in warnings)


LOGIN = {"type": "userpass", "params": {"username": "lictor", "password": "pass-of-lictor"}}


def let_in(standin: VaultStandin, *, ttl: float, most: float = 0.0, renewable: bool = True) -> None:
    """Let lictor log in, and give it such tokens."""
    standin.logins["auth/userpass/login/lictor"] = lambda body: body["password"] == "pass-of-lictor"
    standin.login_ttl, standin.login_most, standin.login_renewable = ttl, most, renewable


@pytest.mark.parametrize(("most", "renewable"), [(2000.0, True), (0.0, False)], ids=["prolonged so far", "batch token"])
def test_where_there_is_a_login_a_token_that_comes_to_its_end_is_replaced(
    standin: VaultStandin, vault: Vault, most: float, renewable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    let_in(standin, ttl=600.0, most=most, renewable=renewable)

    async def use() -> None:
        provider = virtual(vault, standin, Token="", AuthMethod=LOGIN)
        await provider.open()
        for _ in range(60):
            await asyncio.sleep(100)
            standin.advance(100)
            assert await provider.sign(web_request(), WEB, HOUR)
        assert provider.problem == ""
        await provider.close(remove=True)

    run_virtually(use())
    assert 3 <= standin.count("login") <= 25
    assert standin.count("renew-self") == 0 or renewable
    assert standin.count("revoke-self") == 1
    assert "pass-of-lictor" not in caplog.text


def test_a_token_that_was_revoked_is_replaced_at_once(standin: VaultStandin, vault: Vault) -> None:
    let_in(standin, ttl=600.0)

    async def use() -> None:
        provider = virtual(vault, standin, Token="", AuthMethod=LOGIN)
        await provider.open()
        for name in list(standin.tokens):
            if name != ROOT_TOKEN:
                del standin.tokens[name]
        assert await provider.sign(web_request(), WEB, HOUR)
        standin.forbidden = ["/sign/"]
        with pytest.raises(ProviderError, match="the policy of the token must allow"):
            await provider.sign(web_request(), WEB, HOUR)
        await provider.close(remove=True)

    run_virtually(use())
    assert standin.count("login") == 2


def test_vault_is_away_when_the_token_should_be_renewed(standin: VaultStandin, vault: Vault) -> None:
    let_in(standin, ttl=600.0)

    async def use() -> None:
        provider = virtual(vault, standin, Token="", AuthMethod=LOGIN)
        await provider.open()
        standin.sealed = True
        await asyncio.sleep(400)
        standin.advance(400)
        assert "ends in" in provider.problem and "sealed" in provider.problem
        asked = standin.count("renew-self")
        assert 2 <= asked <= 15
        standin.sealed = False
        await asyncio.sleep(100)
        standin.advance(100)
        assert provider.problem == ""
        standin.sealed = True
        await asyncio.sleep(3600)
        standin.advance(3600)
        assert "has ended" in provider.problem
        standin.sealed = False
        await asyncio.sleep(100)
        assert provider.problem == "" and await provider.sign(web_request(), WEB, HOUR)
        await provider.close(remove=True)

    run_virtually(use())
    assert len(standin.tokens) == 2, "expected the first token to be left there, and the second one to be revoked"


def test_credentials_that_vault_repeats_stay_hidden(standin: VaultStandin, vault: Vault) -> None:
    standin.logins["auth/approle/login"] = lambda body: False
    params = {"role_id": "r", "secret_id": "secret-of-approle"}

    async def use() -> None:
        said = await refused(
            virtual(vault, standin, Token="", AuthMethod={"type": "approle", "params": params}), "invalid credentials"
        )
        assert "secret-of-approle" not in said and "<hidden>" in said

    run_virtually(use())


def test_the_state_holds_nothing_secret(standin: VaultStandin, vault: Vault) -> None:
    let_in(standin, ttl=600.0)

    async def use() -> None:
        provider = virtual(vault, standin, Token="", AuthMethod=LOGIN)
        await provider.open()
        state = json.dumps(provider.state)
        assert "pass-of-lictor" not in state and "PRIVATE" not in state
        assert not any(token in state for token in standin.tokens)
        assert json.loads(state)["Mounts"][0] == standin.address
        await provider.close(remove=True)

    run_virtually(use())
