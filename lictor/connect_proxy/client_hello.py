"""The session ticket that a TLS 1.3 client offers, read of the first bytes of its connection.

What is found is a hint and decides nothing: TLS itself reads the same bytes anew.
"""

HANDSHAKE, CLIENT_HELLO = 22, 1
PRE_SHARED_KEY = 41  # the extension, by RFC 8446
BEFORE_SESSION_ID = 5 + 4 + 2 + 32  # record header, message header, version, random
LONGEST = 512  # bytes of a ticket that is looked at


def ticket_of(data: bytes) -> bytes | None:
    """The first ticket offered; None where there is none, or the client's hello is not whole, or is none."""
    if len(data) <= BEFORE_SESSION_ID or data[0] != HANDSHAKE or data[5] != CLIENT_HELLO:
        return None
    at = BEFORE_SESSION_ID
    for width in (1, 2, 1):  # session id, ciphers, compressions
        at += width + _number(data, at, width)
    end = at + 2 + _number(data, at, 2)
    at += 2
    if end > len(data):
        return None
    while at + 4 <= end:
        kind, length = _number(data, at, 2), _number(data, at + 2, 2)
        at += 4
        if kind == PRE_SHARED_KEY:
            size = _number(data, at + 2, 2)
            return data[at + 4 : at + 4 + size] if 0 < size <= min(LONGEST, length - 4, end - at - 4) else None
        at += length
    return None


def _number(data: bytes, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "big")
