"""Authorities and certificates for tests, as files, made by the code behind `lictor tls`."""

from pathlib import Path

import msgspec

from lictor.agent.config.security import TlsDefaults
from lictor.cli.tls.ca.create import make_ca
from lictor.cli.tls.cert.create import flags, sign
from lictor.cli.tls.files import save


class Authority(msgspec.Struct, frozen=True):
    """An authority, whose files are in a folder of its own."""

    folder: Path
    certificate: bytes
    key: bytes

    @property
    def ca_file(self) -> str:
        """The file of its certificate."""
        return str(self.folder / "ca.pem")

    def settings(self, *arguments: str, **other: object) -> TlsDefaults:
        """`tls.defaults` with this authority, and a certificate made as `lictor tls cert create` does with these
        arguments.
        """
        options = flags()
        options.parse(list(arguments))
        kind = next(kind for kind in ("server", "client", "cli") if options[kind])
        number = sum(1 for _ in self.folder.iterdir())
        cert_file, key_file = str(self.folder / f"{number}.pem"), str(self.folder / f"{number}-key.pem")
        certificate, key = sign(kind, options, self.certificate, self.key, self.ca_file, "")
        save(cert_file, certificate, 0o644)
        save(key_file, key, 0o600)
        settings = TlsDefaults(ca_file=self.ca_file, cert_file=cert_file, key_file=key_file)
        return msgspec.structs.replace(settings, **other)


def authority(folder: Path) -> Authority:
    """A new authority."""
    folder.mkdir()
    certificate, key = make_ca(10, "", [])
    made = Authority(folder, certificate, key)
    save(made.ca_file, certificate, 0o644)
    return made
