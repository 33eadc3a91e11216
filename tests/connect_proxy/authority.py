"""An authority for tests: roots, leaves of services, and certificates that should be refused."""

from __future__ import annotations

import datetime
import uuid

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lictor.connect_proxy.certificates import Identity
from lictor.connect_proxy.records import Leaf, Root, Roots

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
DAY = datetime.timedelta(days=1)


def service_uri(service: str, domain: str = DOMAIN, datacenter: str = "dc1") -> str:
    """The SPIFFE id of a service."""
    return f"spiffe://{domain}/ns/default/dc/{datacenter}/svc/{service}"


class Authority:
    """A root with its key. Leaves live for a day from now unless told otherwise."""

    def __init__(self, domain: str = DOMAIN) -> None:
        self.domain = domain
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {uuid.uuid4()}")])
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 10 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{domain}")]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """The root as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def roots(self, *others: Authority) -> Roots:
        """What the agent says of the roots, this one being active, beside others."""
        rest = tuple(Root("another", other.pem, False) for other in others)
        return Roots(self.domain, (Root("this", self.pem, True), *rest))

    def leaf(
        self,
        service: str,
        *,
        uris: list[str] | None = None,
        lives: datetime.timedelta = DAY,
        begins: datetime.timedelta = -DAY,
    ) -> Leaf:
        """A certificate for a service, or with other URIs; ending so long from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        wanted = [service_uri(service, self.domain)] if uris is None else uris
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + lives)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
        )
        if wanted:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in wanted])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Leaf(
            certificate.public_bytes(serialization.Encoding.PEM).decode(),
            encoded.decode(),
            f"{certificate.serial_number:x}",
            service=service,
            service_uri=wanted[0] if wanted else "",
        )

    def identity(self, service: str, *others: Authority) -> Identity:
        """A service's leaf and the roots."""
        return Identity(self.leaf(service), self.roots(*others))
