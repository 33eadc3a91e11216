"""Sealing of gossip with AES-GCM: a version byte, a nonce of 12 bytes, the ciphertext, a tag of 16 bytes.

Version 0 pads the plaintext to whole blocks first (PKCS #7), version 1 does not. Which one is written follows from the
protocol version spoken; both are read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lictor.gossip.codec import WireError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_SIZE = 12
TAG_SIZE = 16
BLOCK_SIZE = 16
PADDED = 0
UNPADDED = 1
_OVERHEAD = 1 + NONCE_SIZE + TAG_SIZE

Entropy = Callable[[int], bytes]


@functools.lru_cache(maxsize=64)
def _cipher(key: bytes) -> AESGCM:
    # A pool without keys does without its 7 MB.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def overhead(version: int) -> int:
    """The most bytes that sealing adds."""
    return _OVERHEAD + (BLOCK_SIZE if version == PADDED else 0)


def sealed_size(version: int, size: int) -> int:
    """The exact size that `size` bytes have when sealed."""
    padding = BLOCK_SIZE - size % BLOCK_SIZE if version == PADDED else 0
    return _OVERHEAD + size + padding


def seal(version: int, key: bytes, plain: bytes, bound_to: bytes, entropy: Entropy) -> bytes:
    """The sealed bytes; they open only with the same `bound_to`."""
    if version == PADDED:
        padding = BLOCK_SIZE - len(plain) % BLOCK_SIZE
        plain += bytes((padding,)) * padding
    nonce = entropy(NONCE_SIZE)
    return bytes((version,)) + nonce + _cipher(key).encrypt(nonce, plain, bound_to)


def _unpadded(plain: bytes) -> bytes:
    if not plain or not 1 <= plain[-1] <= min(BLOCK_SIZE, len(plain)):
        raise WireError("sealed message has a wrong padding")
    return plain[: -plain[-1]]


def unseal(keys: Iterable[bytes], sealed: bytes, bound_to: bytes) -> bytes:
    """The plaintext, with the first key that opens it. Raises WireError when none does."""
    if not sealed:
        raise WireError("Cannot decrypt empty payload")
    version = sealed[0]
    if version not in (PADDED, UNPADDED):
        raise WireError(f"Unsupported encryption version {version}")
    if len(sealed) < sealed_size(version, 0):
        raise WireError(f"Payload is too small to decrypt: {len(sealed)}")
    from cryptography.exceptions import InvalidTag

    nonce, body = sealed[1 : 1 + NONCE_SIZE], sealed[1 + NONCE_SIZE :]
    for key in keys:
        try:
            plain = _cipher(key).decrypt(nonce, body, bound_to)
        except InvalidTag:
            continue
        return _unpadded(plain) if version == PADDED else plain
    raise WireError("No installed keys could decrypt the message")
