"""Configuration of the Vault provider: both spellings, and a mistake is named before anything is asked of Vault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lictor.ca.configuration import canonical, shown
from lictor.ca.provider import ProviderError
from lictor.ca.vault_login import login_request
from lictor.ca.vault_settings import AuthMethod, keep_secrets, vault_settings

PLAIN: dict[str, Any] = {
    "Address": "https://vault.example:8200/",
    "Token": "s.very-secret",
    "RootPKIPath": "/connect_root/",
    "IntermediatePKIPath": "connect/inter/",
}


def method(**block: Any) -> AuthMethod:
    """An auth method that a configuration gives."""
    found = vault_settings(PLAIN | {"Token": "", "AuthMethod": block}).auth_method
    assert found is not None
    return found


def test_keys_are_spelled_as_in_the_api_and_as_in_files() -> None:
    api = PLAIN | {
        "RootPKINamespace": "a/b/",
        "IntermediatePKINamespace": "c",
        "Namespace": "d",
        "CAFile": "ca.pem",
        "CAPath": "cas",
        "CertFile": "cert.pem",
        "KeyFile": "key.pem",
        "TLSServerName": "vault",
        "TLSSkipVerify": True,
    }
    files = {
        "address": "https://vault.example:8200/",
        "token": "s.very-secret",
        "root_pki_path": "/connect_root/",
        "intermediate_pki_path": "connect/inter/",
        "root_pki_namespace": "a/b/",
        "intermediate_pki_namespace": "c",
        "namespace": "d",
        "ca_file": "ca.pem",
        "ca_path": "cas",
        "cert_file": "cert.pem",
        "key_file": "key.pem",
        "tls_server_name": "vault",
        "tls_skip_verify": "true",
    }
    found = vault_settings(api)
    assert found == vault_settings(files) == vault_settings(canonical(files))
    assert (found.address, found.root_path, found.intermediate_path) == (
        "https://vault.example:8200",
        "connect_root",
        "connect/inter",
    )
    assert (found.root_namespace, found.intermediate_namespace, found.namespace) == ("a/b", "c", "d")
    assert found.tls_skip_verify and found.tls_server_name == "vault" and found.ca_path == "cas"


def test_an_auth_method_is_a_block_in_any_form() -> None:
    params = {"role_id": "r", "secret_id": "s"}
    wanted = method(Type="approle", MountPath="auth-of-mesh", Params=params)
    assert wanted == method(type="approle", mount_path="/auth-of-mesh/", params=[params])
    block = {"auth_method": [{"type": "approle", "mount_path": "auth-of-mesh", "params": params}]}
    rest = {key: value for key, value in PLAIN.items() if key != "Token"}
    assert vault_settings(canonical(rest | block)).auth_method == wanted
    assert method(type="approle", params=params).mount_path == "approle"


def test_secrets_are_not_in_what_is_printed() -> None:
    found = vault_settings(PLAIN)
    assert "very-secret" not in repr(found) and found.token.reveal() == "s.very-secret"
    assert "hush" not in repr(method(type="userpass", params={"username": "u", "password": "hush"}))


def test_who_writes_back_what_was_read_keeps_the_secrets() -> None:
    assert shown(canonical(PLAIN)) == {key: value for key, value in PLAIN.items() if key != "Token"}
    assert keep_secrets(shown(PLAIN) | {"LeafCertTTL": "24h"}, PLAIN) == PLAIN | {"LeafCertTTL": "24h"}
    method = {"Type": "userpass", "MountPath": "m", "Params": {"username": "u", "password": "hush"}}
    former = canonical({key: value for key, value in PLAIN.items() if key != "Token"} | {"auth_method": [method]})
    assert "hush" not in str(shown(former))
    assert vault_settings(keep_secrets(shown(former), former)) == vault_settings(former)
    assert keep_secrets(shown(former) | {"Token": "s.new"}, former).get("Token") == "s.new"


@pytest.mark.parametrize(
    "given",
    [
        {"Address": "https://elsewhere.example"},
        {"Namespace": "other"},
        {"AuthMethod": {"Type": "approle", "MountPath": "m"}},
        {"AuthMethod": {"Type": "userpass", "MountPath": "other"}},
    ],
    ids=str,
)
def test_secrets_go_nowhere_else_than_before(given: dict[str, Any]) -> None:
    method = {"Type": "userpass", "MountPath": "m", "Params": {"username": "u", "password": "hush"}}
    for former in (PLAIN, {key: value for key, value in PLAIN.items() if key != "Token"} | {"AuthMethod": method}):
        kept = keep_secrets(shown(former) | given, former)
        assert "secret" not in str(kept) and "hush" not in str(kept)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"Address": ""}, "needs Address, such as https://"),
    ({"Address": "vault.example:8200"}, "needs Address, such as https://"),
    ({"Address": "ftp://vault"}, 'not "ftp://vault"'),
    ({"Address": "https://user:word@vault"}, "must not hold a user or password"),
    ({"Address": 8200}, "Address of the Vault CA must be a text"),
    ({"Token": ""}, "must provide a Vault token or configure a Vault auth method"),
    ({"AuthMethod": {"Type": "userpass", "Params": {"username": "u", "password": "p"}}}, "but not both"),
    ({"RootPKIPath": ""}, "must provide a valid path to a root PKI backend"),
    ({"IntermediatePKIPath": "/"}, "must provide a valid path for the intermediate PKI backend"),
    ({"IntermediatePKIPath": "connect_root"}, "each needs a mount of its own"),
    ({"RootPKIPath": "a/../sys"}, 'RootPKIPath of the Vault CA is no path: "a/../sys"'),
    ({"RootPKIPath": "a//b"}, "is no path"),
    ({"RootPKIPath": "a?b"}, "a character that a path of Vault cannot have"),
    ({"Namespace": "a b"}, "a character that a path of Vault cannot have"),
    ({"CertFile": "cert.pem"}, "CertFile and KeyFile of the Vault CA go together"),
    ({"TLSSkipVerify": "perhaps"}, "TLSSkipVerify of the Vault CA must be true or false"),
    ({"Token": "", "AuthMethod": {"Type": "ldap"}}, "can be one of approle, jwt, kubernetes, userpass"),
    ({"Token": "", "AuthMethod": {"Type": "token"}}, "'token' auth method is not supported"),
    ({"Token": "", "AuthMethod": "approle"}, "must be a block"),
    ({"Token": "", "AuthMethod": {"Type": "approle"}}, "approle needs role_id or role_id_file_path"),
    ({"Token": "", "AuthMethod": {"Type": "jwt", "Params": {"role": "r"}}}, "jwt needs jwt or path"),
    ({"Token": "", "AuthMethod": {"Type": "kubernetes"}}, "kubernetes needs role"),
    ({"Token": "", "AuthMethod": {"Type": "userpass", "Params": ["u"]}}, "Params .* must be a block"),
    ({"Token": "", "AuthMethod": {"Type": "userpass", "Params": {"username": ["u"]}}}, "must be a text"),
]


@pytest.mark.parametrize(("given", "words"), WRONG, ids=[f"{words}-{list(given)[-1]}" for given, words in WRONG])
def test_a_mistake_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ProviderError, match=words) as refused:
        vault_settings(PLAIN | given)
    assert "secret" not in str(refused.value) and "word@" not in str(refused.value)


def test_what_each_login_sends(tmp_path: Path) -> None:
    (tmp_path / "role").write_text("the role\n")
    (tmp_path / "secret").write_text("  the secret \n")
    (tmp_path / "jwt").write_text("a.b.c")
    role, secret, jwt = (str(tmp_path / name) for name in ("role", "secret", "jwt"))
    sent = login_request(method(type="approle", params={"role_id": "r"}))
    assert (sent.path, sent.body, sent.secrets) == ("auth/approle/login", {"role_id": "r"}, ())
    sent = login_request(method(type="approle", params={"role_id_file_path": role, "secret_id_file_path": secret}))
    assert sent.body == {"role_id": "the role", "secret_id": "the secret"} and sent.secrets == ("the secret",)
    assert login_request(method(type="approle", params={"role_id": "r", "secret_id_file": secret})).body == {
        "role_id": "r",
        "secret_id": "the secret",
    }
    for kind, names in (("jwt", ("jwt", "path")), ("kubernetes", ("jwt", "token_path"))):
        for name, value in zip(names, ("a.b.c", jwt), strict=True):
            sent = login_request(method(type=kind, mount_path="m", params={"role": "mesh", name: value}))
            assert (sent.path, sent.body, sent.secrets) == (
                "auth/m/login",
                {"role": "mesh", "jwt": "a.b.c"},
                ("a.b.c",),
            )
    sent = login_request(method(type="userpass", params={"username": "u", "password_file_path": secret}))
    assert (sent.path, sent.body) == ("auth/userpass/login/u", {"password": "the secret"})


def test_a_file_that_a_login_needs_and_cannot_have_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_bytes(b"a" * 100_000)
    for name, words in (
        ("none", "cannot be read: no such file"),
        ("empty", "is empty"),
        ("binary", "is no text"),
        ("long", "is too long"),
        (".", "cannot be read: is a directory"),
    ):
        with pytest.raises(ProviderError, match=f"the login to Vault needs .*{words}"):
            login_request(method(type="jwt", params={"role": "r", "path": str(tmp_path / name)}))
    with pytest.raises(ProviderError, match="needs /var/run/secrets/kubernetes.io/serviceaccount/token"):
        login_request(method(type="kubernetes", params={"role": "r"}))
    with pytest.raises(ProviderError, match="username .* has a character"):
        login_request(method(type="userpass", params={"username": "../../sys/seal", "password": "p"}))
