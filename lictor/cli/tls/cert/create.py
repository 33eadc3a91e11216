"""`lictor tls cert create`: a certificate for a server, for a client, or for the command line."""

from __future__ import annotations

import datetime
import ipaddress
import os
from typing import Any

from lictor.cli.command import CommandError, Io, reason
from lictor.cli.tls.files import CERTIFICATE_MODE, KEY_MODE, ca_names, certificate_pem, key_pem, save
from lictor.model.goflags import FlagSet

SYNOPSIS = "Create a new certificate"

HELP = """\
Usage: lictor tls cert create [options]

  Creates a certificate and its key in the current directory, signed by the
  authority that "lictor tls ca create" made there:

    $ lictor tls cert create -server
    ==> WARNING: ...
    ==> Using consul-agent-ca.pem and consul-agent-ca-key.pem
    ==> Saved dc1-server-consul-0.pem
    ==> Saved dc1-server-consul-0-key.pem

  Each call makes one more pair: dc1-server-consul-1.pem, and so on."""

SERVER_WARNING = """\
==> WARNING: Whoever holds a server's certificate can become a server, and
    read everything in the cluster: all ACL tokens, and the keys of the
    built-in CA. Give it to servers only, and keep it as safe as the CA's
    own key."""

DAYS = 365
KINDS = ("server", "client", "cli")


def flags() -> FlagSet:
    """What for, how long, which names, and which authority signs."""
    flags = FlagSet("tls cert create", HELP)
    flags.bool("server", False, "Create a certificate for a server.")
    flags.bool("client", False, "Create a certificate for a client agent.")
    flags.bool("cli", False, "Create a certificate for the command line.")
    flags.string("ca", "", "File with the authority's certificate. The default is #DOMAIN#-agent-ca.pem.")
    flags.string("key", "", "File with the authority's key. The default is #DOMAIN#-agent-ca-key.pem.")
    flags.int("days", DAYS, "Number of days the certificate is valid, from now on. The default is one year.")
    flags.string("dc", "dc1", "Datacenter of the agent.")
    flags.string("domain", "consul", "Domain of the cluster.")
    flags.string("node", "", "Name of a server's node: <node>.server.<datacenter>.<domain> is one more name.")
    flags.strings("additional-dnsname", (), "One more DNS name. localhost always is one. May be given several times.")
    flags.strings(
        "additional-ipaddress", (), "One more IP address. 127.0.0.1 always is one. May be given several times."
    )
    return flags


def run(args: list[str], io: Io) -> int:
    """Create the two files."""
    options = flags()
    rest = options.parse(args)
    if rest:
        raise CommandError(f"Too many arguments: {' '.join(rest)}")
    kinds = [kind for kind in KINDS if options[kind]]
    if len(kinds) != 1:
        raise CommandError("Please provide either -server, -client, or -cli")
    kind = kinds[0]
    if options["node"] and kind != "server":
        raise CommandError("-node requires -server")
    if not 0 < options["days"] <= 36500:
        raise CommandError("-days must be between 1 and 36500")
    ca_path, ca_key_path = ca_names(options["domain"])
    ca_path, ca_key_path = options["ca"] or ca_path, options["key"] or ca_key_path
    authority = _read(ca_path, "CA"), _read(ca_key_path, "CA key")
    certificate, key = sign(kind, options, *authority, ca_path, ca_key_path)
    if kind == "server":
        io.out(SERVER_WARNING)
    io.out(f"==> Using {ca_path} and {ca_key_path}")
    certificate_path, key_path = free_names(f"{options['dc']}-{kind}-{options['domain']}")
    save(certificate_path, certificate, CERTIFICATE_MODE)
    io.out(f"==> Saved {certificate_path}")
    save(key_path, key, KEY_MODE)
    io.out(f"==> Saved {key_path}")
    return 0


def free_names(prefix: str) -> tuple[str, str]:
    """The first numbered pair of file names of which neither exists."""
    number = 0
    while any(os.path.exists(f"{prefix}-{number}{end}") for end in (".pem", "-key.pem")):
        number += 1
    return f"{prefix}-{number}.pem", f"{prefix}-{number}-key.pem"


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        hint = "Make an authority with `lictor tls ca create`, or name its files with -ca and -key."
        raise CommandError(f"Error reading {what}: open {path}: {reason(error)}", hint) from None


def names_of(kind: str, options: FlagSet) -> tuple[list[str], list[str]]:
    """The DNS names and the addresses of a certificate, the first name its common name."""
    full = f"{kind}.{options['dc']}.{options['domain']}"
    names = [full]
    if options["node"]:
        names.append(f"{options['node']}.{full}")
    addresses = [] if kind == "cli" else ["127.0.0.1"]
    names = [*names, "localhost", *options["additional-dnsname"]]
    return list(dict.fromkeys(names)), list(dict.fromkeys([*addresses, *options["additional-ipaddress"]]))


def sign(
    kind: str, options: FlagSet, ca_pem: bytes, ca_key_pem: bytes, ca_path: str, ca_key_path: str
) -> tuple[bytes, bytes]:
    """A certificate of this kind and its key, both as PEM. Raises CommandError naming the flag or file at fault."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    try:
        authority = x509.load_pem_x509_certificate(ca_pem)
    except ValueError:
        raise CommandError(f"Error reading CA: {ca_path} holds no certificate in PEM form") from None
    try:
        ca_key = load_pem_private_key(ca_key_pem, None)
    except (ValueError, TypeError) as error:
        raise CommandError(f"Error reading CA key: {ca_key_path} holds no key that can be used: {error}") from None
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise CommandError(f"Error reading CA key: the key in {ca_key_path} is not an elliptic curve key")
    if ca_key.public_key() != authority.public_key():
        raise CommandError(f"Error signing: the key in {ca_key_path} does not belong to the certificate in {ca_path}")
    dns_names, addresses = names_of(kind, options)
    alternatives: list[x509.GeneralName] = [_dns_name(name) for name in dns_names]
    alternatives += [_address(text) for text in addresses]
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, dns_names[0][:64])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=options["days"]))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_encipherment=True,
                key_cert_sign=False,
                crl_sign=False,
                content_commitment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_key(authority), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    )
    if kind != "cli":
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(
            x509.ExtendedKeyUsage(usages if kind == "server" else usages[::-1]), critical=False
        )
    return certificate_pem(builder.sign(ca_key, SHA256())), key_pem(key)


def _authority_key(authority: Any) -> Any:
    """The authority's key identifier as the certificate itself has it, so that chains of other tools are found."""
    from cryptography import x509

    try:
        extension = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(extension.value)


def _dns_name(text: str) -> Any:
    from cryptography import x509

    try:
        return x509.DNSName(text)
    except ValueError:
        raise CommandError(
            f'"{text}" is no DNS name: internationalized names must be given in their xn-- form'
        ) from None


def _address(text: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        raise CommandError(f'-additional-ipaddress: "{text}" is no IP address') from None
