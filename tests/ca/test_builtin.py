"""The built-in provider: which root it finds or makes, and what it keeps."""

import asyncio
from typing import Any

import pytest

from lictor.ca import certificates
from lictor.ca.provider import Authority, ProviderError
from lictor.model.spiffe import SigningId
from tests.ca.authorities import DAY, DOMAIN, NOW, WEB, builtin, make_root, openssl_is_there, verifies


def opened(config: dict[str, Any], state: dict[str, Any] | None = None) -> tuple[Authority, dict[str, Any]]:
    """The authority, and the state after it was opened."""
    provider = builtin(config, state)
    return asyncio.run(provider.open()), provider.state


def test_it_makes_a_root_and_finds_it_again() -> None:
    first, state = opened({})
    again, same = opened({"LeafCertTTL": "24h"}, state)
    assert again == first and same == state
    assert certificates.belongs_to(first.root, state["PrivateKey"])
    found = certificates.read_certificate(first.root)
    assert found.not_after == NOW + 3650 * DAY and found.uris == (f"spiffe://{DOMAIN}",)


def test_another_kind_of_key_means_another_root() -> None:
    first, state = opened({})
    other, _ = opened({"PrivateKeyType": "ec", "PrivateKeyBits": 384}, state)
    assert other != first
    assert certificates.read_certificate(other.root).key_bits == 384
    same, _ = opened({"PrivateKeyType": "ec", "PrivateKeyBits": 256}, state)
    assert same == first


def test_a_given_key_gets_a_root_and_keeps_it() -> None:
    _, state = opened({})
    key = certificates.make_key()
    mine, kept = opened({"PrivateKey": key}, state)
    assert certificates.belongs_to(mine.root, key)
    assert opened({"PrivateKey": key}, kept)[0] == mine
    assert opened({}, kept)[0] == mine


def test_a_given_root_is_taken_and_its_key_need_not_be_given_again() -> None:
    _, state = opened({})
    root, key = make_root()
    mine, kept = opened({"PrivateKey": key, "RootCert": root}, state)
    assert mine.root == root
    assert opened({"RootCert": root}, kept)[0] == mine
    assert opened({}, kept)[0] != mine


def test_roots_that_cannot_be_used() -> None:
    root, key = make_root()
    other = certificates.make_key()
    leaf_key = certificates.make_key()
    leaf = certificates.sign_leaf(root, key, certificates.make_request(leaf_key, WEB), WEB, DAY, NOW, 3)
    old = make_root(now=NOW - 10 * DAY, seconds=DAY)
    between_key = certificates.make_key()
    request = certificates.make_request(between_key, SigningId(DOMAIN))
    between = certificates.sign_intermediate(root, key, request, SigningId(DOMAIN), "x", DAY, NOW, 4)
    for given, what in (
        ({"RootCert": root}, "needs its PrivateKey"),
        ({"RootCert": root, "PrivateKey": other}, "not the certificate of PrivateKey"),
        ({"RootCert": leaf, "PrivateKey": leaf_key}, "must be a certificate authority"),
        ({"RootCert": between, "PrivateKey": between_key}, "signs itself"),
        ({"RootCert": old.root, "PrivateKey": old.key}, "not valid at this time"),
        ({"RootCert": root + root, "PrivateKey": key}, "one certificate"),
        ({"RootCert": "x", "PrivateKey": key}, "one certificate"),
        ({"RootCert": root, "PrivateKey": "x"}, "private key"),
        ({"PrivateKey": 7}, "expected a text"),
    ):
        with pytest.raises(ProviderError, match=what) as raised:
            opened(given)
        assert key not in str(raised.value)


@pytest.mark.skipif(not openssl_is_there, reason="openssl is not on PATH")
def test_what_it_signs_is_trusted() -> None:
    async def scenario() -> None:
        provider, other = builtin({}), builtin({"PrivateKeyType": "rsa"})
        authority, new = await provider.open(), await other.open()
        request = certificates.make_request(certificates.make_key(), WEB)
        assert verifies(await provider.sign(request, WEB, DAY), [authority.root])
        crossed = await provider.cross_sign(new.root)
        assert verifies(await other.sign(request, WEB, DAY), [authority.root], [crossed])
        key = certificates.make_key()
        between = await provider.sign_intermediate(certificates.make_request(key, SigningId(DOMAIN)), SigningId(DOMAIN))
        leaf = certificates.sign_leaf(between, key, request, WEB, DAY, NOW, 5)
        assert verifies(leaf, [authority.root], [between])
        assert await provider.renew() == authority

    asyncio.run(scenario())


def test_nothing_is_signed_before_it_is_open() -> None:
    with pytest.raises(ProviderError, match="not open"):
        asyncio.run(builtin({}).sign(certificates.make_request(certificates.make_key(), WEB), WEB, DAY))


def test_serial_numbers_differ() -> None:
    async def scenario() -> set[int]:
        provider = builtin({})
        await provider.open()
        request = certificates.make_request(certificates.make_key(), WEB)
        return {certificates.read_certificate(await provider.sign(request, WEB, DAY)).serial for _ in range(50)}

    assert len(asyncio.run(scenario())) == 50
