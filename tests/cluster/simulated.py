"""Servers on virtual time that have to find each other: real formation, real consensus, simulated disk and network."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from lictor.raft.consensus import Peer, ServerRecord
from lictor.raft.replica import Replica
from lictor.raft.settings import RaftSettings, World
from lictor.raft.wal import DiskFull
from lictor.server.formation import Formation
from lictor.server.formation_file import NAME
from lictor.server.formation_settings import FormationSettings
from tests.simulation.disk import Drive, Worker
from tests.simulation.loop import Clock, SimLoop
from tests.simulation.network import Network

FOLDER: Final = Path("/data/raft")
SETTINGS: Final = RaftSettings(election_timeout=1.0, segment_bytes=1 << 16)


class Lines:
    """A state machine that keeps every proposal."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def apply(self, proposals: Sequence[bytes]) -> list[Any]:
        self.lines += proposals
        return [len(self.lines)] * len(proposals)

    def image(self) -> "Lines":
        copy = Lines()
        copy.lines = list(self.lines)
        return copy

    def encode(self) -> Iterator[bytes]:
        yield b"\n".join(self.lines)

    def check(self, pieces: Iterator[bytes]) -> None:
        pass  # any bytes are lines

    async def load(self, pieces: Iterator[bytes]) -> None:
        state = b"".join(pieces)
        self.lines = state.split(b"\n") if state else []


class Process:
    """One run of a server."""

    def __init__(self, host: "Host") -> None:
        world = host.world
        self.host = host
        self.owner = world.loop.own(f"{host.name}.{host.lives}", host.clock)
        self.transport = world.network.join(self.owner, host.address)
        self.machine = Lines()
        self.given_up = ""
        self.up = False
        work = Worker(host.drive, self._burnt)
        raft = World(
            log_work=work,
            snapshot_work=Worker(host.drive, self._burnt),
            fatal=self._fatal,
            files=host.drive.disk,
            chance=random.Random(world.chance.getrandbits(32)),
            lease_clock=host.clock.steady,
        )
        self.replica = Replica(self.machine, self.record, FOLDER, self.transport, SETTINGS, raft)
        self.formation = Formation(
            self.replica, self.transport, self.record, FOLDER, host.settings, raft, self._give_up, _resolve
        )

    def record(self) -> ServerRecord:
        host = self.host
        return ServerRecord(f"id-{host.name}", host.name, host.address)

    async def start(self) -> None:
        recover, self.host.recover = self.host.recover, None
        try:
            await self.replica.start(recover)
            await self.formation.start()
        except DiskFull:
            self.host.kill()
        self.up = True

    async def leave(self) -> bool:
        left = await self.formation.leave()
        await self.formation.close()
        await self.replica.close()
        self.host.kill()
        return left

    def _burnt(self) -> None:
        self.host.kill(power=True)

    def _fatal(self, error: BaseException) -> None:
        self.host.world.failures.append(f"{self.owner.name}: {error!r}")

    def _give_up(self, reason: str) -> None:
        self.given_up = reason


async def _resolve(host: str, port: int) -> list[str]:
    if host == "nowhere":
        raise OSError("no such host")
    return [f"{host}:{port}"]


