"""The gossip keys of a pool: one that new packets are sealed with, and all that arriving packets may be sealed with.

A rotation installs the new key everywhere, then uses it everywhere, then removes the old one; so all three have to be
separate, and a node in any of the states in between understands a node in any other.
"""

from __future__ import annotations

import base64
import binascii

KEY_SIZES = (16, 24, 32)


class KeyringError(ValueError):
    """A key or an operation that the keyring refuses, in words for the operator."""


def decode_key(text: str) -> bytes:
    """A key as operators write it (base64 of 16, 24 or 32 bytes). Raises KeyringError."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise KeyringError("Invalid key: not base64") from None
    _check_size(key)
    return key


def encode_key(key: bytes) -> str:
    """A key as operators write it."""
    return base64.b64encode(key).decode()


def _check_size(key: bytes) -> None:
    if len(key) not in KEY_SIZES:
        raise KeyringError("key size must be 16, 24 or 32 bytes")


class Keyring:
    """Keys, the primary one first. Empty, it means that the pool is not encrypted."""

    def __init__(self, primary: bytes | None = None, others: tuple[bytes, ...] = ()) -> None:
        self._keys: list[bytes] = []
        if primary is None and others:
            raise KeyringError("Empty primary key not allowed")
        if primary is not None:
            for key in (primary, *others):
                self.install(key)

    def __repr__(self) -> str:
        return f"Keyring(of {len(self._keys)})"

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Every key, the primary one first."""
        return tuple(self._keys)

    @property
    def primary(self) -> bytes | None:
        """What outgoing messages are sealed with; None while nothing is encrypted."""
        return self._keys[0] if self._keys else None

    def install(self, key: bytes) -> None:
        """Also accept this key. Raises KeyringError for a key of a wrong size."""
        _check_size(key)
        if key not in self._keys:
            self._keys.append(key)

    def use(self, key: bytes) -> None:
        """Seal with this key from now on. Raises KeyringError when it is not installed."""
        if key not in self._keys:
            raise KeyringError("Requested key is not in the keyring")
        self._keys.remove(key)
        self._keys.insert(0, key)

    def remove(self, key: bytes) -> None:
        """Accept this key no more; one that is not installed is no error. Raises KeyringError for the primary key."""
        if key == self.primary:
            raise KeyringError("Removing the primary key is not allowed")
        if key in self._keys:
            self._keys.remove(key)
