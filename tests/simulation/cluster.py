"""Machines, the servers on them, and what a client sees of them.

A `Host` is a machine: its disk, its clocks, its address. A `Process` is one run of a server on it: everything that the
program would build, on the host's disk and the simulated network. It dies as processes do, without a word.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from lictor.model.errors import LictorError
from lictor.raft.consensus import ServerRecord
from lictor.raft.replica import Replica
from lictor.raft.settings import RaftSettings, World
from lictor.raft.wal import DamagedLog, DiskFailed, DiskFull
from lictor.server.duties import Duties
from lictor.server.server import Server
from lictor.server.session_expiry import SessionExpiry
from lictor.server.tombstones import reap
from lictor.store.store import Store
from tests.simulation.checks import Counts, Observer, WatchedMachine
from tests.simulation.disk import Drive, Worker
from tests.simulation.loop import Broken, Clock, SimLoop
from tests.simulation.network import Network

FOLDER: Final = Path("/data/raft")
EPOCH: Final = 1_700_000_000.0  # where wall clocks begin, in seconds since 1970
LATENCY: Final = 0.001  # seconds from a client to its server


class Unavailable(Exception):
    """The request reached no server."""


class Lost(Exception):
    """No answer came; the request may have reached the server."""


class Process:
    """One run of a server. `up` once it has started; `shown` are the highest indexes that stale reads showed."""

    def __init__(self, cluster: "Cluster", host: "Host", number: int) -> None:
        self.cluster = cluster
        self.host = host
        self.up = False
        self.shown: dict[str, int] = {}
        self.owner = cluster.loop.own(f"{host.name}.{number}", host.clock)
        self.transport = cluster.network.join(self.owner, host.address)
        self.server: Server
        self.replica: Replica
        self.watched: WatchedMachine
        self._duties: Duties | None = None
        self._requests: dict[int, asyncio.Future[tuple[Any, int]]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Build the server and begin; as the owner's code."""
        cluster, host = self.cluster, self.host
        store = Store()

        def agreement(machine: Any) -> Replica:
            self.watched = WatchedMachine(machine, store, self.owner.name, cluster.observer)
            self.replica = Replica(self.watched, host.record, FOLDER, self.transport, cluster.settings, self._world())
            return self.replica

        self.server = server = Server(store, agreement, clock=host.wall_clock)
        self.replica.on_leadership(self._told)
        self._duties = Duties(self.replica)
        self._duties.add("end sessions", SessionExpiry(server).run)
        self._duties.add("reap tombstones", lambda: reap(server))
        try:
            await self.server.start()
        except (DiskFull, DiskFailed) as error:
            self._fatal(error)
            return
        except DamagedLog as error:
            cluster.fail(f"{self.owner.name} does not start: {error}")
        host.number = self.replica.number
        self.up = True
        cluster.note(f"{self.owner.name} is up at {self.watched.position}")

    def _world(self) -> World:
        host = self.host
        return World(
            log_work=Worker(host.drive, self._burnt),
            snapshot_work=Worker(host.drive, self._burnt),
            fatal=self._fatal,
            files=host.drive.disk,
            chance=random.Random(self.cluster.chance.getrandbits(32)),
            lease_clock=host.clock.steady,
        )

    def _burnt(self) -> None:
        self.cluster.note(f"{self.owner.name} ends in the midst of its disk's work")
        self.host.kill(power=self.cluster.chance.random() < 0.5)

    def _fatal(self, error: BaseException) -> None:
        if not isinstance(error, (DiskFull, DiskFailed)):
            self.cluster.fail(f"{self.owner.name} ends by a mistake of its own: {error!r}")
        self.cluster.note(f"{self.owner.name} gives up: {error}")
        self.host.kill(power=False)

    def _told(self, leads: bool) -> None:
        if leads:
            self.cluster.observer.leads(self.owner.name, self.replica.term)

    async def stop(self) -> None:
        """End in order, as on SIGTERM; as the owner's code."""
        if self._duties is not None:
            await self._duties.close()
        await self.server.close()
        self.host.kill(power=False)

    @property
    def leads(self) -> bool:
        """Whether it takes itself for the leader."""
        return self.up and not self.owner.dead and self.replica.is_leader

    async def confirm(self, how: str) -> None:
        """What comes before a read, as the doors do it."""
        if how == "consistent":
            await self.server.confirm(quorum=True)
        elif not self.host.clock.steady() < self.replica.fresh_until:
            await self.server.confirm(quorum=False)

    # -- requests -----------------------------------------------------------------------------------------------------

    def begin(self, number: int, work: Callable[["Process"], Awaitable[Any]], done: "asyncio.Future[Any]") -> None:
        """A request has arrived; as the owner's code."""
        if self.up:
            self._requests[number] = done
            self._tasks[number] = asyncio.get_running_loop().create_task(self._serve(number, work))
        else:
            self._reply(number, done, Unavailable())

    async def _serve(self, number: int, work: Callable[["Process"], Awaitable[Any]]) -> None:
        outcome: Any
        try:
            outcome = (await work(self), self.watched.position)
        except LictorError as error:
            outcome = error
        except Broken as error:
            self.cluster.fail(str(error))
        finally:
            self._tasks.pop(number, None)
        done = self._requests.pop(number, None)
        if done is not None and not self.owner.dead:
            self._reply(number, done, outcome)

    def _reply(self, number: int, done: "asyncio.Future[Any]", outcome: Any) -> None:
        cluster = self.cluster
        cluster.note(f"{self.owner.name} answers {number}")
        cluster.loop.later(cluster.chance.expovariate(1 / LATENCY), _settle, done, outcome)

    def hang_up(self, number: int) -> None:
        """A client has gone away; as the owner's code."""
        self._requests.pop(number, None)
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()

    def died(self) -> None:
        """Its clients notice that it is gone."""
        for done in self._requests.values():
            self.cluster.loop.later(self.cluster.chance.uniform(0.0, 2.0), _settle, done, Lost())
        self._requests.clear()


