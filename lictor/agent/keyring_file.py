"""The gossip keys on disk: a JSON list of base64 texts, the key that is used first, as Consul keeps them.

The file is made from `encrypt` at the first start. From then on it is the file that counts, since keys may have been
replaced in the whole pool meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lictor.agent.logs import logger
from lictor.agent.persistence import write_file
from lictor.gossip.keyring import Keyring, KeyringError, decode_key, encode_key
from lictor.model.errors import LictorError

log = logger("agent.gossip")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[str]).decode


def open_keyring(path: Path | None, encrypt: str) -> Keyring:
    """The keyring that the file holds, or that begins with the key `encrypt`; empty where there is neither. `path` is
    None where keys are not kept. Raises `LictorError` for a file that cannot be used, `OSError`.
    """
    if path is not None and path.exists():
        if encrypt:
            log.warn("the keyring's file is used, and not the key of encrypt", file=str(path))
        return _read(path)
    if not encrypt:
        return Keyring()
    keyring = Keyring(decode_key(encrypt))
    if path is not None:
        save_keyring(path, keyring)
    return keyring


def _read(path: Path) -> Keyring:
    try:
        keys = [decode_key(text) for text in _decode(path.read_bytes())]
        return Keyring(keys[0], tuple(keys[1:]))
    except (msgspec.DecodeError, KeyringError, IndexError) as error:
        raise LictorError(
            f"the gossip keys in {path} cannot be read: {error}: put back a list of keys, or remove the file to start "
            "with that of encrypt"
        ) from None


def save_keyring(path: Path, keyring: Keyring) -> None:
    """Write the keys. Raises `OSError`."""
    write_file(path, _encode([encode_key(key) for key in keyring.keys]))
