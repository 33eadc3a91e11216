"""The machine's own addresses, asked of the kernel: the shell beside `sockaddr`.

One netlink dump of links and addresses gives every address of every family, secondary ones included; the routing
tables in /proc tell which interface the default route leaves through. Where there is no netlink, only the loopback
addresses are known, and templates for others say that they found nothing.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

from lictor.agent.config.sockaddr import InterfaceAddress

RTM_GETLINK, RTM_GETADDR = 18, 22
RTM_NEWLINK, RTM_NEWADDR = 16, 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
IFLA_IFNAME, IFA_ADDRESS, IFA_LOCAL = 3, 1, 2

FLAGS = {0x1: "up", 0x2: "broadcast", 0x8: "loopback", 0x10: "pointtopoint", 0x1000: "multicast"}
LOOPBACK = (
    InterfaceAddress("lo", "127.0.0.1", 8, frozenset({"up", "loopback"})),
    InterfaceAddress("lo", "::1", 128, frozenset({"up", "loopback"})),
)
TIMEOUT_SECONDS = 5.0


def read_interfaces() -> tuple[InterfaceAddress, ...]:
    """Every address of every interface, in the order of the kernel. Never raises: see the module."""
    try:
        links = _links()
        defaults = _default_interfaces()
        return tuple(_addresses(links, defaults)) or LOOPBACK
    except (OSError, AttributeError, struct.error, ValueError):
        return LOOPBACK


def _dump(kind: int) -> list[tuple[int, bytes]]:
    messages: list[tuple[int, bytes]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as channel:
        channel.settimeout(TIMEOUT_SECONDS)
        channel.bind((0, 0))
        channel.send(struct.pack("=IHHIIB3x", 20, kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, socket.AF_UNSPEC))
        while True:
            data = channel.recv(1 << 20)
            position = 0
            while position + 16 <= len(data):
                length, type_ = struct.unpack_from("=IH", data, position)
                if type_ == NLMSG_DONE:
                    return messages
                if type_ == NLMSG_ERROR or length < 16:
                    raise OSError("the kernel refused a netlink request")
                messages.append((type_, data[position + 16 : position + length]))
                position += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    position = 0
    while position + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, position)
        if length < 4:
            break
        found[kind] = data[position + 4 : position + length]
        position += (length + 3) & ~3
    return found


def _links() -> dict[int, tuple[str, frozenset[str]]]:
    links: dict[int, tuple[str, frozenset[str]]] = {}
    for kind, body in _dump(RTM_GETLINK):
        if kind != RTM_NEWLINK:
            continue
        index, bits = struct.unpack_from("=iI", body, 4)
        name = _attributes(body[16:]).get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        links[index] = (name, frozenset(flag for bit, flag in FLAGS.items() if bits & bit))
    return links


def _addresses(links: dict[int, tuple[str, frozenset[str]]], defaults: set[str]) -> list[InterfaceAddress]:
    found: list[InterfaceAddress] = []
    for kind, body in _dump(RTM_GETADDR):
        if kind != RTM_NEWADDR:
            continue
        family, prefix, _, _, index = struct.unpack_from("=BBBBi", body, 0)
        if family not in (socket.AF_INET, socket.AF_INET6):
            continue
        attributes = _attributes(body[8:])
        raw = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)
        name, flags = links.get(index, ("", frozenset()))
        if raw is None or "up" not in flags:
            continue
        found.append(InterfaceAddress(name, socket.inet_ntop(family, raw), prefix, flags, name in defaults))
    return found


def _default_interfaces() -> set[str]:
    names: set[str] = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            fields = line.split()
            if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
                names.add(fields[0])
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/ipv6_route").read_text().splitlines():
            fields = line.split()
            if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
                names.add(fields[9])
    return names
