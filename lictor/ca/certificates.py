"""Certificates of the mesh: made, signed and read. Pure: keys, serial numbers and the time are handed in.

Every certificate carries one SPIFFE id as its only subject alternative name. Key ids are the SHA-256 of the public key
as Consul has them, so that both find the same issuer. Who signs may sign leaves and authorities; a leaf is for servers
and clients alike. Certificates, requests and keys are PEM; times are in seconds since 1970.
"""

import datetime
import hashlib
import re
from collections.abc import Iterable
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lictor.model.errors import InvalidRequest
from lictor.model.spiffe import AgentId, BadSpiffeId, GatewayId, ServerId, ServiceId, SpiffeId, parse_spiffe_id

EC = "ec"
RSA = "rsa"
LEEWAY = 60.0  # seconds that a certificate is valid before it was made: other clocks may be behind
LONGEST_REQUEST = 64 * 1024  # bytes
LONGEST_RSA = 8192  # bits; a check with a longer key takes more than a caller may cost
SHORTEST_RSA = 2048
DEEPEST = 8  # certificates between a leaf and its root
LATEST = 253402300799.0  # the end of the year 9999, after which X.509 has no dates
_CURVES: dict[int, type[ec.EllipticCurve]] = {
    224: ec.SECP224R1,
    256: ec.SECP256R1,
    384: ec.SECP384R1,
    521: ec.SECP521R1,
}
KEY_BITS = {EC: tuple(_CURVES), RSA: (2048, 3072, 4096)}
"""The keys that can be made, by type."""

_NAME_LENGTH = 64  # characters of a common name (RFC 5280, appendix A.1)
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"

T = TypeVar("T", bound=x509.ExtensionType)
# What reading raises for odd bytes, whatever it is that is read.
_ODD = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class BadCertificate(InvalidRequest):
    """What should be a certificate, a request for one or a key is none that the mesh can use."""


