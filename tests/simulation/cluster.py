"""Machines, and the servers on them as a client and an operator see them.

A `Host` is a machine: its disk, its clocks, its address. What runs on it is a `Process`, one after the other.
"""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

from lictor.raft.consensus import ServerRecord
from lictor.raft.core.message import Message, MessageKind
from lictor.raft.envelope import MESSAGES
from lictor.raft.settings import RaftSettings
from lictor.server.autopilot_config import AutopilotConfig
from tests.simulation.checks import Counts, Observer
from tests.simulation.disk import Drive
from tests.simulation.loop import Clock, SimLoop
from tests.simulation.network import Network
from tests.simulation.process import LATENCY, Lost, Process, Unavailable, Work

EPOCH: Final = 1_700_000_000.0  # where wall clocks begin, in seconds since 1970
VOTE_BYTES: Final = 400  # no envelope with a vote is longer

_decode: Final = msgspec.msgpack.Decoder(tuple[int, int, str, float, int, float, tuple[Message, ...]]).decode


class Host:
    """A machine. `number` is that of its raft folder, once it has one; `wiped` if it has lost one."""

    def __init__(self, cluster: "Cluster", name: str, rate: float) -> None:
        self.cluster = cluster
        self.name = name
        self.address = f"{name}:8300"
        self._moves = 0
        self.clock = Clock(lambda: cluster.loop.now, rate, cluster.chance.uniform(10.0, 1e5))
        self.drive = Drive(cluster.loop, random.Random(cluster.chance.getrandbits(32)))
        self.process: Process | None = None
        self.former: list[Process] = []
        self.number = 0
        self.wiped = False
        self.wall_offset = cluster.chance.uniform(-5.0, 5.0)
        self.frozen = False
        self._power_lost = False
        self._lives = 0

    def record(self) -> ServerRecord:
        """This server as the others should know it."""
        return ServerRecord(f"id-{self.name}", self.name, self.address, self.number)

    def wall_clock(self) -> float:
        """Seconds since 1970, as this machine has it."""
        return EPOCH + self.wall_offset + self.clock.steady()

    def start(self) -> None:
        """Start the server, if it is down."""
        if self.process is not None:
            return
        disk = self.drive.disk
        if self._power_lost:
            disk.lose_power()
        else:
            disk.reopen()
        self._power_lost = False
        self._lives += 1
        self.process = process = Process(self.cluster, self, self._lives)
        self.cluster.note(f"{process.owner.name} starts")
        self.cluster.loop.later(0.0, self._launch, process, owner=process.owner)

    def _launch(self, process: Process) -> None:
        asyncio.get_running_loop().create_task(process.start())

    def kill(self, *, power: bool) -> None:
        """End the process on the spot; with `power`, the machine loses what it had not synced."""
        process, self.process = self.process, None
        self._power_lost = self._power_lost or power
        if process is None:
            return
        cluster = self.cluster
        cluster.note(f"{process.owner.name} is killed{' with its machine' if power else ''}")
        self.former.append(process)
        cluster.loop.kill(process.owner)
        cluster.network.leave(process.transport, silently=power)
        process.died()
        if self.frozen:
            self.thaw()

    def move(self) -> None:
        """Get another address; the process must be down."""
        self._moves += 1
        self.address = f"{self.name}-{self._moves}:8300"

    def wipe(self) -> None:
        """Lose the whole disk; the process must be down."""
        self.drive = Drive(self.cluster.loop, random.Random(self.cluster.chance.getrandbits(32)))
        self.number = 0
        self.wiped = True
        self._power_lost = False

    def freeze(self, *, suspend: bool) -> None:
        """Stop the process; with `suspend`, the whole machine, and the clock that timers go by."""
        if self.process is not None:
            self.cluster.note(f"{self.name} is {'suspended' if suspend else 'paused'}")
            self.cluster.loop.pause(self.process.owner)
            self.frozen = True
            if suspend:
                self.clock.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        if self.frozen:
            self.cluster.note(f"{self.name} goes on")
            self.frozen = False
            self.clock.wake()
            if self.process is not None:
                self.cluster.loop.resume(self.process.owner)


