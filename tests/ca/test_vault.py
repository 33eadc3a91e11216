"""A CA in Vault: what it makes, finds, signs and renews, against the stand-in and a real server alike."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from lictor.ca.certificates import (
    belongs_to,
    make_key,
    make_request,
    make_root,
    read_certificate,
    signed_by,
    split_chain,
)
from lictor.ca.provider import Authority, ProviderError
from lictor.ca.vault import VaultProvider
from lictor.model.spiffe import SigningId
from tests.ca.kubernetes import signed_token
from tests.ca.vault_standin import ROOT_TOKEN, VaultStandin
from tests.ca.vaults import DOMAIN, HOUR, WEB, Refused, Vault, around, web_request


@pytest.fixture(params=["stand-in", "stand-in of an old version", "real"])
def vault(request: pytest.FixtureRequest) -> Generator[Vault]:
    if request.param == "real":
        running: Vault = request.getfixturevalue("real")
        vault = Vault(running.address, running.token)
        yield vault
        for path in ("root", "leaves", "other", "team"):
            vault.ask("DELETE", f"sys/mounts/{vault.mounts}/{path}")
    else:
        with VaultStandin(several_issuers=request.param == "stand-in") as standin:
            yield Vault(standin.address, ROOT_TOKEN, standin)


@pytest.fixture
async def opened(vault: Vault) -> AsyncGenerator[tuple[VaultProvider, Authority]]:
    provider = vault.provider()
    yield provider, await provider.open()
    await provider.close(remove=True)


def verify(chain: list[str], root: str) -> None:
    """See that a TLS library trusts the first of a chain by the root alone."""
    store = x509.verification.Store([x509.load_pem_x509_certificate(root.encode())])
    leaf, *others = [x509.load_pem_x509_certificate(pem.encode()) for pem in chain]
    ee_policy = x509.verification.ExtensionPolicy.permit_all()
    ca_policy = ee_policy.require_present(x509.BasicConstraints, x509.verification.Criticality.CRITICAL, None)
    builder = x509.verification.PolicyBuilder().store(store)
    builder = builder.extension_policies(ca_policy=ca_policy, ee_policy=ee_policy)
    builder.build_client_verifier().verify(leaf, others)


async def test_mounts_root_role_and_intermediate_are_made_where_there_are_none(
    vault: Vault, opened: tuple[VaultProvider, Authority]
) -> None:
    authority = opened[1]
    root, [intermediate] = read_certificate(authority.root), map(read_certificate, authority.intermediates)
    assert root.self_signed and root.is_authority
    assert root.uris == intermediate.uris == (f"spiffe://{DOMAIN}",)
    assert root.name.startswith("pri-") and root.name.endswith(f".vault.ca.{DOMAIN[:8]}.consul")
    assert signed_by(authority.intermediates[0], authority.root)
    assert (root.key_type, root.key_bits) == (intermediate.key_type, intermediate.key_bits) == ("ec", 256)
    years, year = root.not_after - root.not_before, intermediate.not_after - intermediate.not_before
    assert 87590 * HOUR < years < 87610 * HOUR and 8750 * HOUR < year < 8770 * HOUR
    role = vault.ask("GET", f"{vault.mounts}/leaves/roles/leaf-cert")["data"]
    assert role["key_type"] == "any" and role["no_store"] and not role["require_cn"]


async def test_a_leaf_has_the_id_and_the_key_that_were_asked_for_and_nothing_else(
    opened: tuple[VaultProvider, Authority],
) -> None:
    provider, authority = opened
    for kind, bits in (("ec", 256), ("ec", 384), ("rsa", 2048)):
        key = make_key(kind, bits)
        chain = split_chain(await provider.sign(make_request(key, WEB), WEB, HOUR))
        assert tuple(chain[1:]) == authority.intermediates
        leaf = read_certificate(chain[0])
        assert leaf.uris == (WEB.uri,) and not leaf.is_authority
        names = x509.load_pem_x509_certificate(chain[0].encode()).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        assert len(list(names.value)) == 1
        assert belongs_to(chain[0], key) and signed_by(chain[0], chain[1])
        assert HOUR <= leaf.not_after - leaf.not_before <= HOUR + 120
        verify(chain, authority.root)


async def test_the_next_leader_finds_what_there_is(vault: Vault, opened: tuple[VaultProvider, Authority]) -> None:
    provider, authority = opened
    for state in (provider.state, {}):
        after = vault.provider(msgspec.msgpack.decode(msgspec.msgpack.encode(state)))
        assert await after.open() == authority
        assert await after.renew() == authority
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(after.state)) == after.state
        await after.close(remove=False)


async def test_another_kind_of_key_gives_another_intermediate_under_the_same_root(
    vault: Vault, opened: tuple[VaultProvider, Authority]
) -> None:
    provider, authority = opened
    other = vault.provider(provider.state, PrivateKeyType="rsa", PrivateKeyBits=2048)
    changed = await other.open()
    assert changed.root == authority.root and changed.intermediates != authority.intermediates
    assert read_certificate(changed.intermediates[0]).key_type == "rsa"
    chain = split_chain(await other.sign(web_request(), WEB, HOUR))
    assert chain[1:] == list(changed.intermediates)
    verify(chain, authority.root)
    await other.close(remove=False)


async def test_an_intermediate_with_half_of_its_life_behind_it_is_replaced(
    vault: Vault, opened: tuple[VaultProvider, Authority]
) -> None:
    provider, authority = opened
    ahead = around(clock=lambda: read_certificate(authority.intermediates[0]).not_before + 0.6 * 8760 * HOUR)
    later = VaultProvider(vault.config, provider.state, ahead)
    renewed = await later.open()
    assert renewed.root == authority.root and renewed.intermediates != authority.intermediates
    await later.close(remove=False)
    chain = split_chain(await provider.sign(web_request(), WEB, HOUR))
    assert chain[1:] == list(renewed.intermediates)
    verify(chain, authority.root)


async def test_a_root_that_is_there_is_taken_with_its_chain(vault: Vault) -> None:
    company_key, domain = make_key(), SigningId(DOMAIN)
    vault.ask("POST", f"sys/mounts/{vault.mounts}/root", {"type": "pki", "config": {"max_lease_ttl": "315360000s"}})
    vault.ask("POST", f"sys/mounts/{vault.mounts}/other", {"type": "pki", "config": {"max_lease_ttl": "315360000s"}})
    company = {"common_name": "Company root", "key_type": "ec", "key_bits": 256, "ttl": "300000000s"}
    vault.ask("POST", f"{vault.mounts}/other/root/generate/internal", company)
    wanted = {"common_name": "Mesh", "uri_sans": domain.uri, "key_type": "ec", "key_bits": 256}
    csr = vault.ask("POST", f"{vault.mounts}/root/intermediate/generate/internal", wanted)["data"]["csr"]
    body = {"csr": csr, "use_csr_values": True, "ttl": "200000000s"}
    signed = vault.ask("POST", f"{vault.mounts}/other/root/sign-intermediate", body)["data"]
    provider = vault.provider()
    vault.ask("POST", f"{vault.mounts}/root/intermediate/set-signed", {"certificate": signed["certificate"]})
    with pytest.raises(ProviderError, match="set-signed the whole chain"):
        await provider.open()
    bundle = f"{signed['certificate']}\n{signed['issuing_ca']}"
    vault.ask("POST", f"{vault.mounts}/root/intermediate/set-signed", {"certificate": bundle})
    authority = await provider.open()
    assert read_certificate(authority.root).name == "Company root"
    assert [read_certificate(pem).name for pem in authority.intermediates[1:]] == ["Mesh"]
    chain = split_chain(await provider.sign(web_request(), WEB, HOUR))
    assert chain[1:] == list(authority.intermediates)
    verify(chain, authority.root)
    crossed = split_chain(await provider.cross_sign(make_root(company_key, domain, "other", 9e6, around().clock(), 7)))
    assert signed_by(crossed[0], crossed[1]) and signed_by(crossed[1], authority.root)
    await provider.close(remove=True)


async def test_another_root_path_is_another_root_that_the_former_one_vouches_for(
    vault: Vault, opened: tuple[VaultProvider, Authority]
) -> None:
    provider, authority = opened
    moved = vault.provider(provider.state, RootPKIPath=f"{vault.mounts}/other")
    after = await moved.open()
    assert after.root != authority.root
    cross = await provider.cross_sign(after.root)
    chain = split_chain(await moved.sign(web_request(), WEB, HOUR))
    verify(chain, after.root)
    verify([*chain, cross], authority.root)
    await provider.close(remove=False)
    await moved.close(remove=False)


async def test_a_root_that_the_operator_makes_in_the_same_mount_is_vouched_for(
    vault: Vault, opened: tuple[VaultProvider, Authority]
) -> None:
    provider, authority = opened
    made = {"common_name": "Another", "key_type": "ec", "key_bits": 256, "ttl": "200000000s"}
    try:
        issuer = vault.ask("POST", f"{vault.mounts}/root/root/rotate/internal", made)["data"]["issuer_id"]
        vault.ask("POST", f"{vault.mounts}/root/config/issuers", {"default": issuer})
    except Refused as error:
        assert error.status == 404
        pytest.skip("this version has one issuer in a mount")
    after = await provider.renew()
    assert read_certificate(after.root).name == "Another"
    chain = split_chain(await provider.sign(web_request(), WEB, HOUR))
    verify(chain, after.root)
    verify(chain, authority.root)
    following = vault.provider(provider.state)
    assert await following.open() == after
    await following.close(remove=False)


async def test_another_datacenter_s_authority_is_signed(opened: tuple[VaultProvider, Authority]) -> None:
    provider, authority = opened
    signed = await provider.sign_intermediate(make_request(make_key(), SigningId(DOMAIN)), SigningId(DOMAIN))
    assert signed_by(signed, authority.root) and read_certificate(signed).uris == (f"spiffe://{DOMAIN}",)
    limits = x509.load_pem_x509_certificate(signed.encode()).extensions.get_extension_for_class(x509.BasicConstraints)
    assert limits.value.ca and limits.value.path_length == 0


async def test_only_the_mount_that_the_provider_made_is_taken_away(vault: Vault) -> None:
    provider = vault.provider()
    await provider.open()
    await provider.close(remove=True)
    with pytest.raises(Refused):
        vault.ask("GET", f"{vault.mounts}/leaves/roles/leaf-cert")
    vault.ask("POST", f"sys/mounts/{vault.mounts}/leaves", {"type": "pki"})
    provider = vault.provider()
    await provider.open()
    await provider.close(remove=True)
    assert vault.ask("GET", f"{vault.mounts}/leaves/roles/leaf-cert")["data"]["key_type"] == "any"


async def test_a_mount_with_somebody_else_s_authority_is_left_alone(vault: Vault) -> None:
    vault.ask("POST", f"sys/mounts/{vault.mounts}/leaves", {"type": "pki"})
    theirs = {"common_name": "Payments", "key_type": "ec", "key_bits": 256}
    vault.ask("POST", f"{vault.mounts}/leaves/root/generate/internal", theirs)
    provider = vault.provider()
    with pytest.raises(ProviderError, match="set an IntermediatePKIPath that nothing else uses"):
        await provider.open()
    await provider.close(remove=True)


async def test_a_namespace_for_each_mount(vault: Vault) -> None:
    if vault.standin is None:
        try:
            for name in ("team", "mesh"):
                vault.ask("POST", f"sys/namespaces/{vault.mounts}-{name}", {})
        except Refused as error:
            pytest.skip(f"this Vault has no namespaces: {error}")
    else:
        vault.standin.namespaces |= {f"{vault.mounts}-team", f"{vault.mounts}-mesh"}
    names: dict[str, Any] = {
        "RootPKINamespace": f"{vault.mounts}-team",
        "IntermediatePKINamespace": f"{vault.mounts}-mesh/",
    }
    provider = vault.provider(**names)
    authority = await provider.open()
    verify(split_chain(await provider.sign(web_request(), WEB, HOUR)), authority.root)
    assert vault.ask("GET", f"{vault.mounts}/leaves/roles/leaf-cert", namespace=f"{vault.mounts}-mesh")["data"]
    await provider.close(remove=True)
    provider = vault.provider(Namespace="nowhere", RootPKINamespace="nowhere")
    with pytest.raises(ProviderError, match='has no namespace "nowhere"|refuses the token'):
        await provider.open()
    await provider.close(remove=False)


async def test_logins(vault: Vault, tmp_path: Path) -> None:
    secret, jwt = tmp_path / "secret", tmp_path / "jwt"
    now = int(time.time())
    claims = {"iss": "tests", "sub": "lictor", "aud": "vault", "iat": now, "nbf": now - 60, "exp": now + 3600}
    token, public_pem = signed_token(claims)
    jwt.write_text(token)
    if vault.standin is None:
        for kind in ("approle", "userpass", "jwt"):
            vault.ask("POST", f"sys/auth/{vault.mounts}-{kind}", {"type": kind})
        rights = 'path "*" { capabilities = ["sudo", "create", "read", "update", "delete", "list"] }'
        vault.ask("POST", "sys/policies/acl/everything", {"policy": rights})
        role = f"auth/{vault.mounts}-approle/role/mesh"
        vault.ask("POST", role, {"token_policies": "everything", "token_ttl": "1h"})
        role_id = vault.ask("GET", f"{role}/role-id")["data"]["role_id"]
        secret.write_text(vault.ask("POST", f"{role}/secret-id", {})["data"]["secret_id"] + "\n")
        user = f"auth/{vault.mounts}-userpass/users/lictor"
        vault.ask("POST", user, {"password": "pass-of-lictor", "token_policies": "everything"})
        trusted = {"jwt_validation_pubkeys": [public_pem], "bound_issuer": "tests"}
        vault.ask("POST", f"auth/{vault.mounts}-jwt/config", trusted)
        bound = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"]}
        vault.ask("POST", f"auth/{vault.mounts}-jwt/role/mesh", bound | {"token_policies": "everything"})
    else:
        role_id = "the-role"
        secret.write_text("the-secret\n")
        vault.standin.logins = {
            f"auth/{vault.mounts}-approle/login": {"role_id": "the-role", "secret_id": "the-secret"}.__eq__,
            f"auth/{vault.mounts}-userpass/login/lictor": {"password": "pass-of-lictor"}.__eq__,
            f"auth/{vault.mounts}-jwt/login": {"role": "mesh", "jwt": jwt.read_text()}.__eq__,
        }
    methods: list[dict[str, Any]] = [
        {"type": "approle", "params": {"role_id": role_id, "secret_id": secret.read_text().strip()}},
        {"type": "approle", "params": {"role_id": role_id, "secret_id_file_path": str(secret)}},
        {"type": "jwt", "params": {"role": "mesh", "path": str(jwt)}},
        {"type": "userpass", "params": {"username": "lictor", "password": "pass-of-lictor"}},
    ]
    for method in methods:
        method["mount_path"] = f"{vault.mounts}-{method['type']}"
        provider = vault.provider(Token="", AuthMethod=method)
        authority = await provider.open()
        verify(split_chain(await provider.sign(web_request(), WEB, HOUR)), authority.root)
        await provider.close(remove=False)
    wrong = methods[-1] | {"params": {"username": "lictor", "password": "wrong-one"}}
    provider = vault.provider(Token="", AuthMethod=wrong)
    with pytest.raises(ProviderError, match="does not let us log in .* check AuthMethod") as refused:
        await provider.open()
    assert "wrong-one" not in str(refused.value)
    await provider.close(remove=False)


async def test_the_policies_of_the_manual_are_enough(real: Vault) -> None:
    """A token with the manual's policy makes everything and rotates; one with the shorter one uses what is there."""
    manual = (
        (Path(__file__).parents[2] / "docs" / "ca.md")
        .read_text()
        .partition("**What the token may do.**")[2]
        .partition("```hcl\n")[2]
    )
    rules = manual.partition("```")[0]
    shorter = "".join(line + "\n" for line in rules.splitlines() if "sys/" not in line and "connect_root/*" not in line)
    shorter += 'path "connect_root/root/sign-intermediate" { capabilities = ["create", "update"] }'
    names = {"connect_root": f"{real.mounts}/root", "connect_dc1": f"{real.mounts}/leaves"}

    def token_for(policy: str) -> str:
        for name, path in names.items():
            policy = policy.replace(name, path)
        real.ask("POST", f"sys/policies/acl/{real.mounts}", {"policy": policy})
        made = real.ask("POST", "auth/token/create", {"policies": [real.mounts], "period": "1h"})
        return str(made["auth"]["client_token"])

    try:
        full = real.provider(Token=token_for(rules))
        authority = await full.open()
        await full.cross_sign(authority.root)
        await full.close(remove=False)
        short = real.provider(full.state, Token=token_for(shorter), PrivateKeyType="ec", PrivateKeyBits=384)
        renewed = await short.open()
        assert renewed.root == authority.root and renewed.intermediates != authority.intermediates
        verify(split_chain(await short.sign(web_request(), WEB, HOUR)), authority.root)
        await short.cross_sign(authority.root)
        await short.close(remove=False)
        last = real.provider(full.state, Token=token_for(rules))
        await last.open()
        await last.close(remove=True)
        with pytest.raises(Refused):
            real.ask("GET", f"{real.mounts}/leaves/roles/leaf-cert")
    finally:
        for path in ("root", "leaves"):
            real.ask("DELETE", f"sys/mounts/{real.mounts}/{path}")
