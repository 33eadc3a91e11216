"""From what users write to where gossip is found: addresses of agents to join, with all that a name stands for, and
programs that print such addresses. Errors are in the words of Serf's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Sequence

from lictor.agent.checks.output import TailBuffer
from lictor.agent.checks.script import run
from lictor.agent.config.join_sources import JoinAddress, JoinProgram, JoinSource, parse_join
from lictor.model.errors import Refused

PRINTED_MOST = 64 * 1024  # bytes of a program's output that are read
FOUND_MOST = 256  # addresses that one source may give

Place = tuple[str, int]
"""An IP address and a port."""


class NotFoundThere(Exception):
    """A source that gives no address now; the text says why."""


async def places(source: JoinSource, default_port: int) -> list[Place]:
    """Where a source says that agents are. Raises `NotFoundThere`."""
    if isinstance(source, JoinAddress):
        return await _resolved(source, default_port)
    found: list[Place] = []
    problems = []
    for text in await _printed(source):
        try:
            address = parse_join(text)
            if not isinstance(address, JoinAddress):
                raise ValueError(f"{text!r} is no address")
            found += await _resolved(address, default_port)
        except (ValueError, NotFoundThere) as error:
            problems.append(str(error))
    if not found:
        raise NotFoundThere(f"{source.args[0]}: " + ("; ".join(problems) or "the program printed no address"))
    return list(dict.fromkeys(found))[:FOUND_MOST]


async def _resolved(address: JoinAddress, default_port: int) -> list[Place]:
    port = address.port or default_port
    with contextlib.suppress(ValueError):
        return [(str(ipaddress.ip_address(address.host)), port)]
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(address.host, port, type=socket.SOCK_STREAM)
    except OSError:
        entries = []
    hosts = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in entries)
    if not hosts:
        raise NotFoundThere(f"Failed to resolve {address.host}: lookup {address.host}: no such host")
    return [(host, port) for host in hosts][:FOUND_MOST]


async def _printed(program: JoinProgram) -> list[str]:
    """The words that a program prints."""
    name, output = program.args[0], TailBuffer(PRINTED_MOST)
    try:
        code = await run(program.args, program.timeout, output)
    except TimeoutError:
        raise NotFoundThere(f"{name}: the program did not end within {program.timeout:g} s") from None
    except OSError as error:
        raise NotFoundThere(f"{name}: the program cannot be run: {error.strerror or error}") from None
    if code != 0:
        raise NotFoundThere(f"{name}: the program ended with code {code}")
    return output.text().split()


def read_address(text: str) -> JoinAddress:
    """An address that a user asks to join. Raises `Refused`."""
    try:
        address = parse_join(text) if text else JoinAddress("")
    except ValueError as error:
        raise Refused(problems_text([f"Failed to resolve {text}: {error}"])) from None
    if not isinstance(address, JoinAddress):
        raise Refused(problems_text([f"Failed to resolve {text}: only retry_join may name a provider"]))
    return address


def problems_text(problems: Sequence[str]) -> str:
    """Errors, one or several, in Serf's words."""
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return f"{count} occurred:" + "".join(f"\n\t* {problem}" for problem in problems) + "\n\n"
