"""The PROXY protocol's header, read and written: who a connection is from, said by the proxy that passes it on.

Source: "The PROXY protocol, versions 1 & 2", HAProxy Technologies
(https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt). Pure.
"""

import ipaddress
import struct

import msgspec

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LONGEST_V1 = 107  # bytes of a line of version 1, with its end
LONGEST_V2 = 4096  # bytes that a header of version 2 may have here; what proxies send is less than 600
LOCAL, PROXY = 0, 1
STREAM_V4, STREAM_V6 = 0x11, 0x21


class Ends(msgspec.Struct, frozen=True):
    """The connection that is passed on: source and destination, addresses as text."""

    source: str
    source_port: int
    destination: str
    destination_port: int


def encode_v1(ends: Ends | None) -> bytes:
    """A line of version 1; None says that the connection's ends are not known."""
    if ends is None or _version(ends.source) != _version(ends.destination) or not _version(ends.source):
        return b"PROXY UNKNOWN\r\n"
    family = f"TCP{4 if _version(ends.source) == 4 else 6}"
    return f"PROXY {family} {ends.source} {ends.destination} {ends.source_port} {ends.destination_port}\r\n".encode()


def encode_v2(ends: Ends | None) -> bytes:
    """A header of version 2; None says that the connection is the proxy's own."""
    if ends is None or _version(ends.source) != _version(ends.destination) or not _version(ends.source):
        return SIGNATURE + bytes((0x20 | LOCAL, 0)) + b"\x00\x00"
    addresses = ipaddress.ip_address(ends.source).packed + ipaddress.ip_address(ends.destination).packed
    body = addresses + struct.pack("!HH", ends.source_port, ends.destination_port)
    family = STREAM_V4 if _version(ends.source) == 4 else STREAM_V6
    return SIGNATURE + bytes((0x20 | PROXY, family)) + struct.pack("!H", len(body)) + body


def read(data: bytes) -> tuple[Ends | None, int] | None:
    """The header that data begins with: the ends that it tells, if any, and its length; None where it goes on.

    Raises `ValueError` for what is no header.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_v2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _read_v1(data)
    raise ValueError("there is no PROXY header, which this listener expects")


def _read_v1(data: bytes) -> tuple[Ends | None, int] | None:
    end = data.find(b"\r\n", 0, LONGEST_V1)
    if end < 0:
        if len(data) >= LONGEST_V1:
            raise ValueError("the PROXY header has no end")
        return None
    words = data[:end].decode("ascii", "replace").split(" ")
    if len(words) >= 2 and words[1] == "UNKNOWN":
        return None, end + 2
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ValueError("the PROXY header is not of the form PROXY TCP4 source destination port port")
    wanted = 4 if words[1] == "TCP4" else 6
    if _version(words[2]) != wanted or _version(words[3]) != wanted:
        raise ValueError(f"the PROXY header's addresses are none of {words[1]}")
    ports = [int(word) if word.isascii() and word.isdigit() and len(word) < 6 else -1 for word in words[4:]]
    if not all(0 <= port < 65536 for port in ports):
        raise ValueError("the PROXY header's ports are no ports")
    return Ends(words[2], ports[0], words[3], ports[1]), end + 2


def _read_v2(data: bytes) -> tuple[Ends | None, int] | None:
    if len(data) < 16:
        return None
    version, family = data[12], data[13]
    if version >> 4 != 2 or version & 15 not in (LOCAL, PROXY):
        raise ValueError(f"the PROXY header's version and command {version:#04x} are not known")
    (length,) = struct.unpack_from("!H", data, 14)
    whole = 16 + length
    if whole > LONGEST_V2:
        raise ValueError(f"the PROXY header has {whole} bytes; at most {LONGEST_V2} are read")
    if len(data) < whole:
        return None
    if version & 15 == LOCAL:
        return None, whole
    size = {STREAM_V4: 4, STREAM_V6: 16}.get(family)
    if size is None:
        return None, whole  # a family that means nothing here: the connection's ends are not known
    if length < 2 * size + 4:
        raise ValueError("the PROXY header is too short for its addresses")
    source = str(ipaddress.ip_address(data[16 : 16 + size]))
    destination = str(ipaddress.ip_address(data[16 + size : 16 + 2 * size]))
    source_port, destination_port = struct.unpack_from("!HH", data, 16 + 2 * size)
    return Ends(source, source_port, destination, destination_port), whole


def _version(address: str) -> int:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0
