"""Virtual addresses: of each service that the mesh reaches, one that stands for the whole of it, whichever instances it
has. Programs connect to it, and their transparent proxy knows where that leads; nobody has such an address for real.
"""

import hashlib

import msgspec

FIRST = (240 << 24) + 1  # 240.0.0.1
COUNT = (1 << 28) - 2  # 240.0.0.0/4 but for its first and its last address
TAG = "consul-virtual"
"""The tagged address under which instances show that of their service."""


class VirtualIP(msgspec.Struct, frozen=True):
    """The address of a service, whose name is in lower case."""

    service: str
    address: str


def numbered(number: int) -> str:
    """An address of the range, by a number that may be any."""
    value = FIRST + number % COUNT
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def preferred(service: str) -> int:
    """The number of the address that a service gets where it is free: always the same, so that who remembers the
    address of a service that went and came again does not reach another one.
    """
    return int.from_bytes(hashlib.blake2b(service.lower().encode(), digest_size=8).digest()) % COUNT


def is_virtual(address: str) -> bool:
    """Whether an IPv4 address as it is usually written is of the range."""
    first, dot, _ = address.partition(".")
    return bool(dot) and first.isdecimal() and 240 <= int(first) <= 255
