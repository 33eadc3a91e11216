"""`lictor tls ca create`: a new certificate authority for the agents of a cluster."""

from __future__ import annotations

import datetime
import os

from lictor.cli.command import CommandError, Io
from lictor.cli.tls.files import CERTIFICATE_MODE, KEY_MODE, ca_names, certificate_pem, key_pem, save
from lictor.model.goflags import FlagSet

SYNOPSIS = "Create a new certificate authority"

HELP = """\
Usage: lictor tls ca create [options]

  Creates a certificate authority and its key in the current directory:

    $ lictor tls ca create
    ==> Saved consul-agent-ca.pem
    ==> Saved consul-agent-ca-key.pem

  The certificate goes to every agent (ca_file). The key signs certificates
  and goes to none: keep it where only you can read it."""

DAYS = 1825


def flags() -> FlagSet:
    """How long, for which domain, for which names."""
    flags = FlagSet("tls ca create", HELP)
    flags.int("days", DAYS, "Number of days the authority is valid, from now on. The default is five years.")
    flags.string("domain", "consul", "Domain of the cluster: the beginning of the file names, and a permitted name.")
    flags.string("common-name", "", "Common name of the authority. The default is made from its serial number.")
    flags.bool(
        "name-constraint",
        False,
        "Let the authority vouch only for localhost, -domain and each -additional-name-constraint. This cannot be "
        "changed later; a name under which the web interface is served must be among them.",
    )
    flags.strings(
        "additional-name-constraint",
        (),
        "One more DNS name that the authority may vouch for, with -name-constraint. May be given several times.",
    )
    return flags


def run(args: list[str], io: Io) -> int:
    """Create the two files; 1 when one of them exists."""
    options = flags()
    rest = options.parse(args)
    if rest:
        raise CommandError(f"Too many arguments: {' '.join(rest)}")
    if not 0 < options["days"] <= 36500:
        raise CommandError("-days must be between 1 and 36500")
    domain = options["domain"]
    certificate_path, key_path = ca_names(domain)
    for path in (certificate_path, key_path):
        if os.path.exists(path):
            raise CommandError(f"{path} already exists.")
    permitted: list[str] = []
    if options["name-constraint"]:
        permitted = [*options["additional-name-constraint"], domain, "localhost"]
    certificate, key = make_ca(options["days"], options["common-name"], permitted)
    save(certificate_path, certificate, CERTIFICATE_MODE)
    io.out(f"==> Saved {certificate_path}")
    save(key_path, key, KEY_MODE)
    io.out(f"==> Saved {key_path}")
    return 0


def make_ca(days: int, common_name: str, permitted: list[str]) -> tuple[bytes, bytes]:
    """A self-signed authority and its key, both as PEM; `permitted` restricts the DNS names it may vouch for."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lictor"),
            x509.NameAttribute(NameOID.COMMON_NAME, (common_name or f"Lictor Agent CA {serial >> 32}")[:64]),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(subject_key, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False)
    )
    if permitted:
        try:
            names = [x509.DNSName(name) for name in permitted]
        except ValueError as error:
            raise CommandError(f"Bad name constraint: {error}") from None
        builder = builder.add_extension(x509.NameConstraints(names, None), critical=True)
    return certificate_pem(builder.sign(key, SHA256())), key_pem(key)
