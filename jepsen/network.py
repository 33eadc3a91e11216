"""The network between the servers, and what can be done to it.

`Lan` is a bridge with a network namespace for each server; it lives in the sandbox's private network. Packets are
dropped where they arrive, by their sender's address, so that each direction between each two servers is cut on its
own; clients, who sit at the bridge, always reach every server. `Loopback` needs no rights: each server has an address
of its own out of 127.0.0.0/8, and nothing can be cut.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

_SUBNET: Final = "10.77.0"
_RULES: Final = """\
table inet jepsen {{
    chain arriving {{
        type filter hook input priority 0
    }}
}}
flush chain inet jepsen arriving
{rules}
"""


class CommandFailed(Exception):
    """A program that sets up the network or a disk failed; the message holds its command line and what it said."""


async def command(*words: str, given: str = "") -> str:
    """Run a program to its end. Returns what it printed; raises `CommandFailed`."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the harness
    )
    out, err = await process.communicate(given.encode())
    if process.returncode != 0:
        raise CommandFailed(f"{' '.join(words)}: {err.decode(errors='replace').strip()}")
    return out.decode(errors="replace")


class Network(Protocol):
    """Addresses for servers, which are numbered from 1."""

    def address(self, server: int) -> str:
        """The server's own IP address."""
        ...

    def launcher(self, server: int) -> Sequence[str]:
        """What to put before a command that is to run at the server's place."""
        ...

    async def open(self) -> None:
        """Make what is needed. Raises `CommandFailed`."""
        ...


class Loopback:
    """Every server on this machine's loopback, on an address of its own."""

    def __init__(self, chance: random.Random) -> None:
        self._subnet = f"127.{chance.randrange(64, 250)}.{chance.randrange(1, 250)}"

    def address(self, server: int) -> str:
        return f"{self._subnet}.{server}"

    def launcher(self, server: int) -> Sequence[str]:
        return ()

    async def open(self) -> None:
        """There is nothing to make."""


class Lan:
    """A bridge and a namespace a server. Faults add up: what is cut twice has to be healed twice."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._cuts: Counter[tuple[int, int]] = Counter()  # (from, to)
        self._losses: Counter[int] = Counter()  # percent of what arrives at a server
        self._changing = asyncio.Lock()

    def address(self, server: int) -> str:
        return f"{_SUBNET}.{server}"

    def launcher(self, server: int) -> Sequence[str]:
        return ("ip", "netns", "exec", f"n{server}")

    async def open(self) -> None:
        await command("mount", "-t", "tmpfs", "none", "/run")  # where `ip netns` keeps its names
        await command("ip", "link", "set", "lo", "up")
        await command("ip", "link", "add", "lan", "type", "bridge")
        await command("ip", "address", "add", f"{_SUBNET}.254/24", "dev", "lan")
        await command("ip", "link", "set", "lan", "up")
        for server in range(1, self._count + 1):
            name = f"n{server}"
            await command("ip", "netns", "add", name)
            await command("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
            await command("ip", "link", "set", f"to-{name}", "master", "lan", "up")
            await command("ip", "-n", name, "address", "add", f"{self.address(server)}/24", "dev", "eth0")
            await command("ip", "-n", name, "link", "set", "eth0", "up")
            await command("ip", "-n", name, "link", "set", "lo", "up")

    async def cut(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Drop all that the first of each pair sends to the second."""
        await self._change(cuts=Counter(pairs))

    async def mend(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Undo a `cut` of the same pairs."""
        await self._change(cuts=Counter(dict.fromkeys(pairs, -1)))

    async def lose(self, server: int, percent: int) -> None:
        """Drop so many more in a hundred of the packets that arrive at a server; negative to undo it."""
        await self._change(losses=Counter({server: percent}))

    async def narrow(self, server: int, kbit: int) -> None:
        """Let a server send no more than so many kbit/s, what exceeds it waiting up to a second; 0 for no limit."""
        device = ("ip", "netns", "exec", f"n{server}", "tc", "qdisc")
        if kbit:
            limit = ("tbf", "rate", f"{kbit}kbit", "burst", "16kbit", "latency", "1000ms")
            await command(*device, "replace", "dev", "eth0", "root", *limit)
        else:
            await command(*device, "delete", "dev", "eth0", "root")

    async def _change(self, cuts: Counter[tuple[int, int]] | None = None, losses: Counter[int] | None = None) -> None:
        async with self._changing:
            cuts, losses = cuts or Counter(), losses or Counter()
            self._cuts.update(cuts)
            self._losses.update(losses)
            for server in sorted({to for _, to in cuts} | set(losses)):
                await self._apply(server)

    async def _apply(self, server: int) -> None:
        rules = []
        for (sender, to), times in sorted(self._cuts.items()):
            if to == server and times > 0:
                rules.append(f"add rule inet jepsen arriving ip saddr {self.address(sender)} drop")
        if self._losses[server] > 0:
            own = f"{_SUBNET}.1-{_SUBNET}.{self._count}"
            lost = f"numgen random mod 100 < {min(self._losses[server], 100)}"
            rules.append(f"add rule inet jepsen arriving ip saddr {own} {lost} drop")
        await command(
            "ip", "netns", "exec", f"n{server}", "nft", "-f", "-", given=_RULES.format(rules="\n".join(rules))
        )
