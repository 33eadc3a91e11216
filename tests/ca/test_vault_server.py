"""A real Vault, in what a stand-in would only repeat: who it lets in, how long, what it tidies, how it is sealed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lictor.ca import vault_pki
from lictor.ca.certificates import read_certificate, split_chain
from lictor.ca.provider import ProviderError, ProviderUnavailable
from lictor.ca.vault import VaultProvider
from lictor.ca.vault_client import VaultClient
from lictor.ca.vault_intermediate import VaultIntermediate
from lictor.ca.vault_pki import PkiMount
from lictor.ca.vault_settings import vault_settings
from lictor.model.spiffe import SigningId
from tests.agent.checks.virtual_time import run_virtually
from tests.ca.kubernetes import ACCOUNT, AUDIENCE, NAMESPACE, Kubernetes, account_token
from tests.ca.test_vault import verify
from tests.ca.test_vault_intermediate import Primary
from tests.ca.vaults import DOMAIN, HOUR, WEB, Refused, Vault, around, at_once, web_request
from tests.patience import Waiting, soon

EVERYTHING = 'path "*" { capabilities = ["sudo", "create", "read", "update", "delete", "list"] }'


@pytest.fixture
def vault(real: Vault) -> Generator[Vault]:
    vault = Vault(real.address, real.token, unseal_key=real.unseal_key)
    vault.ask("POST", "sys/policies/acl/everything", {"policy": EVERYTHING})
    yield vault
    for path in ("root", "leaves"):
        vault.ask("DELETE", f"sys/mounts/{vault.mounts}/{path}")


def of_our_own(vault: Vault) -> None:
    """Skip with a Vault that somebody else runs."""
    if not vault.unseal_key:
        pytest.skip("needs a Vault that the test starts itself: `bao` or `vault` on PATH, and no VAULT_ADDR")


async def signs(provider: VaultProvider) -> None:
    """See that it signs leaves."""
    authority = await provider.open()
    verify(split_chain(await provider.sign(web_request(), WEB, HOUR)), authority.root)


async def test_a_pod_logs_in_with_its_service_account(
    vault: Vault, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Vault asks Kubernetes at each login, and the token, which is good for a moment only, is replaced by the next."""
    of_our_own(vault)
    caplog.set_level(logging.DEBUG)
    path, jwt = f"{vault.mounts}-kubernetes", tmp_path / "token"
    with Kubernetes(tmp_path / "ca") as kubernetes:
        vault.ask("POST", f"sys/auth/{path}", {"type": "kubernetes"})
        asked = {"kubernetes_host": kubernetes.address, "kubernetes_ca_cert": kubernetes.authority}
        asked |= {"token_reviewer_jwt": kubernetes.reviewer}
        vault.ask("POST", f"auth/{path}/config", asked)
        role: dict[str, Any] = {
            "bound_service_account_names": [ACCOUNT["name"]],
            "bound_service_account_namespaces": [NAMESPACE],
            "audience": AUDIENCE,
            "token_policies": "everything",
            "token_ttl": "2s",
            "token_max_ttl": "2s",
        }
        vault.ask("POST", f"auth/{path}/role/lictor", role)
        first = account_token()
        jwt.write_text(first + "\n")
        method = {"type": "kubernetes", "mount_path": path, "params": {"role": "lictor", "token_path": str(jwt)}}
        provider = vault.provider(Token="", AuthMethod=method)
        with pytest.raises(ProviderError, match="does not let us log in .* check AuthMethod"):
            await provider.open()
        assert kubernetes.reviewed == [(first, False)]
        kubernetes.good = {first}
        await signs(provider)
        second = account_token()
        jwt.write_text(second + "\n")
        kubernetes.good = {second}
        await soon(lambda: (second, True) in kubernetes.reviewed, "a login with what the file holds now")
        await signs(provider)
        for wrong in ({"role": "another"}, {"role": "lictor", "jwt": "a.b.c"}):
            refused = vault.provider(Token="", AuthMethod=method | {"params": wrong | {"token_path": str(jwt)}})
            with pytest.raises(ProviderError, match="does not let us log in"):
                await refused.open()
            await refused.close(remove=False)
        await provider.close(remove=True)
    assert first not in caplog.text and second not in caplog.text


def token_for(vault: Vault, **wanted: Any) -> str:
    """A token that may do everything."""
    made = vault.ask("POST", "auth/token/create", {"policies": ["everything"], **wanted})
    return str(made["auth"]["client_token"])


def approle(vault: Vault, **wanted: Any) -> dict[str, Any]:
    """A role, and how to log in with it."""
    path = f"{vault.mounts}-approle"
    vault.ask("POST", f"sys/auth/{path}", {"type": "approle"})
    role = f"auth/{path}/role/mesh"
    vault.ask("POST", role, {"token_policies": "everything", **wanted})
    role_id = vault.ask("GET", f"{role}/role-id")["data"]["role_id"]
    secret_id = vault.ask("POST", f"{role}/secret-id", {})["data"]["secret_id"]
    return {"type": "approle", "mount_path": path, "params": {"role_id": role_id, "secret_id": secret_id}}


