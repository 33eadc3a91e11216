"""Certificates and keys as files: PEM, keys readable by their owner alone, and never one overwritten.

Its own file because `ca create` and `cert create` must agree on how keys are kept.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lictor.cli.command import CommandError, reason

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CERTIFICATE_MODE = 0o644
KEY_MODE = 0o600


def ca_names(domain: str) -> tuple[str, str]:
    """The file names of a domain's authority: its certificate and its key."""
    return f"{domain}-agent-ca.pem", f"{domain}-agent-ca-key.pem"


def save(path: str, content: bytes, mode: int) -> None:
    """Write a new file. Raises CommandError when there is one already, or it cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except FileExistsError:
        raise CommandError(f"{path} already exists.") from None
    except OSError as error:
        raise CommandError(f"Error writing {path}: {reason(error)}") from None


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as the text that the agent's `cert_file` and `ca_file` hold."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: EllipticCurvePrivateKey) -> bytes:
    """A key as the text that the agent's `key_file` holds."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
