"""Certificates: what they say, who signs them, and what is refused, whatever it is."""

import base64
import datetime
import hashlib
import random
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.ca import certificates
from lictor.ca.certificates import BadCertificate
from lictor.model.spiffe import AgentId, GatewayId, ServerId, ServiceId, SigningId
from tests.ca.authorities import DAY, DOMAIN, NOW, WEB, make_leaf, make_root, openssl_is_there, verifies

needs_openssl = pytest.mark.skipif(not openssl_is_there, reason="openssl is not on PATH")
KINDS = [("ec", 224), ("ec", 256), ("ec", 384), ("ec", 521), ("rsa", 2048)]


def load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def test_a_root_says_what_consuls_does() -> None:
    root, key = make_root()
    found, raw = certificates.read_certificate(root), load(root)
    public = raw.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert found.signing_key_id == found.authority_key_id == hashlib.sha256(public).digest().hex(":")
    assert found.id == hashlib.sha1(raw.public_bytes(Encoding.DER)).digest().hex(":")
    assert found.uris == (f"spiffe://{DOMAIN}",)
    assert found.is_authority and found.self_signed
    assert (found.key_type, found.key_bits) == ("ec", 256)
    assert found.name.startswith("pri-") and found.name.endswith(f".consul.ca.{DOMAIN[:8]}.consul")
    usage = raw.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign and usage.value.crl_sign and usage.value.digital_signature
    assert certificates.key_id(key) == found.signing_key_id


def test_a_leaf_says_what_consuls_does() -> None:
    root = make_root()
    leaf = make_leaf(root)
    found, raw = certificates.read_certificate(leaf), load(leaf)
    assert found.uris == (f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web",)
    assert found.name == f"web.svc.default.{DOMAIN[:8]}.consul"
    assert not found.is_authority and not found.self_signed
    assert found.authority_key_id == certificates.read_certificate(root.root).signing_key_id
    uses = raw.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not raw.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert (found.not_before, found.not_after) == (NOW - certificates.LEEWAY, NOW + 3 * DAY)
    assert certificates.signed_by(leaf, root.root)
    assert not certificates.signed_by(leaf, make_root().root)


def test_a_serial_number_is_written_in_pairs_of_digits() -> None:
    root, key = make_root()
    request = certificates.make_request(certificates.make_key(), WEB)
    for serial, text in ((8, "08"), (0x0A0B, "0a:0b"), ((1 << 63) - 1, "7f:ff:ff:ff:ff:ff:ff:ff")):
        leaf = certificates.sign_leaf(root, key, request, WEB, DAY, NOW, serial)
        assert certificates.read_certificate(leaf).serial_number == text


def test_a_leaf_does_not_outlive_its_root() -> None:
    root = make_root(seconds=DAY)
    assert certificates.read_certificate(make_leaf(root, seconds=30 * DAY)).not_after == NOW + DAY


def test_a_root_that_may_sign_no_authority_vouches_for_none() -> None:
    name, key = x509.Name([]), ec.generate_private_key(ec.SECP256R1())
    start = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(5).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=9))
    narrow = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    root = narrow.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(BadCertificate, match="path length is 0"):
        certificates.cross_sign(root, text, make_root().root, NOW, 7)


def test_an_authority_that_has_ended_signs_nothing() -> None:
    old, new = make_root(seconds=DAY), make_root()
    request, later = certificates.make_request(certificates.make_key(), WEB), NOW + DAY
    with pytest.raises(BadCertificate, match="has ended"):
        certificates.sign_leaf(old.root, old.key, request, WEB, DAY, later, 5)
    with pytest.raises(BadCertificate, match="has ended"):
        certificates.sign_intermediate(old.root, old.key, request, WEB, "x", DAY, later, 5)
    with pytest.raises(BadCertificate, match="has ended"):
        certificates.cross_sign(old.root, old.key, new.root, later, 5)


def test_a_life_past_all_dates_ends_with_them() -> None:
    assert certificates.read_certificate(make_root(seconds=1e15).root).not_after == certificates.LATEST


@needs_openssl
@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_openssl_trusts_leaves_of_roots_of_every_kind(kind: str, bits: int) -> None:
    root = make_root(kind, bits)
    leaf = make_leaf(root)
    assert verifies(leaf, [root.root])
    assert not verifies(leaf, [make_root(kind, bits).root])
    assert not verifies(leaf, [root.root], at=NOW + 4 * DAY)
    assert not verifies(leaf, [root.root], at=NOW - 2 * certificates.LEEWAY)