class Certificate(msgspec.Struct, frozen=True):
    """What is read of a certificate. `id` is its fingerprint, `signing_key_id` and `authority_key_id` name its key and
    its issuer's; all are written as pairs of digits with colons, and empty where there is none.
    """

    id: str
    serial: int
    signing_key_id: str
    authority_key_id: str
    name: str
    uris: tuple[str, ...]
    not_before: float
    not_after: float
    key_type: str
    key_bits: int
    is_authority: bool
    self_signed: bool

    @property
    def serial_number(self) -> str:
        """The serial number as pairs of digits."""
        return colons(self.serial.to_bytes(max(1, (self.serial.bit_length() + 7) // 8), "big"))


class CertificateRequest(msgspec.Struct, frozen=True):
    """A request whose sender has proved to hold the key: who it wants to be, and its PEM."""

    identity: SpiffeId
    pem: str


def colons(data: bytes) -> str:
    """Bytes as Consul writes ids: `0a:ff`."""
    return data.hex(":")


# -- keys -------------------------------------------------------------------------------------------------------------


def make_key(kind: str = EC, bits: int = 256) -> str:
    """A new key. One of RSA can take seconds. Raises `BadCertificate` for one that cannot be had."""
    if bits not in KEY_BITS.get(kind, ()):
        raise BadCertificate(f'no key of type "{kind}" with {bits} bits can be made; there are {_kinds()}')
    if kind == RSA:
        return _key_pem(rsa.generate_private_key(65537, bits))
    return _key_pem(ec.generate_private_key(_CURVES[bits]()))


def _kinds() -> str:
    return " and ".join(f"{kind} with {', '.join(map(str, bits))}" for kind, bits in KEY_BITS.items())


def _key_pem(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


def load_key(pem: str) -> PrivateKey:
    """Read a private key. Raises `BadCertificate`, which says nothing of what was read."""
    try:
        key = load_pem_private_key(pem.encode(), None)
    except _ODD:
        raise BadCertificate("the private key is no PEM of a key without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise BadCertificate("the private key is neither an elliptic curve key nor one of RSA")
    _strong(key.public_key())
    return key


def key_kind(pem: str) -> tuple[str, int]:
    """A private key's type and bits. Raises `BadCertificate`."""
    return _kind_of(load_key(pem).public_key())


def key_id(pem: str) -> str:
    """The id of a private key, as the certificates of its public one have it. Raises `BadCertificate`."""
    return colons(_key_id(load_key(pem).public_key()))


def _kind_of(key: PublicKey) -> tuple[str, int]:
    return (EC if isinstance(key, ec.EllipticCurvePublicKey) else RSA), key.key_size


def _strong(key: object) -> PublicKey:
    """A key that is good enough. Raises `BadCertificate`."""
    if isinstance(key, rsa.RSAPublicKey):
        if not SHORTEST_RSA <= key.key_size <= LONGEST_RSA:
            raise BadCertificate(f"an RSA key has {SHORTEST_RSA} to {LONGEST_RSA} bits here, this one {key.key_size}")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, tuple(_CURVES.values())):
            raise BadCertificate(f"the curve {key.curve.name} is not used here; there are P-224, P-256, P-384, P-521")
        return key
    raise BadCertificate("the key is neither an elliptic curve key nor one of RSA")


def _key_id(key: PublicKey) -> bytes:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _digest(key: PublicKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 384:
        return hashes.SHA384() if key.key_size == 384 else hashes.SHA512()
    return hashes.SHA256()


# -- requests ---------------------------------------------------------------------------------------------------------


def make_request(key: str, identity: SpiffeId) -> str:
    """A request for a certificate of an identity, signed with the key it is for."""
    private = load_key(key)
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name(identity)))
    builder = builder.add_extension(_alternative(identity.uri), critical=False)
    return builder.sign(private, _digest(private.public_key())).public_bytes(Encoding.PEM).decode()


def read_request(pem: str) -> CertificateRequest:
    """Read a request: it must prove that its sender has the key, which must be strong enough, and name one SPIFFE id
    and nothing else. Raises `BadCertificate`.
    """
    request = _load_request(pem)
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    except _ODD:
        raise BadCertificate("the certificate request has extensions that cannot be read") from None
    found = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    if len(found) != 1 or len(list(names)) != 1:
        raise BadCertificate("a certificate request must have one URI, its SPIFFE id, and no other alternative name")
    try:
        return CertificateRequest(parse_spiffe_id(found[0]), pem)
    except BadSpiffeId as error:
        raise BadCertificate(f"the certificate request names nobody: {error}") from None


def _load_request(pem: str) -> x509.CertificateSigningRequest:
    """A request with proof of possession. Raises `BadCertificate`."""
    if len(pem) > LONGEST_REQUEST:
        raise BadCertificate(f"the certificate request is longer than {LONGEST_REQUEST} bytes")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        _strong(request.public_key())
        proved = request.is_signature_valid
    except _ODD as error:
        raise BadCertificate(f"the certificate request cannot be read: {error}") from None
    if not proved:
        raise BadCertificate("the certificate request is not signed with the key that it is for")
    return request


# -- signing ----------------------------------------------------------------------------------------------------------


def make_root(key: str, identity: SpiffeId, name: str, seconds: float, now: float, serial: int) -> str:
    """A root that signs itself, valid for so many seconds."""
    private = load_key(key)
    public = private.public_key()
    builder = _authority(public, identity.uri, name, serial).issuer_name(_name(name))
    builder = _with_issuer(_lasting(builder, now - LEEWAY, now + seconds), _key_id(public))
    return _sign(builder, private)


def sign_leaf(issuer: str, key: str, request: str, identity: SpiffeId, seconds: float, now: float, serial: int) -> str:
    """A leaf of an identity with the key of a request. It does not outlive its issuer."""
    above, private, asked = _load(issuer), load_key(key), _load_request(request)
    public = _strong(asked.public_key())
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name(identity)))
        .issuer_name(above.subject)
        .public_key(public)
        .serial_number(serial)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(uses, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(_key_id(public)), critical=False)
        .add_extension(_alternative(identity.uri), critical=False)
    )
    end = _end(now, now + seconds, above)
    return _sign(_with_issuer(_lasting(builder, now - LEEWAY, end), _own_key_id(above)), private)


