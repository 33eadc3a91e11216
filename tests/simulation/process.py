"""One run of a server on a machine: everything that the program would build, on the host's disk and the simulated
network. It dies as processes do, without a word.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lictor.model.errors import LictorError
from lictor.raft.consensus import Machine
from lictor.raft.replica import Replica
from lictor.raft.settings import World
from lictor.raft.wal import DamagedLog, DiskFailed, DiskFull
from lictor.server.formation import Formation
from lictor.server.formation_settings import FormationSettings
from lictor.server.leadership import Leadership
from lictor.server.server import Server
from lictor.server.subscriptions import Subscriptions
from lictor.store.store import Store
from tests.simulation.checks import WatchedMachine
from tests.simulation.disk import Worker
from tests.simulation.loop import Broken

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster, Host

FOLDER: Final = Path("/data/raft")
DATACENTER: Final = "dc1"
LATENCY: Final = 0.001  # seconds from a client to its server

Work = Callable[["Process"], Awaitable[Any]]


class Unavailable(Exception):
    """The request reached no server."""


class Lost(Exception):
    """No answer came; the request may have reached the server."""


class Process:
    """See above. `up` once the server has started; `shown` are the highest indexes that stale reads showed."""

    def __init__(self, cluster: "Cluster", host: "Host", number: int) -> None:
        self.cluster = cluster
        self.host = host
        self.up = False
        self.shown: dict[str, int] = {}
        self.owner = cluster.loop.own(f"{host.name}.{number}", host.clock)
        self.transport = cluster.network.join(self.owner, host.address)
        self.server: Server
        self.replica: Replica
        self.formation: Formation
        self.leadership: Leadership
        self.subscriptions: Subscriptions
        self.watched: WatchedMachine
        self._requests: dict[int, asyncio.Future[tuple[Any, int]]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    # -- life; as the owner's code ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Build the server and begin."""
        cluster, host = self.cluster, self.host
        store, world = Store(), self._world()

        def agreement(machine: Machine) -> Replica:
            self.watched = WatchedMachine(machine, store, self.owner.name, cluster.observer)
            self.replica = Replica(self.watched, host.record, FOLDER, self.transport, cluster.settings, world)
            return self.replica

        self.server = Server(store, agreement, clock=host.wall_clock)
        chance = random.Random(self.owner.name)  # of its own, so that a seed goes on as it did without
        self.subscriptions = Subscriptions(self.server, self.transport, DATACENTER, chance)
        self.formation = Formation(
            self.replica,
            self.transport,
            host.record,
            FOLDER,
            self._formation_settings(),
            world,
            self._give_up,
            self._resolve,
        )
        self.leadership = Leadership(
            self.server,
            self.transport,
            lambda: self.formation.hello,
            members_changed=lambda: None,
            first_autopilot=cluster.autopilot,
        )
        try:
            await self.server.start()
            host.number = self.replica.number
            raft = self.replica.node._raft
            cluster.observer.remembers(self.owner.name, host.number, raft.term, raft.vote)
            self.up = True
            await self.formation.start()
        except (DiskFull, DiskFailed) as error:
            self._fatal(error)
            return
        except DamagedLog as error:
            cluster.fail(f"{self.owner.name} does not start: {error}")
        self.leadership.start()
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

    def _formation_settings(self) -> FormationSettings:
        cluster = self.cluster
        names = tuple(host.name for host in cluster.hosts)
        if not cluster.by_itself:
            return FormationSettings(datacenter=DATACENTER, join=names)
        # Who replaces a server takes `bootstrap` out of its configuration: it is to join, not to begin anew.
        alone = cluster.expect == 1 and self.host is cluster.hosts[0] and not self.host.wiped
        expect = cluster.expect if cluster.expect > 1 or alone else 0
        return FormationSettings(datacenter=DATACENTER, expect=expect, alone=alone, join=names)

    async def _resolve(self, name: str, port: int) -> list[str]:
        """What the name service says."""
        await asyncio.sleep(LATENCY)
        return [host.address for host in self.cluster.hosts if host.name == name]

    def _burnt(self) -> None:
        self.cluster.note(f"{self.owner.name} ends in the midst of its disk's work")
        self.host.kill(power=self.cluster.chance.random() < 0.5)

    def _fatal(self, error: BaseException) -> None:
        if not isinstance(error, (DiskFull, DiskFailed)):
            self.cluster.fail(f"{self.owner.name} ends by a mistake of its own: {error!r}")
        self.cluster.note(f"{self.owner.name} gives up: {error}")
        self.host.kill(power=False)

    def _give_up(self, why: str) -> None:
        self.cluster.fail(f"{self.owner.name} gives up joining, though it is to try for ever: {why}")

    async def stop(self) -> None:
        """End in order, as on SIGTERM."""
        await self.subscriptions.close()
        await self.leadership.close()
        await self.formation.close()
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

    # -- requests; as the owner's code --------------------------------------------------------------------------------

    def begin(self, number: int, work: Work, done: "asyncio.Future[Any]") -> None:
        """A request has arrived."""
        if self.up:
            self._requests[number] = done
            self._tasks[number] = asyncio.get_running_loop().create_task(self._serve(number, work))
        else:
            self._reply(number, done, Unavailable())

    async def _serve(self, number: int, work: Work) -> None:
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
        """A client has gone away."""
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
