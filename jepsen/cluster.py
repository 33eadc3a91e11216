"""The servers under test: processes that are started, killed, frozen and started again, and who leads them."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from jepsen.client import Answer, Client, Lost, NotSent
from jepsen.network import Lan, Network, command
from jepsen.programs import SERVER_PORT, Program

PATIENCE: Final = 120.0  # seconds for what has to happen in the end
T = TypeVar("T")

_POLL: Final = 0.1
_MISTAKES: Final = ("Traceback (most recent call last)", "exception was never retrieved", "panic: ")
_DISK_MEGABYTES: Final = 320  # of a server's own small disk: a few segments of the log


class NeverHappened(Exception):
    """Something that had to happen in the end did not."""


class Server:
    """One server: its place, its files and its process. `number` counts from 1. It tells `told` of its `start`s."""

    def __init__(self, number: int, address: str, folder: Path, told: Callable[[str, str], None]) -> None:
        self.told = told
        self.number = number
        self.name = f"n{number}"
        self.address = address
        self.data = folder / self.name
        self.log = folder / f"{self.name}.log"
        self.launch: Sequence[str] = ()
        self.process: asyncio.subprocess.Process | None = None
        self.wanted = False  # whether it is meant to run
        self.frozen = False
        self.crashed = False  # whether it has ended by itself

    def __str__(self) -> str:
        return self.name

    @property
    def running(self) -> bool:
        """Whether there is a process, be it frozen."""
        return self.process is not None and self.process.returncode is None

    @property
    def ending(self) -> str:
        """How it ended, where it was not told to. What a signal ended was ended by the kernel, for lack of memory or a
        mistake in native code, or by somebody else on this machine.
        """
        code = self.process.returncode if self.process is not None else None
        if code is None or code >= 0:
            return f"ended by itself with code {code}"
        return f"was ended by {signal.Signals(-code).name}, which was not sent by this run"

    async def start(self) -> None:
        """Start it, if it does not run."""
        if self.running:
            return
        self.frozen = self.crashed = False
        self.told("start", self.name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CONSUL_", "LICTOR_"))}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.launch,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the harness, which ends it
            )
        self.wanted = True

    async def end(self, number: int) -> None:
        """End it by a signal and wait for that; one that does not end in time is killed. Raises `NeverHappened`."""
        self.wanted = False
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(number)
        if self.frozen and number != signal.SIGKILL:
            self.thaw()
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise NeverHappened(f"{self} did not end {PATIENCE:g} s after {signal.Signals(number).name}") from None

    def freeze(self) -> None:
        """Stop it where it is."""
        if self.running and self.process is not None:
            self.process.send_signal(signal.SIGSTOP)
            self.frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        if self.running and self.process is not None:
            self.process.send_signal(signal.SIGCONT)
        self.frozen = False

    def wipe(self) -> None:
        """Remove all that it has stored. It must not run."""
        for entry in self.data.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


class Cluster:
    """The servers, and the network between them. `told` hears what happens: a kind, and a text.

    The kinds are `start` (of a server, by its name), `leader` (its name, or nothing) and `accident`.
    """

    def __init__(
        self,
        program: Program,
        network: Network,
        folder: Path,
        count: int,
        told: Callable[[str, str], None],
        *,
        own_disks: bool,
    ) -> None:
        self.program = program
        self.network = network
        self.servers = [Server(n, network.address(n), folder, told) for n in range(1, count + 1)]
        self._told = told
        self._folder = folder
        self._own_disks = own_disks

    @property
    def lan(self) -> Lan:
        """The network, where it can be cut."""
        assert isinstance(self.network, Lan)
        return self.network

    async def start(self, configuration: bytes) -> None:
        """Start every server, and wait until they agree on a leader. Raises `NeverHappened` and `CommandFailed`."""
        await self.network.open()
        config = self._folder / "server.json"
        config.write_bytes(configuration)
        for server in self.servers:
            server.data.mkdir()
            if self._own_disks:
                await command("mount", "-t", "tmpfs", "-o", f"size={_DISK_MEGABYTES}m", "none", str(server.data))
            others = [one.address for one in self.servers if one is not server]
            server.launch = [
                *self.network.launcher(server.number),
                *self.program.arguments(server.name, server.address, others, server.data, config, len(self.servers)),
            ]
            await server.start()
        await self.settle()

    async def close(self) -> None:
        """End every process."""
        for server in self.servers:
            server.thaw()
            await server.end(signal.SIGKILL)

    async def save_disks(self) -> None:
        """Copy what is on the servers' own disks to where it outlasts the run."""
        if self._own_disks:
            for server in self.servers:
                (server.data / "ballast").unlink(missing_ok=True)
                target = self._folder / f"{server}-disk"
                await command("cp", "--recursive", "--sparse=always", str(server.data), str(target))

    def tail(self, server: Server, lines: int = 12) -> str:
        """The end of a server's log."""
        text = server.log.read_text(errors="replace") if server.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def confess(self) -> None:
        """Tell of the mistakes of the program that the logs show: errors that nobody had expected."""
        for server in self.servers:
            text = server.log.read_text(errors="replace") if server.log.exists() else ""
            found = [line for line in text.splitlines() if any(mark in line for mark in _MISTAKES)]
            if found:
                self._told("accident", f"{server} logged {len(found)} unexpected errors, first: {found[0][:500]}")

    async def watch(self) -> None:
        """Tell of changes of the leader, and of servers that ended by themselves."""
        known: str | None = None
        while True:
            for server in self.servers:
                if server.wanted and not server.running and server.process is not None:
                    server.wanted, server.crashed = False, True
                    self._told("accident", f"{server} {server.ending}:\n{self.tail(server)}")
            leader = await self.leader()
            name = leader.name if leader else ""
            if name != known:
                known = name
                self._told("leader", name)
            await asyncio.sleep(2 * _POLL)

    async def ask(self, server: Server, method: str, path: str, body: Any = None, timeout: float = 2.0) -> Answer:
        """A request of the harness itself. Raises `NotSent` and `Lost`."""
        client = Client(timeout)
        try:
            return await client.ask(server.address, method, path, b"" if body is None else msgspec.json.encode(body))
        finally:
            client.close()

    async def leader(self) -> Server | None:
        """The server that most of the others take for the leader; None if there is none."""
        views = await asyncio.gather(*(self._leader_of(server) for server in self.servers if server.running))
        counted = Counter(view for view in views if view)
        if not counted:
            return None
        address, votes = counted.most_common(1)[0]
        if 2 * votes <= len(self.servers):
            return None
        return next((one for one in self.servers if f"{one.address}:{SERVER_PORT}" == address), None)

    async def _leader_of(self, server: Server) -> str:
        if server.frozen:
            return ""
        try:
            answer = await self.ask(server, "GET", "/v1/status/leader", timeout=1.0)
            return str(msgspec.json.decode(answer.body)) if answer.status == 200 else ""
        except (NotSent, Lost, msgspec.DecodeError):
            return ""

    async def any_leader(self) -> Server:
        """The leader, as soon as there is one. Raises `NeverHappened`."""
        return await self.eventually(self.leader, "the servers agree on a leader")

    async def settle(self) -> None:
        """Wait until every server that is meant to run takes writes and is one of the peers. Raises `NeverHappened`."""
        for server in self.servers:
            if server.wanted:
                await self.eventually(partial(self.ready, server), f"{server} takes writes and is a voter")

    async def ready(self, server: Server) -> bool:
        """Whether a server takes writes, reads its own, and all meant to run are voters in its configuration."""
        if not server.running:
            raise NeverHappened(f"{server} {server.ending}; its log ends:\n{self.tail(server)}")
        try:
            key = f"/v1/kv/jepsen-harness/{server}"
            written = await self.ask(server, "PUT", key, timeout=10.0)
            seen = await self.ask(server, "GET", f"{key}?consistent", timeout=10.0)
            peers = await self.ask(server, "GET", "/v1/operator/raft/configuration?stale", timeout=10.0)
            if {written.status, seen.status, peers.status} != {200}:
                return False
            found = {one["Node"] for one in msgspec.json.decode(peers.body)["Servers"] if one["Voter"]}
            return found >= {one.name for one in self.servers if one.wanted}
        except (NotSent, Lost, msgspec.DecodeError, KeyError):
            return False

    async def eventually(self, condition: Callable[[], Awaitable[T | None]], what: str) -> T:
        """Wait for a condition and return its value. Raises `NeverHappened`."""
        value: T | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not (value := await condition()):
                    await asyncio.sleep(_POLL)
        if not value:
            raise NeverHappened(f"expected within {PATIENCE:g} s: {what}")
        return value
