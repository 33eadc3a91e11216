"""A CA in Vault, as a server's configuration has it: a mistake stops the start, and carelessness is told of."""

import pytest

from lictor.agent.first_state import first_authority
from lictor.server.connect_ca_settings import CASettings
from tests.agent.config.conftest import Load, Problems

SERVER = ("-server", "-data-dir=/d")


def hcl(**values: str) -> str:
    """The block with these values beside what is needed."""
    needed = {
        "address": "https://vault.example:8200",
        "token": "s3cret",
        "root_pki_path": "root",
        "intermediate_pki_path": "leaves",
    }
    lines = "".join(f'{key} = "{value}"\n' for key, value in (needed | values).items() if value)
    return f'connect {{ ca_provider = "vault"\n ca_config {{ {lines} }} }}'


def test_it_is_taken_with_a_token_or_a_login(loaded: Load) -> None:
    for text in (
        hcl(),
        hcl(token="").replace(
            "ca_config {", 'ca_config { auth_method { type = "jwt" params { role = "r" jwt = "j" } }'
        ),
        hcl(address="http://127.0.0.1:8200"),
    ):
        config, warnings = loaded(text, argv=SERVER)
        assert config.connect.ca_provider == "vault"
        assert not any("ca_config" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"token": ""}, "must provide a Vault token or configure a Vault auth method"),
        ({"address": ""}, "the Vault CA needs Address"),
        ({"root_pki_path": ""}, "must provide a valid path to a root PKI backend"),
        ({"leaf_cert_ttl": "1s"}, "leaf cert TTL must be greater or equal than 1h"),
    ],
)
def test_a_mistake_stops_a_server(problems: Problems, values: dict[str, str], words: str) -> None:
    [found] = problems(hcl(**values), argv=SERVER)
    assert f"error configuring provider: {words}" in found and "s3cret" not in found


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"address": "http://vault.example:8200"}, "in plain text: use https"),
        ({"tls_skip_verify": "true"}, "use CAFile"),
    ],
)
def test_carelessness_is_told_of(loaded: Load, values: dict[str, str], words: str) -> None:
    _, warnings = loaded(hcl(**values), argv=SERVER)
    [warning] = [warning for warning in warnings if "ca_config" in warning]
    assert words in warning and "s3cret" not in warning


def test_keys_that_no_provider_has_are_told_of(loaded: Load) -> None:
    misspelt = hcl(root_pki_paht="r") + ' node_name = "one"'
    builtin = 'connect { ca_config { PrivateKeyTyp = "ec" } }'
    for text, argv, told in (
        (misspelt, SERVER, 'unknown key "root_pki_paht" (did you mean "root_pki_path"?)'),
        (builtin, ("-data-dir=/d",), 'unknown key "PrivateKeyTyp" (did you mean "PrivateKeyType"?)'),
    ):
        _, warnings = loaded(text, argv=argv)
        assert [warning for warning in warnings if "ca_config" in warning] == [f"connect.ca_config: {told}"]


def test_the_clusters_id_is_no_key_of_the_provider(loaded: Load) -> None:
    def settings(cluster: str) -> tuple[CASettings, list[str]]:
        block = f'connect {{ ca_config {{ leaf_cert_ttl = "24h" cluster_id = "{cluster}" }} }}'
        config, warnings = loaded(block, argv=SERVER)
        return first_authority(config), [warning for warning in warnings if "ca_config" in warning]

    cluster = "11111111-2222-3333-4444-555555555555"
    assert settings(cluster) == (CASettings(config={"leaf_cert_ttl": "24h"}, cluster=cluster), [])
    unset, warnings = settings("mine")
    assert (unset.cluster, warnings) == ("", ["connect.ca_config.cluster_id is ignored: it is no UUID"])
