"""The authority's configuration: how it is spelled, what is refused in whose words, and what is never shown."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.ca.configuration import DEFAULTS, Common, canonical, read_common, same_place, shown
from lictor.ca.provider import ProviderError


def test_the_defaults_are_consuls() -> None:
    assert read_common({}) == read_common(dict(DEFAULTS)) == Common()
    assert Common().leaf_life == 72 * 3600 and Common().root_life == 87600 * 3600


def test_files_and_the_api_spell_keys_in_their_own_ways() -> None:
    files = {
        "leaf_cert_ttl": "24h",
        "csr_max_per_second": 7,
        "private_key_type": "ec",
        "root_pki_path": "r/",
        "tls_server_name": "x",
        "ca_file": "f",
    }
    api = {
        "LeafCertTTL": "24h",
        "CSRMaxPerSecond": 7,
        "PrivateKeyType": "ec",
        "RootPKIPath": "r/",
        "TLSServerName": "x",
        "CAFile": "f",
    }
    assert canonical(files) == canonical(api) == dict(sorted(api.items()))


def test_durations_are_texts_or_nanoseconds() -> None:
    for value in ("2h", "7200s", 7200 * 10**9, str(7200 * 10**9)):
        assert read_common({"LeafCertTTL": value}).leaf_life == 7200


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"LeafCertTTL": "10m"}, "leaf cert TTL must be greater or equal than 1h0m0s"),
        ({"LeafCertTTL": "20000h"}, "leaf cert TTL must be less than 8760h0m0s"),
        (
            {"IntermediateCertTTL": "100h"},
            "Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>=216h0m0s).",
        ),
        (
            {"RootCertTTL": "8000h"},
            "root cert TTL is set and is not greater than intermediate cert ttl. root cert ttl: 8000h0m0s,"
            " intermediate cert ttl: 8760h0m0s",
        ),
        (
            {"LeafCertTTL": "bad"},
            "error decoding config: 1 error(s) decoding:\n\n* error decoding 'LeafCertTTL':"
            ' time: invalid duration "bad"',
        ),
        ({"PrivateKeyType": "dsa"}, "private key type must be either 'ec' or 'rsa'"),
        ({"PrivateKeyBits": 7}, "EC key length must be one of (224, 256, 384, 521) bits"),
        ({"PrivateKeyType": "rsa", "PrivateKeyBits": 7}, "RSA key length must be 2048 or 4096 bits"),
    ],
)
def test_mistakes_are_told_in_consuls_words(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ProviderError) as raised:
        read_common(config)
    assert str(raised.value) == words


@pytest.mark.parametrize("value", [[], {}, True, -1, "x", 1 << 80])
@pytest.mark.parametrize("key", ["CSRMaxPerSecond", "CSRMaxConcurrent", "PrivateKeyBits"])
def test_numbers_must_be_numbers(key: str, value: Any) -> None:
    with pytest.raises(ProviderError, match=key):
        read_common({key: value})


def test_lives_may_be_short_where_they_are_not_checked() -> None:
    assert read_common({"LeafCertTTL": "5s", "SkipValidate": True}).leaf_life == 5
    with pytest.raises(ProviderError, match="longer than 0s"):
        read_common({"LeafCertTTL": "-5s", "SkipValidate": True})


def test_a_key_of_rsa_has_2048_bits_where_nothing_is_said() -> None:
    assert read_common({"PrivateKeyType": "rsa"}).key_bits == 2048


def test_secrets_are_not_shown() -> None:
    secret = "TOP-SECRET"
    config = {
        "PrivateKey": secret,
        "Token": secret,
        "AuthMethod": {"Type": "approle", "MountPath": "m", "Params": {"secret_id": secret}},
        "LeafCertTTL": "72h",
    }
    assert shown(config) == {"AuthMethod": {"Type": "approle", "MountPath": "m"}, "LeafCertTTL": "72h"}


def test_the_places_of_two_configurations() -> None:
    one = {"Address": "a", "IntermediatePKIPath": "x", "LeafCertTTL": "24h"}
    assert same_place(one, {**one, "LeafCertTTL": "48h", "RootPKIPath": "r"})
    assert not same_place(one, {**one, "IntermediatePKIPath": "y"})


@given(
    st.dictionaries(
        st.sampled_from(("LeafCertTTL", "RootCertTTL", "IntermediateCertTTL", "PrivateKeyType", "PrivateKeyBits"))
        | st.text(max_size=10),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.lists(st.integers()),
    )
)
def test_whatever_is_given_is_read_or_refused(config: dict[str, Any]) -> None:
    try:
        read_common(canonical(config))
    except ProviderError as error:
        assert str(error)
