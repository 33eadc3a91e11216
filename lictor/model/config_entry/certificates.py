"""`inline-certificate` and `file-system-certificate`: what an API gateway's listeners prove themselves with."""

from __future__ import annotations

import msgspec

from lictor.model.config_entry.entry import ConfigEntry


class InlineCertificate(ConfigEntry, frozen=True):
    """`inline-certificate`: a certificate and its private key, both PEM. `repr` does not show the key."""

    kind: str = msgspec.field(default_factory=lambda: "inline-certificate")
    certificate: str = msgspec.field(default_factory=str)
    private_key: str = msgspec.field(default_factory=str)

    def __repr__(self) -> str:
        return f"InlineCertificate(name={self.name!r})"

    def validate(self) -> None:
        """Raise InvalidConfigEntry unless certificate and key can be read and belong together."""
        self.require_name()
        super().validate()
        # Imported with the first certificate: an agent that holds none starts without the library behind it.
        from lictor.model.config_entry.key_pair import check_key_pair

        check_key_pair(self.certificate, self.private_key)


class FileSystemCertificate(ConfigEntry, frozen=True):
    """`file-system-certificate`: where a certificate and its key are on the gateway's disk."""

    kind: str = msgspec.field(default_factory=lambda: "file-system-certificate")
    certificate: str = msgspec.field(default_factory=str)
    private_key: str = msgspec.field(default_factory=str)

    def validate(self) -> None:
        """Raise InvalidConfigEntry when there is no name."""
        self.require_name()
        super().validate()