def sign_intermediate(
    issuer: str, key: str, request: str, identity: SpiffeId, name: str, seconds: float, now: float, serial: int
) -> str:
    """Another authority, which may sign leaves and no authority, with the key of a request."""
    above, private, asked = _load(issuer), load_key(key), _load_request(request)
    builder = _authority(_strong(asked.public_key()), identity.uri, name, serial, path_length=0)
    end = _end(now, now + seconds, above)
    builder = _lasting(builder.issuer_name(above.subject), now - LEEWAY, end)
    return _sign(_with_issuer(builder, _own_key_id(above)), private)


def cross_sign(issuer: str, key: str, root: str, now: float, serial: int) -> str:
    """Another authority's root with its name and key, signed by this one: who trusts only this one then trusts what
    the other signs. It lasts until the first of both ends. Raises `BadCertificate` where nobody would trust it.
    """
    above, private, other = _load(issuer), load_key(key), _load(root)
    constraints = _extension(above, x509.BasicConstraints)
    if constraints is not None and constraints.path_length == 0:
        raise BadCertificate("this root may sign no other authority: its path length is 0")
    public = _public(other)
    builder = x509.CertificateBuilder().subject_name(other.subject).issuer_name(above.subject).public_key(public)
    builder = builder.serial_number(serial)
    for extension in other.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    end = _end(now, other.not_valid_after_utc.timestamp(), above)
    builder = _lasting(builder, now - LEEWAY, end)
    return _sign(_with_issuer(builder, _own_key_id(above)), private)


def common_name(identity: SpiffeId) -> str:
    """The name that a certificate of an identity has beside its id; nobody decides by it."""
    cluster = f"{identity.domain[:8]}.consul"
    match identity:
        case ServiceId():
            return _clean(f"{identity.service}.svc.{identity.namespace}.{cluster}")
        case AgentId():
            return _clean(f"{identity.node}.agnt.{identity.datacenter}.{cluster}")
        case ServerId():
            return _clean(f"server.{identity.datacenter}.{cluster}")
        case GatewayId():
            return _clean(f"mgw.{identity.datacenter}.{cluster}")
    return _clean(cluster)


def authority_name(role: str, word: str, domain: str) -> str:
    """The name of an authority: `pri` for the primary datacenter's, `sec` for others'; `word` tells it from others."""
    return _clean(f"{role}-{word}.consul.ca.{domain[:8]}.consul")


def _clean(name: str) -> str:
    """A name that every reader of certificates takes: the beginning gives way where it is too long."""
    kept = re.sub(r"[^a-z0-9.-]", "", name.lower())
    return kept[-_NAME_LENGTH:].lstrip(".-")


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(uri: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=not signs,
        key_agreement=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(
    key: PublicKey, uri: str, name: str, serial: int, path_length: int | None = None
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key)
        .serial_number(serial)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(_key_id(key)), critical=False)
        .add_extension(_alternative(uri), critical=False)
    )


def _with_issuer(builder: x509.CertificateBuilder, issuer_key_id: bytes) -> x509.CertificateBuilder:
    return builder.add_extension(x509.AuthorityKeyIdentifier(issuer_key_id, None, None), critical=False)


def _lasting(builder: x509.CertificateBuilder, start: float, end: float) -> x509.CertificateBuilder:
    return builder.not_valid_before(_date(start)).not_valid_after(_date(end))


def _end(now: float, wanted: float, issuer: x509.Certificate) -> float:
    """When what an issuer signs ends: with the issuer at the latest. Raises `BadCertificate` where that is over."""
    end = min(wanted, issuer.not_valid_after_utc.timestamp())
    if end <= now:
        raise BadCertificate("the certificate authority has ended: what it signs would be trusted by nobody")
    return end


