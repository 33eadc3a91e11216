"""IP addresses as text: packed, and in the one notation that compares.

By the C library's rules (inet_pton): no leading zeros, no shortened IPv4. An IPv4-mapped IPv6 address is the IPv4 one.
"""

import socket

_MAPPED = bytes(10) + b"\xff\xff"


def packed_address(text: str) -> bytes | None:
    """An address as its 4 or 16 bytes, or None where the text is none."""
    try:
        if ":" not in text:
            return socket.inet_pton(socket.AF_INET, text)
        packed = socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def canonical_address(text: str) -> str | None:
    """An address in its usual notation, or None where the text is none."""
    packed = packed_address(text)
    if packed is None:
        return None
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
