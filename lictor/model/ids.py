"""Identifiers: the random UUIDs of sessions, prepared queries, events and nodes, and their check."""

import re
import secrets

_HEX = re.compile(r"[0-9a-fA-F]+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def new_id() -> str:
    """A random identifier in the 8-4-4-4-12 form of a UUID, 128 bits from the system's generator."""
    h = secrets.token_hex(16)
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def is_id(text: str) -> bool:
    """Whether `text` has the form of an identifier."""
    return _UUID.fullmatch(text) is not None


def looks_like_id(text: str) -> bool:
    """Whether `text` is what can be looked up as an identifier: 36 characters, hexadecimal but for up to 4 dashes,
    wherever they stand. Nothing needs to be there.
    """
    digits = text.replace("-", "")
    return len(text) == 36 and len(digits) >= 32 and len(digits) % 2 == 0 and _HEX.fullmatch(digits) is not None