def test_a_periodic_token_is_renewed_at_half_of_its_life(vault: Vault) -> None:
    token = token_for(vault, period="1h")

    def looked_up() -> dict[str, Any]:
        found: dict[str, Any] = vault.ask("POST", "auth/token/lookup", {"token": token})["data"]
        return found

    async def use() -> None:
        provider = VaultProvider(vault.config | {"Token": token}, {}, around(work=at_once))
        await provider.open()
        await asyncio.sleep(0.4 * HOUR)
        assert "last_renewal_time" not in looked_up(), "expected it to be left alone before half of its life"
        await asyncio.sleep(0.2 * HOUR)
        assert looked_up()["last_renewal_time"] > 0
        await asyncio.sleep(5 * HOUR)
        assert provider.problem == ""
        await provider.close(remove=True)

    run_virtually(use())
    assert looked_up()["period"] == 3600, "expected the configuration's token to be left as it is"


def test_a_token_that_vault_prolongs_no_more_is_told_of(vault: Vault) -> None:
    token = token_for(vault, ttl="1h", explicit_max_ttl="1h", renewable=False)

    async def use() -> None:
        provider = VaultProvider(vault.config | {"Token": token}, {}, around(work=at_once))
        await provider.open()
        await asyncio.sleep(0.6 * HOUR)
        assert "is not prolonged (it is not renewable): set another Token" in provider.problem
        vault.ask("POST", "auth/token/revoke", {"token": token})
        with pytest.raises(ProviderError, match="refuses the token: it has ended, was revoked"):
            await provider.sign(web_request(), WEB, HOUR)
        await provider.close(remove=False)

    run_virtually(use())


