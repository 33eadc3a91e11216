"""Whether a certificate and a private key, both PEM, can be read and belong together."""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from lictor.model.config_entry.decode import InvalidConfigEntry
from lictor.model.config_entry.entry import is_domain_name, is_ip_address, quoted, require

MIN_RSA_BITS = 2048


def check_key_pair(certificate_pem: str, key_pem: str) -> None:
    """Raise InvalidConfigEntry unless both can be read, belong together, and name hosts that can exist."""
    key = _private_key(key_pem)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    except ValueError:
        raise InvalidConfigEntry("failed to parse certificate PEM") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    same = certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)
    require(same, "tls: private key does not match public key")
    for host in _hosts(certificate):
        valid = is_ip_address(host) or is_domain_name(host)
        require(valid, f"host {quoted(host)} must be a valid DNS hostname")


def _private_key(pem: str) -> PrivateKeyTypes:
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        # The reason is not passed on: it might quote what was given as the key.
        raise InvalidConfigEntry("failed to parse private key PEM") from None
    if isinstance(key, rsa.RSAPrivateKey):
        require(key.key_size >= MIN_RSA_BITS, "key length must be at least 2048 bits")
    return key


def _hosts(certificate: x509.Certificate) -> list[str]:
    """The names that a certificate is for."""
    common_names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    hosts = [str(attribute.value) for attribute in common_names]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return hosts
    hosts += names.get_values_for_type(x509.DNSName)
    hosts += map(str, names.get_values_for_type(x509.IPAddress))
    return hosts