def _settle(done: "asyncio.Future[Any]", outcome: Any) -> None:
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


class Host:
    """A machine. `number` is that of its raft folder, once it has one."""

    def __init__(self, cluster: "Cluster", name: str, rate: float) -> None:
        self.cluster = cluster
        self.name = name
        self.address = f"{name}:8300"
        self.clock = Clock(lambda: cluster.loop.now, rate, cluster.chance.uniform(10.0, 1e5))
        self.drive = Drive(cluster.loop, random.Random(cluster.chance.getrandbits(32)))
        self.process: Process | None = None
        self.former: list[Process] = []
        self.number = 0
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

    def wipe(self) -> None:
        """Lose the whole disk; the process must be down."""
        self.drive = Drive(self.cluster.loop, random.Random(self.cluster.chance.getrandbits(32)))
        self.number = 0
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
    """All hosts, and what lies between them."""

    def __init__(
        self,
        loop: SimLoop,
        chance: random.Random,
        note: Callable[[str], None],
        fail: Callable[[str], Any],
        settings: RaftSettings,
    ) -> None:
        self.loop = loop
        self.chance = chance
        self.note = note
        self.fail = fail
        self.settings = settings
        self.counts = Counts()
        self.network = Network(loop, random.Random(chance.getrandbits(32)), note, self.look)
        self.observer = Observer(fail, note)
        self.hosts: list[Host] = []
        slowest = chance.uniform(0.8, 0.96)
        self._rates = (slowest, slowest * 1.249) if chance.random() < 0.7 else (1.0, 1.0)
        self._numbers = itertools.count(1)

    def add_host(self) -> Host:
        """One more machine."""
        host = Host(self, f"s{len(self.hosts) + 1}", self.rate())
        self.hosts.append(host)
        return host

    def rate(self) -> float:
        """A clock's rate. Any two differ by less than a quarter, often by nearly that."""
        low, high = self._rates
        return self.chance.choice((low, high, self.chance.uniform(low, high)))

    async def ask(
        self, host: Host, work: Callable[[Process], Awaitable[Any]], patience: float, *, hang_up: bool = False
    ) -> tuple[Any, int]:
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

    def leaders(self) -> list[Host]:
        """The hosts whose servers take themselves for the leader, the one of the latest term last."""
        found = [(host.process.replica.term, host) for host in self.hosts if host.process and host.process.leads]
        return [host for _, host in sorted(found, key=lambda pair: pair[0])]

    def up(self) -> list[Host]:
        """The hosts whose server runs."""
        return [host for host in self.hosts if host.process is not None]