class Cluster:
    """All hosts, and what lies between them. `by_itself` if the servers form the cluster, `expect` of them, and an
    operator need not.
    """

    def __init__(
        self,
        loop: SimLoop,
        chance: random.Random,
        note: Callable[[str], None],
        fail: Callable[[str], NoReturn],
        settings: RaftSettings,
        autopilot: AutopilotConfig,
    ) -> None:
        self.loop = loop
        self.chance = chance
        self.note = note
        self.fail = fail
        self.settings = settings
        self.autopilot = autopilot
        self.by_itself = chance.random() < 0.5
        self.expect = 0
        self.counts = Counts()
        self.network = Network(loop, random.Random(chance.getrandbits(32)), note, self.look)
        self.network.sent = self._overhear
        self.observer = Observer(fail, note)
        self.traps: list[Callable[[Message], None]] = []  # told of each vote that is asked for, or given
        self.quiet = 0  # how many want clients to write nothing for a while
        self.hosts: list[Host] = []
        slowest = chance.uniform(0.8, 0.96)
        self.rates = (slowest, slowest * 1.249) if chance.random() < 0.7 else (1.0, 1.0)
        self._numbers = itertools.count(1)

    def add_host(self) -> Host:
        """One more machine."""
        host = Host(self, f"s{len(self.hosts) + 1}", self.rate())
        self.hosts.append(host)
        return host

    def rate(self) -> float:
        """A clock's rate. Any two differ by less than a quarter, often by nearly that."""
        low, high = self.rates
        return self.chance.choice((low, high, self.chance.uniform(low, high)))

    async def ask(self, host: Host, work: Work, patience: float, *, hang_up: bool = False) -> tuple[Any, int]:
        """Have work done by a host's server, as its code. Returns the answer and the server's position then.

        Raises `Unavailable`, `Lost`, and the `LictorError` that the work raised. With `hang_up`, the server is told
        when the client waits no more.
        """
        number = next(self._numbers)
        await asyncio.sleep(self.chance.expovariate(1 / LATENCY))
        process = host.process
        if process is None:
            raise Unavailable
        done: asyncio.Future[tuple[Any, int]] = self.loop.create_future()
        self.loop.later(0.0, process.begin, number, work, done, owner=process.owner)
        try:
            async with asyncio.timeout(patience):
                return await done
        except TimeoutError:
            if hang_up:
                self.loop.later(0.0, process.hang_up, number, owner=process.owner)
            raise Lost from None

    def _overhear(self, who: str, method: str, body: bytes) -> None:
        """A server sends a message: see whom it votes for."""
        if method != MESSAGES or len(body) > VOTE_BYTES:
            return
        for message in _decode(body)[-1]:
            if message.kind is MessageKind.VOTE_RESPONSE and not message.reject:
                self.observer.votes(who, message.sender, message.term, message.to)
            elif message.kind is not MessageKind.VOTE:
                continue
            for trap in list(self.traps):
                trap(message)

    def look(self) -> None:
        """See who leads, and whose lease lasts, at this moment."""
        leading: list[tuple[int, str]] = []
        leases: list[tuple[int, str]] = []
        for host in self.hosts:
            process = host.process
            if process is not None and process.up and process.replica.node.is_leader:
                term, name = process.replica.term, process.owner.name
                self.observer.leads(name, term)
                leading.append((term, name))
                if host.clock.steady() < process.replica.fresh_until:
                    leases.append((term, name))
        for earlier, holder in leases:
            for later, leader in leading:
                if later > earlier:
                    self.fail(f"{leader} leads term {later} while the lease of {holder} in term {earlier} lasts")

    def stand(self, host: Host) -> None:
        """Have a server stand for election now, as its timeout would have it do at any time when it hears no leader."""
        process = host.process
        if process is not None and process.up:
            self.loop.later(0.0, _stand, process, owner=process.owner)

    def leaders(self) -> list[Host]:
        """The hosts whose servers take themselves for the leader, the one of the latest term last."""
        found = [(host.process.replica.term, host) for host in self.hosts if host.process and host.process.leads]
        return [host for _, host in sorted(found, key=lambda pair: pair[0])]

    def votes(self, host: Host) -> bool:
        """Whether a host is a voter, as the leader sees it."""
        leaders = self.leaders()
        process = leaders[-1].process if leaders else None
        return process is not None and any(
            peer.voter and peer.number == host.number for peer in process.replica.peers()
        )

    def voters(self) -> list[Host]:
        """The hosts whose server runs and is a voter, as the leader sees it."""
        leaders = self.leaders()
        if not leaders or leaders[-1].process is None:
            return []
        numbers = {peer.number for peer in leaders[-1].process.replica.peers() if peer.voter}
        return [host for host in self.hosts if host.process and host.process.up and host.number in numbers]


def _stand(process: Process) -> None:
    process.replica.node.campaign()
    process.replica.touch()