class Host:
    """A machine. `name` orders the node ids; `settings` count at the next start."""

    def __init__(self, world: "Cluster", name: str, settings: FormationSettings) -> None:
        self.world = world
        self.name = name
        self.address = f"{name}:8300"
        self.settings = settings
        self.clock = Clock(lambda: world.loop.now, 1.0, 100.0)
        self.drive = Drive(world.loop, random.Random(world.chance.getrandbits(32)))
        self.process: Process | None = None
        self.lives = 0
        self.recover: list[Peer] | None = None  # the servers with which it goes on at the next start
        self._power_lost = False

    def start(self) -> None:
        """Start the server, if it is down."""
        if self.process is not None:
            return
        if self._power_lost:
            self.drive.disk.lose_power()
        else:
            self.drive.disk.reopen()
        self._power_lost = False
        self.lives += 1
        context = self.world.loop.own(f"boot-{self.name}", self.clock)
        self.world.loop.later(0.0, self._launch, owner=context)

    def _launch(self) -> None:
        if self.process is None:
            self.process = process = Process(self)
            self.world.loop.later(0.0, _begin, process, owner=process.owner)

    def kill(self, *, power: bool = False) -> None:
        """End the server on the spot; with `power`, lose what was not synced."""
        process, self.process = self.process, None
        self._power_lost = self._power_lost or power
        if process is not None:
            self.world.loop.kill(process.owner)
            self.world.network.leave(process.transport, silently=power)

    def wipe(self) -> None:
        """Lose the disk; the server must be down."""
        self.drive = Drive(self.world.loop, random.Random(self.world.chance.getrandbits(32)))
        self._power_lost = False

    def ask(self, work: Callable[[Process], Any]) -> "asyncio.Future[Any]":
        """Have a coroutine run as the server's code. Returns its result."""
        process = self.process
        assert process is not None
        done: asyncio.Future[Any] = self.world.loop.create_future()
        self.world.loop.later(0.0, _work, work, process, done, owner=process.owner)
        return done

    @property
    def promise(self) -> str:
        """The id of the promise on the disk, or empty."""
        disk = self.drive.disk
        if NAME not in disk.names(FOLDER):
            return ""
        file = disk.open(FOLDER / NAME)
        standing = msgspec.json.decode(file.read(0, 1 << 20))
        file.close()
        return standing["promise"]["id"] if standing["promise"] else ""


def _begin(process: Process) -> None:
    asyncio.get_running_loop().create_task(process.start())


def _work(work: Callable[[Process], Any], process: Process, done: "asyncio.Future[Any]") -> None:
    async def run() -> None:
        try:
            result = await work(process)
        except Exception as error:
            if not done.done():
                done.set_exception(error)
        else:
            if not done.done():
                done.set_result(result)

    asyncio.get_running_loop().create_task(run())


class Cluster:
    """All hosts. `formed` are the cluster memberships seen so far: the numbers of each server's first configuration."""

    def __init__(self, loop: SimLoop, seed: int) -> None:
        self.loop = loop
        self.chance = random.Random(seed)
        self.network = Network(loop, random.Random(self.chance.getrandbits(32)), lambda _: None, lambda: None)
        self.hosts: dict[str, Host] = {}
        self.failures: list[str] = []

    def add(self, name: str, join: Sequence[str], expect: int = 3, **more: Any) -> Host:
        """A new machine; not started."""
        settings = FormationSettings(
            datacenter=more.pop("datacenter", "dc1"), expect=expect, join=tuple(join), retry_interval=5.0, **more
        )
        self.hosts[name] = Host(self, name, settings)
        return self.hosts[name]

    def leader(self) -> Host | None:
        """The host that leads, if any."""
        found = [
            host for host in self.hosts.values() if host.process and host.process.up and host.process.replica.is_leader
        ]
        return max(found, key=lambda host: host.process.replica.term, default=None)  # type: ignore[union-attr]

    def members(self, name: str) -> list[str]:
        """The names in a server's configuration."""
        process = self.hosts[name].process
        return [peer.node for peer in process.replica.peers()] if process is not None and process.up else []

    def agree(self, *names: str) -> bool:
        """Whether these and no others are the configuration of each of these, and they know a leader."""
        for name in names:
            process = self.hosts[name].process
            if process is None or not process.up or not process.replica.leader:
                return False
            if sorted(self.members(name)) != sorted(names):
                return False
        return True

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 120.0) -> None:
        """Wait for a condition, on virtual time."""
        end = self.loop.now + seconds
        while not condition():
            assert not self.failures, self.failures
            assert self.loop.now < end, f"waited {seconds:g} s for {what}: {self.describe()}"
            await asyncio.sleep(0.05)

    def describe(self) -> str:
        """Where everybody is, for failures."""
        parts = []
        for host in self.hosts.values():
            process = host.process
            if process is None or not process.up:
                parts.append(f"{host.name} down")
            else:
                replica = process.replica
                parts.append(
                    f"{host.name} blank={replica.blank} leader={replica.leader or '-'} peers={self.members(host.name)}"
                )
        return "; ".join(parts)