@pytest.mark.parametrize("kind", ["service", "batch"])
def test_a_login_s_token_is_renewed_or_replaced(vault: Vault, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A batch token can be neither renewed nor revoked."""
    caplog.set_level(logging.INFO, "lictor.ca.vault")
    method = approle(vault, token_type=kind, token_ttl="1h")

    async def use() -> None:
        provider = VaultProvider(vault.config | {"Token": "", "AuthMethod": method}, {}, around(work=at_once))
        for _ in range(8):
            await signs(provider)
            await asyncio.sleep(0.3 * HOUR)
        assert provider.problem == ""
        await provider.close(remove=True)

    run_virtually(use())
    logins = sum("logged in to Vault" in record.getMessage() for record in caplog.records)
    assert logins == 1 if kind == "service" else 3 <= logins <= 5


async def test_a_namespace_has_its_own_logins_and_mounts(vault: Vault) -> None:
    team = f"{vault.mounts}-team"
    try:
        vault.ask("POST", f"sys/namespaces/{team}", {})
    except Refused as error:
        pytest.skip(f"this Vault has no namespaces: {error}")
    vault.ask("POST", "sys/auth/userpass", {"type": "userpass"}, team)
    vault.ask("POST", "sys/policies/acl/everything", {"policy": EVERYTHING}, team)
    user = {"password": "pass-of-lictor", "token_policies": "everything"}
    vault.ask("POST", "auth/userpass/users/lictor", user, team)
    method = {"type": "userpass", "params": {"username": "lictor", "password": "pass-of-lictor"}}
    provider = vault.provider(Token="", AuthMethod=method, Namespace=f"/{team}/")
    await signs(provider)
    assert vault.ask("GET", f"{vault.mounts}/leaves/roles/leaf-cert", namespace=team)["data"]
    with pytest.raises(Refused):
        vault.ask("GET", f"{vault.mounts}/leaves/roles/leaf-cert")
    elsewhere = vault.provider(Token="", AuthMethod=method)
    with pytest.raises(ProviderError, match="does not let us log in"):
        await elsewhere.open()
    await elsewhere.close(remove=False)
    await provider.close(remove=True)
    vault.ask("DELETE", f"sys/mounts/{vault.mounts}/root", namespace=team)
    vault.ask("DELETE", f"sys/namespaces/{team}")


async def test_issuers_that_have_ended_are_tidied_away(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = vault.provider()
    await provider.open()
    mount = f"{vault.mounts}/leaves"

    def status() -> dict[str, Any]:
        found: dict[str, Any] = vault.ask("GET", f"{mount}/tidy-status")["data"]
        return found

    finished = await soon(lambda: status()["state"] == "Finished" and status(), "the first intermediate's tidying")
    assert finished["tidy_cert_store"] and finished["tidy_expired_issuers"]
    assert (finished["safety_buffer"], finished["issuer_safety_buffer"]) == (72 * 3600, 72 * 3600)
    ended = {"common_name": "Ended", "key_type": "ec", "key_bits": 256, "ttl": "1s"}
    issuer = vault.ask("POST", f"{mount}/root/generate/internal", ended)["data"]["issuer_id"]
    monkeypatch.setattr(vault_pki, "_TIDY_BUFFER", "1s")

    client = VaultClient(vault_settings(vault.config), asyncio.to_thread)

    async def is_gone() -> bool:
        await PkiMount(client, mount, "").tidy()
        await soon(lambda: status()["state"] == "Finished", "the tidying")
        return issuer not in vault.ask("GET", f"{mount}/issuers?list=true")["data"]["keys"]

    waiting = Waiting()
    while not await is_gone():
        pause = waiting.pause()
        assert pause is not None, "expected the issuer that has ended to be gone"
        await asyncio.sleep(pause)
    await client.close()
    await signs(provider)
    await provider.close(remove=True)


async def test_a_vault_that_is_sealed_and_unsealed_goes_on(vault: Vault) -> None:
    of_our_own(vault)
    provider = vault.provider()
    await signs(provider)
    vault.ask("PUT", "sys/seal")
    try:
        for attempt in (provider.renew, lambda: provider.sign(web_request(), WEB, HOUR)):
            with pytest.raises(ProviderUnavailable, match="is sealed: unseal it with `vault operator unseal`"):
                await attempt()
        late = vault.provider()
        with pytest.raises(ProviderUnavailable, match="is sealed"):
            await late.open()
        await late.close(remove=False)
    finally:
        vault.ask("PUT", "sys/unseal", {"key": vault.unseal_key})
        await soon(vault.is_up, "Vault is unsealed")
    await signs(provider)
    await provider.close(remove=True)


async def test_another_datacenter_needs_the_rules_of_its_own_mount_alone(vault: Vault) -> None:
    """Its intermediate is signed by the primary's root mount, which has a company's root above it."""
    manual = (Path(__file__).parents[2] / "docs" / "ca.md").read_text().partition("**What the token may do.**")[2]
    rules = [line for line in manual.partition("```hcl\n")[2].partition("```")[0].splitlines() if "connect_dc1" in line]
    policy = "\n".join(rules).replace("connect_dc1", f"{vault.mounts}/second")
    assert len(rules) == 3 and "root" not in policy.replace(vault.mounts, "")
    vault.ask("POST", f"sys/policies/acl/{vault.mounts}", {"policy": policy})
    made = vault.ask("POST", "auth/token/create", {"policies": [vault.mounts], "period": "1h"})
    for path in ("company", "root"):
        vault.ask("POST", f"sys/mounts/{vault.mounts}/{path}", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
    company = {"common_name": "Company root", "key_type": "ec", "key_bits": 256, "ttl": "87000h"}
    vault.ask("POST", f"{vault.mounts}/company/root/generate/internal", company)
    wanted = {"common_name": "Mesh", "uri_sans": SigningId(DOMAIN).uri, "key_type": "ec", "key_bits": 256}
    csr = vault.ask("POST", f"{vault.mounts}/root/intermediate/generate/internal", wanted)["data"]["csr"]
    body = {"csr": csr, "use_csr_values": True, "ttl": "80000h"}
    signed = vault.ask("POST", f"{vault.mounts}/company/root/sign-intermediate", body)["data"]
    bundle = {"certificate": f"{signed['certificate']}\n{signed['issuing_ca']}"}
    vault.ask("POST", f"{vault.mounts}/root/intermediate/set-signed", bundle)
    first = vault.provider()
    primary = await Primary(first).open()
    assert read_certificate(primary.root).name == "Company root"
    own = {
        "Token": made["auth"]["client_token"],
        "RootPKIPath": "unused",
        "IntermediatePKIPath": f"{vault.mounts}/second",
    }
    surroundings = msgspec.structs.replace(around(), datacenter="dc2", above=primary)
    second = VaultIntermediate(vault.config | own, {}, surroundings, primary)
    authority = await second.open()
    leaf = split_chain(await second.sign(web_request(), WEB, HOUR))
    assert leaf[1:] == list(authority.intermediates) and len(leaf) == 3
    verify(leaf, primary.root)
    bits = VaultIntermediate(vault.config | own | {"PrivateKeyBits": 384}, second.state, surroundings, primary)
    assert (await bits.open()).intermediates[0] != authority.intermediates[0], "expected another key, and it signed"
    await bits.close(remove=True)
    with pytest.raises(Refused):
        vault.ask("GET", f"{vault.mounts}/second/roles/leaf-cert")
    await second.close(remove=False)
    await first.close(remove=True)
    vault.ask("DELETE", f"sys/mounts/{vault.mounts}/company")
