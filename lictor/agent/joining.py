"""Joining other agents, as far as it goes while there is no gossip: an agent can join itself; for any other address
the answer says what is in the way, in the words of Serf's errors.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection

from lictor.agent.checks.connection import explain_dial
from lictor.model.errors import Refused

DIAL_SECONDS = 10.0


async def join_address(text: str, *, own: Collection[str], port: int) -> None:
    """Join `text`: a host, or host:port; `own` and `port` are where this agent is. Raises `Refused`."""
    host, wanted = _split(text, port)
    loop = asyncio.get_running_loop()
    try:
        if not host:
            raise OSError
        found = await loop.getaddrinfo(host, wanted, type=socket.SOCK_STREAM)
    except OSError:
        raise _refused([f"Failed to resolve {host}: lookup {host}: no such host"]) from None
    problems = []
    for address in dict.fromkeys(str(entry[4][0]) for entry in found):
        if wanted == port and _is_own(address, own):
            return
        problems.append(f"Failed to join {address}: {await _dialled(address, wanted)}")
    raise _refused(problems)


def _split(text: str, port: int) -> tuple[str, int]:
    """Host and port; IPv6 addresses with a port stand in brackets. Raises `Refused`."""
    host, colon, tail = text.rpartition(":")
    if text.startswith("["):
        inside, _, rest = text[1:].partition("]")
        host, colon, tail = inside, rest[:1], rest[1:]
    elif not colon or ":" in host:
        return text, port
    if not colon:
        return host, port
    if not (tail.isascii() and tail.isdigit() and 0 < int(tail) < 65536):
        raise _refused([f"Failed to resolve {host}: invalid port {tail!r}"])
    return host, int(tail)


def _is_own(address: str, own: Collection[str]) -> bool:
    given = ipaddress.ip_address(address.partition("%")[0])
    for text in own:
        try:
            if ipaddress.ip_address(text) == given:
                return True
        except ValueError:
            continue
    return False


async def _dialled(address: str, port: int) -> str:
    """What keeps an agent at an address from being joined."""
    shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        return explain_dial(error, address, port)
    writer.close()
    return f"{shown} answers, but this agent has no gossip yet and can only join itself"


def _refused(problems: list[str]) -> Refused:
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return Refused(f"{count} occurred:" + "".join(f"\n\t* {problem}" for problem in problems) + "\n\n")