@needs_openssl
@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_openssl_trusts_a_new_roots_leaves_by_the_former_root(kind: str, bits: int) -> None:
    former, new = make_root(), make_root(kind, bits)
    crossed = certificates.cross_sign(former.root, former.key, new.root, NOW, 77)
    leaf = make_leaf(new)
    assert verifies(leaf, [former.root], [crossed])
    assert verifies(leaf, [new.root], [crossed])
    assert verifies(leaf, [new.root])
    assert not verifies(leaf, [former.root])
    assert verifies(make_leaf(former), [former.root, new.root])


@needs_openssl
def test_openssl_trusts_through_several_rotations() -> None:
    roots = [make_root() for _ in range(4)]
    pairs = zip(roots, roots[1:], strict=False)
    crosses = [certificates.cross_sign(old.root, old.key, new.root, NOW, 9) for old, new in pairs]
    leaf = make_leaf(roots[-1])
    for root in roots:
        assert verifies(leaf, [root.root], crosses[::-1])


@needs_openssl
def test_openssl_trusts_another_datacenters_authority_to_sign_leaves_and_no_authority() -> None:
    root, key = make_root(), certificates.make_key()
    request = certificates.make_request(key, SigningId(DOMAIN))
    name = certificates.authority_name("sec", "1", DOMAIN)
    between = certificates.sign_intermediate(root.root, root.key, request, SigningId(DOMAIN), name, 30 * DAY, NOW, 5)
    leaf_request = certificates.make_request(certificates.make_key(), WEB)
    leaf = certificates.sign_leaf(between, key, leaf_request, WEB, DAY, NOW, 6)
    assert verifies(leaf, [root.root], [between])
    other = certificates.make_key()
    below = certificates.sign_intermediate(
        between, key, certificates.make_request(other, SigningId(DOMAIN)), SigningId(DOMAIN), "x", DAY, NOW, 7
    )
    assert not verifies(
        certificates.sign_leaf(below, other, leaf_request, WEB, DAY, NOW, 8), [root.root], [between, below]
    )


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (ServiceId(DOMAIN, "dc1", "Web_1"), "web1.svc.default.11111111.consul"),
        (AgentId(DOMAIN, "dc1", "n1"), "n1.agnt.dc1.11111111.consul"),
        (ServerId(DOMAIN, "dc1"), "server.dc1.11111111.consul"),
        (GatewayId(DOMAIN, "dc1"), "mgw.dc1.11111111.consul"),
        (SigningId(DOMAIN), "11111111.consul"),
    ],
)
def test_names_beside_the_ids(identity: ServiceId, name: str) -> None:
    assert certificates.common_name(identity) == name


@given(st.text(min_size=1, max_size=200))
@settings(deadline=None, max_examples=60)
def test_any_name_of_a_service_can_be_asked_for_and_comes_back(name: str) -> None:
    identity = ServiceId(DOMAIN, "dc1", name)
    try:
        request = certificates.make_request(KEY, identity)
    except (BadCertificate, UnicodeEncodeError):
        return
    assert certificates.read_request(request).identity == identity
    leaf = certificates.sign_leaf(ROOT.root, ROOT.key, request, identity, DAY, NOW, 5)
    assert certificates.read_certificate(leaf).uris == (identity.uri,)
    assert len(certificates.read_certificate(leaf).name) <= 64


KEY = certificates.make_key()
ROOT = make_root()
REQUEST = certificates.make_request(KEY, WEB)


def request_of(key: object, *names: x509.GeneralName) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()  # type: ignore[arg-type]


URI = x509.UniformResourceIdentifier(WEB.uri)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ((), "one URI"),
        ((URI, URI), "one URI"),
        ((URI, x509.DNSName("bank.example")), "no other alternative name"),
        ((x509.DNSName("web"),), "one URI"),
        ((x509.UniformResourceIdentifier("https://example.com/"),), "names nobody"),
        ((x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/ns/default/dc/dc1"),), "names nobody"),
    ],
)
def test_a_request_names_one_identity_and_nothing_else(names: tuple[x509.GeneralName, ...], what: str) -> None:
    with pytest.raises(BadCertificate, match=what):
        certificates.read_request(request_of(ec.generate_private_key(ec.SECP256R1()), *names))