def _date(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(min(max(seconds, 0.0), LATEST), datetime.UTC).replace(microsecond=0)


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> str:
    try:
        return builder.sign(key, _digest(key.public_key())).public_bytes(Encoding.PEM).decode()
    except ValueError as error:
        raise BadCertificate(f"the certificate cannot be made: {error}") from None


# -- reading ----------------------------------------------------------------------------------------------------------


def read_certificate(pem: str) -> Certificate:
    """Read a certificate, the first where there are several. Raises `BadCertificate`."""
    found = _load(pem)
    try:
        return _read(found)
    except _ODD as error:
        raise BadCertificate(f"the certificate has parts that cannot be read: {error}") from None


def _read(found: x509.Certificate) -> Certificate:
    kind, bits = _kind_of(_public(found))
    if found.serial_number < 0:
        raise BadCertificate("the certificate's serial number is negative")
    issuer = _extension(found, x509.AuthorityKeyIdentifier)
    names = _extension(found, x509.SubjectAlternativeName)
    constraints = _extension(found, x509.BasicConstraints)
    own_names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        id=colons(hashlib.sha1(found.public_bytes(Encoding.DER), usedforsecurity=False).digest()),
        serial=found.serial_number,
        signing_key_id=colons(_own_key_id(found)),
        authority_key_id=colons(issuer.key_identifier or b"") if issuer is not None else "",
        name=str(own_names[0].value) if own_names else "",
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names is not None else (),
        not_before=found.not_valid_before_utc.timestamp(),
        not_after=found.not_valid_after_utc.timestamp(),
        key_type=kind,
        key_bits=bits,
        is_authority=constraints is not None and constraints.ca,
        self_signed=_signed_by(found, found),
    )


def signed_by(pem: str, issuer: str) -> bool:
    """Whether a certificate's name and signature are its issuer's. Raises `BadCertificate`."""
    return _signed_by(_load(pem), _load(issuer))


def belongs_to(pem: str, key: str) -> bool:
    """Whether a certificate is that of a private key. Raises `BadCertificate`."""
    return _key_id(_public(_load(pem))) == _key_id(load_key(key).public_key())


def chain_below(root: str, pem: str) -> list[str]:
    """The certificates of a text that lead from its first one to a root, which is not among them; others are left out.
    Raises `BadCertificate` where they do not lead there.
    """
    known = split_chain(pem)
    path = known[:1]
    while path and not signed_by(path[-1], root):
        above = [found for found in known if found not in path and signed_by(path[-1], found)]
        if not above or len(path) >= DEEPEST:
            raise BadCertificate("the certificates do not lead to the root")
        path.append(above[0])
    if not path:
        raise BadCertificate("there is no certificate")
    return path


def split_chain(pem: str) -> list[str]:
    """The certificates of a text, each ending its last line."""
    found, start = [], pem.find(_BEGIN)
    while start >= 0 and (end := pem.find(_END, start)) >= 0:
        end += len(_END)
        found.append(pem[start:end] + "\n")
        start = pem.find(_BEGIN, end)
    return found


def join_chain(*pems: str | Iterable[str]) -> str:
    """One text of certificates, each once, in order."""
    found: dict[str, None] = {}
    for part in pems:
        for pem in [part] if isinstance(part, str) else part:
            found.update(dict.fromkeys(split_chain(pem)))
    return "".join(found)


def _load(pem: str) -> x509.Certificate:
    if _BEGIN not in pem:
        raise BadCertificate("the text holds no certificate in PEM form")
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except _ODD as error:
        raise BadCertificate(f"the certificate cannot be read: {error}") from None


def _public(certificate: x509.Certificate) -> PublicKey:
    try:
        return _strong(certificate.public_key())
    except _ODD as error:
        raise BadCertificate(f"the certificate's key cannot be read: {error}") from None


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except _ODD as error:
        raise BadCertificate(f"the certificate has extensions that cannot be read: {error}") from None


def _own_key_id(certificate: x509.Certificate) -> bytes:
    """The id under which a certificate's own key is named by what it signs."""
    found = _extension(certificate, x509.SubjectKeyIdentifier)
    return found.digest if found is not None else _key_id(_public(certificate))


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # an odd key or algorithm: whatever it is, it does not vouch
        return False
    return True