def test_weak_and_odd_keys_are_refused() -> None:
    for key, what in (
        (rsa.generate_private_key(65537, 1024), "RSA key has 2048"),
        (ec.generate_private_key(ec.SECP192R1()), "curve"),
        (ec.generate_private_key(ec.SECP256K1()), "curve"),
        (ed25519.Ed25519PrivateKey.generate(), "neither"),
    ):
        with pytest.raises(BadCertificate, match=what):
            certificates.read_request(request_of(key, URI))


def test_a_request_must_prove_that_its_sender_has_the_key() -> None:
    der = bytearray(base64.b64decode("".join(REQUEST.splitlines()[1:-1])))
    der[-3] ^= 1  # in the signature
    text = base64.b64encode(bytes(der)).decode()
    forged = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(BadCertificate, match="not signed with the key|cannot be read"):
        certificates.read_request(forged)


def test_a_request_that_is_too_long_is_refused() -> None:
    with pytest.raises(BadCertificate, match="longer than"):
        certificates.read_request(REQUEST + " " * certificates.LONGEST_REQUEST)


@given(st.text(max_size=300))
@settings(deadline=None)
def test_whatever_is_no_pem_is_refused_in_words(text: str) -> None:
    for read in (certificates.read_request, certificates.read_certificate, certificates.load_key):
        with pytest.raises(BadCertificate):
            read(text)


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(deadline=None, max_examples=200)
def test_a_request_with_any_byte_changed_never_passes_for_another(position: int, change: int) -> None:
    der = bytearray(base64.b64decode("".join(REQUEST.splitlines()[1:-1])))
    der[position % len(der)] ^= change
    body = base64.encodebytes(bytes(der)).decode()
    text = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
    try:
        found = certificates.read_request(text)
    except BadCertificate:
        return
    # What is around the signature may be written in more than one way; what is signed may not.
    assert found.identity == WEB
    changed, asked = (x509.load_pem_x509_csr(pem.encode()) for pem in (text, REQUEST))
    assert changed.tbs_certrequest_bytes == asked.tbs_certrequest_bytes


def test_what_is_said_of_a_bad_key_holds_nothing_of_it() -> None:
    with pytest.raises(BadCertificate) as raised:
        certificates.load_key("-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n")
    assert "c2VjcmV0" not in str(raised.value)


def test_a_key_with_a_password_is_refused() -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

    key = ec.generate_private_key(ec.SECP256R1())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
    with pytest.raises(BadCertificate, match="without a password"):
        certificates.load_key(locked)
    open_ = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    assert certificates.key_kind(open_) == ("ec", 256)


@pytest.mark.parametrize(("kind", "bits"), [("ec", 255), ("dsa", 2048), ("rsa", 1024), ("", 0)])
def test_keys_that_are_not_made(kind: str, bits: int) -> None:
    with pytest.raises(BadCertificate, match="no key of type"):
        certificates.make_key(kind, bits)


def test_a_chain_holds_each_certificate_once() -> None:
    one, other = make_root().root, make_root().root
    assert certificates.split_chain(certificates.join_chain(one + other, [other, one])) == [one, other]
    assert certificates.split_chain("nothing") == []
    assert certificates.split_chain("-----BEGIN CERTIFICATE-----" * 40_000) == []


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_bytes_that_were_changed_are_read_or_refused() -> None:
    """Whatever the library says of them: nothing but `BadCertificate` comes of it."""
    rng = random.Random(7)
    request = certificates.make_request(certificates.make_key(), WEB)
    readers: tuple[tuple[str, str, Callable[[str], object]], ...] = (
        ("CERTIFICATE", make_leaf(make_root()), lambda pem: certificates.read_certificate(pem).serial_number),
        ("CERTIFICATE REQUEST", request, certificates.read_request),
    )
    for kind, good, read in readers:
        der, refused = base64.b64decode("".join(good.splitlines()[1:-1])), 0
        for at in range(len(der)):
            for byte in (rng.randrange(256), der[at] | 0x80):
                spoiled = base64.encodebytes(der[:at] + bytes([byte]) + der[at + 1 :]).decode()
                try:
                    read(f"-----BEGIN {kind}-----\n{spoiled}-----END {kind}-----\n")
                except BadCertificate:
                    refused += 1
        assert refused > 100
