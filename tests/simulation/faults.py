"""What happens to servers: an operator who means well, and everything else.

Each fault begins at some time, lasts for some, and is then taken back, so that the next one finds a cluster that may
have come back to health; several may be under way at once. `Faults.mood` says how often each kind comes in one
simulation: in some only one kind, so that its effects are not drowned.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from lictor.model.errors import LictorError
from lictor.raft.consensus import ServerChange
from lictor.raft.core.message import NO_LIMIT, EntryKind
from tests.simulation.ambushes import Ambushes
from tests.simulation.cluster import Cluster, Host
from tests.simulation.network import Weather
from tests.simulation.process import Lost, Process, Unavailable

CHANGE_PATIENCE: Final = 10.0  # seconds that an operator waits for a change of the configuration

# Kind of fault, and how often it comes, as a weight.
WEIGHTS: Final = {
    "kill": 4.0,
    "kill_all": 0.5,
    "power": 3.0,
    "bounce": 3.0,
    "fuse": 3.0,
    "restart": 1.0,
    "cut": 5.0,
    "one_way": 3.0,
    "link": 3.0,
    "isolate_leader": 3.0,
    "breaks": 1.0,
    "weather": 2.0,
    "pause": 4.0,
    "suspend": 2.0,
    "turn_clock": 1.0,
    "turn_wall": 0.5,
    "stall": 3.0,
    "full": 1.5,
    "failed_sync": 1.0,
    "transfer": 3.0,
    "member": 2.0,
    "replace": 1.5,
    "leave": 1.0,
    "move": 1.0,
    "usurper": 3.0,
    "handed_over": 2.0,
    "deposed": 2.0,
    "forgetful": 1.0,
    "late_vote": 1.0,
    "two_majorities": 1.0,
}


class Faults:
    """Does things to a cluster, until told to stop."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.chance = chance
        self.done = False
        self.gap = chance.choice((0.3, 1.0, 3.0))  # seconds between two faults, on average
        self.length = chance.choice((0.5, 2.0, 6.0))  # seconds that one lasts, on average
        self.mood = self._mood()
        if cluster.autopilot.cleanup_dead_servers:
            # Autopilot must not take a server out just when another one is lost for good.
            self.mood["replace"] = 0.0
        self.chaos = chance.random() < 0.2  # whether the network may lose, double and reorder single messages
        self._ambushes = Ambushes(cluster, chance)
        self._running: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._doubtful = False

    def _mood(self) -> dict[str, float]:
        chance = self.chance
        if chance.random() < 0.3:
            some = chance.sample(sorted(WEIGHTS), 2)
            return {kind: WEIGHTS[kind] for kind in sorted(some)}
        return {kind: weight * chance.choice((0.0, 1.0, 1.0, 4.0)) for kind, weight in WEIGHTS.items()}

    async def run(self) -> None:
        """Begin one fault after the other."""
        chance = self.chance
        kinds, weights = list(self.mood), list(self.mood.values())
        doing: dict[str, Callable[[], Awaitable[None]]] = {kind: self._doing(kind) for kind in kinds}
        while not self.done and any(weights):
            await asyncio.sleep(chance.expovariate(1 / self.gap))
            kind = chance.choices(kinds, weights)[0]
            self.cluster.note(f"fault {kind}")
            task = asyncio.ensure_future(doing[kind]())
            self._running.add(task)
            task.add_done_callback(self._ended)
            if len(self._running) > 3:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    def _doing(self, kind: str) -> Callable[[], Awaitable[None]]:
        """What a kind of fault does: it is a method here, or an ambush."""
        doing: Callable[[], Awaitable[None]] | None = getattr(self, f"_{kind}", None)
        return doing if doing is not None else partial(self._ambushes.run, kind)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.cluster.loop.errors.append(f"a fault failed: {task.exception()!r}")

    async def heal(self) -> None:
        """Stop, and take back all that lasts."""
        self.done = True
        for task in list(self._running):
            task.cancel()
        cluster = self.cluster
        cluster.network.cut.clear()
        cluster.network.weather = Weather()
        for host in cluster.hosts:
            host.thaw()
            disk = host.drive.disk
            disk.fuse, disk.fail_syncs, disk.capacity, disk.refuse = None, 0, None, frozenset()
            host.drive.stalled_until = 0.0
            host.start()

    async def _last(self) -> None:
        await asyncio.sleep(self.chance.expovariate(1 / self.length))

    def _some(self) -> Host:
        """A host; the leader's more often than its share."""
        leaders = self.cluster.leaders()
        return leaders[-1] if leaders and self.chance.random() < 0.4 else self.chance.choice(self.cluster.hosts)

    # -- processes and machines ---------------------------------------------------------------------------------------

    async def _kill(self) -> None:
        await self._end([self._some()], power=False)

    async def _power(self) -> None:
        await self._end([self._some()], power=True)

    async def _kill_all(self) -> None:
        power = self.chance.random() < 0.5
        await self._end(self.cluster.hosts, power=power)

    async def _bounce(self) -> None:
        """Several times: somebody ends, and is back before the others miss it."""
        for _ in range(self.chance.randint(1, 6)):
            host = self._some()
            if host.process is not None:
                self.cluster.counts.crashes += 1
                host.kill(power=self.chance.random() < 0.3)
                await asyncio.sleep(self.chance.uniform(0.0, 0.1))
            host.start()
            await asyncio.sleep(self.chance.uniform(0.0, self.length))

    async def _end(self, hosts: list[Host], *, power: bool) -> None:
        for host in hosts:
            if host.process is not None:
                self.cluster.counts.crashes += 1
                host.kill(power=power)
        await self._last()
        for host in hosts:
            host.start()

    async def _fuse(self) -> None:
        host = self._some()
        if host.process is not None:
            self.cluster.counts.crashes += 1
            host.drive.disk.fuse = self.chance.randrange(self.chance.choice((3, 30)))
            await self._last()
            host.drive.disk.fuse = None
            await self._last()
        host.start()

    async def _restart(self) -> None:
        """In order, as an operator does it."""
        host = self._some()
        process = host.process
        if process is not None and process.up:
            self.cluster.loop.later(0.0, _begin, process.stop, owner=process.owner)
            await self._last()
        host.start()

    async def _pause(self) -> None:
        await self._freeze(suspend=False)

    async def _suspend(self) -> None:
        await self._freeze(suspend=True)

    async def _freeze(self, *, suspend: bool) -> None:
        host = self._some()
        if host.frozen:
            return
        self.cluster.counts.pauses += 1
        host.freeze(suspend=suspend)
        await self._last()
        host.thaw()

    async def _turn_clock(self) -> None:
        self._some().clock.turn(self.cluster.rate())

    async def _turn_wall(self) -> None:
        self._some().wall_offset += self.chance.uniform(-100.0, 100.0)

    # -- the network --------------------------------------------------------------------------------------------------

    async def _cut(self) -> None:
        hosts = self.cluster.hosts
        side = {host.address for host in hosts if self.chance.random() < 0.5}
        pairs = {(a.address, b.address) for a in hosts for b in hosts if (a.address in side) != (b.address in side)}
        if self.chance.random() < 0.3:  # a partial one: some get through to the other side
            pairs = {(a, b) for a, b in pairs if hash_pair(a, b) % 3}
        await self._separate(pairs)

    async def _one_way(self) -> None:
        hosts = self.cluster.hosts
        host = self._some()
        out = self.chance.random() < 0.5
        others = [other for other in hosts if other is not host and self.chance.random() < 0.8]
        pairs = {(host.address, other.address) if out else (other.address, host.address) for other in others}
        await self._separate(pairs)

    async def _link(self) -> None:
        """Two do not hear each other, and all others hear both."""
        one, other = self._some().address, self.chance.choice(self.cluster.hosts).address
        if one != other:
            await self._separate({(one, other), (other, one)})

    async def _isolate_leader(self) -> None:
        leaders = self.cluster.leaders()
        if leaders:
            one = leaders[-1].address
            others = [host.address for host in self.cluster.hosts if host.address != one]
            await self._separate({(one, other) for other in others} | {(other, one) for other in others})

    async def _separate(self, pairs: set[tuple[str, str]], seconds: float | None = None) -> None:
        network = self.cluster.network
        self.cluster.counts.cuts += 1
        self.cluster.note(f"cut {sorted(pairs)}")
        network.cut |= pairs
        if self.chance.random() < 0.3:
            network.break_some(1.0)
        await (self._last() if seconds is None else asyncio.sleep(seconds))
        network.cut -= pairs - network.kept
        self.cluster.note("healed")

    async def _breaks(self) -> None:
        self.cluster.network.break_some(self.chance.random())

    async def _weather(self) -> None:
        chance, network = self.chance, self.cluster.network
        network.weather = Weather(
            delay=chance.choice((0.001, 0.01, 0.1)),
            slow=chance.choice((0.2, 2.0)),
            tail=chance.choice((0.01, 0.1)),
            bandwidth=chance.choice((50e6, 1e5)),
            breaks=chance.choice((0.0, 0.0, 0.01)),
            loss=chance.choice((0.0, 0.1, 0.3)) if self.chaos else 0.0,
            doubles=chance.choice((0.0, 0.2)) if self.chaos else 0.0,
            shuffles=chance.choice((0.0, 0.2)) if self.chaos else 0.0,
            echoes=chance.choice((0.0, 0.2)) if self.chaos else 0.0,
        )
        await self._last()
        network.weather = Weather()

    # -- disks --------------------------------------------------------------------------------------------------------

    async def _stall(self) -> None:
        drive = self._some().drive
        drive.stalled_until = self.cluster.loop.now + self.chance.expovariate(1 / self.length)

    async def _full(self) -> None:
        disk = self._some().drive.disk
        if self.chance.random() < 0.5:
            disk.capacity = disk.used() + self.chance.randrange(3000)
        else:
            disk.refuse = frozenset(self.chance.sample(("create", "allocate", "write", "sync", "replace"), 2))
        await self._last()
        disk.capacity, disk.refuse = None, frozenset()

    async def _failed_sync(self) -> None:
        host = self._some()
        if host.process is not None:
            self.cluster.counts.crashes += 1
            host.drive.disk.fail_syncs = 1
            await self._last()
            host.drive.disk.fail_syncs = 0
        host.start()

    # -- what an operator asks for ------------------------------------------------------------------------------------

    async def _transfer(self) -> None:
        leaders = self.cluster.leaders()
        if not leaders:
            return
        to = self.chance.choice(("", *(host.record().id for host in self.cluster.hosts)))
        self.cluster.counts.transfers += 1

        async def work(process: Process) -> None:
            await process.replica.transfer(to, CHANGE_PATIENCE)

        await self._order(leaders[-1], work)

    async def _member(self) -> None:
        """Take a server out of the configuration, or make it a learner; and back in."""
        async with self._changing:
            host = self.chance.choice(self.cluster.hosts)
            kind = self.chance.choice((ServerChange.REMOVE, ServerChange.DEMOTE, ServerChange.MOVE))
            if not await self._change(kind, host) or kind is ServerChange.MOVE:
                return
            await self._last()
            if kind is ServerChange.REMOVE:
                host.kill(power=False)
                host.start()
            await self._bring_in(host)

    async def _replace(self) -> None:
        """A server loses its disk, and comes back as another one."""
        async with self._changing:
            host = self.chance.choice(self.cluster.hosts)
            if not self._spare(host):  # one that lost its disk before may not be back
                return
            if self.chance.random() < 0.5 and not await self._change(ServerChange.REMOVE, host):
                return
            if not self._spare(host):
                return
            host.kill(power=True)
            host.wipe()
            self.cluster.counts.crashes += 1
            self.cluster.note(f"{host.name} has lost its disk")
            await self._last()
            host.start()
            await self._bring_in(host)

    async def _leave(self) -> None:
        """A server leaves in order, ends, and comes back."""
        async with self._changing:
            host = self.chance.choice(self.cluster.hosts)
            if host.process is None or not host.process.up:
                return
            self.cluster.counts.changes += 1
            done: asyncio.Future[bool] = self.cluster.loop.create_future()
            self.cluster.loop.later(0.0, _begin, partial(_leave, host.process, done), owner=host.process.owner)
            try:
                async with asyncio.timeout(2 * CHANGE_PATIENCE):
                    left = await done
            except TimeoutError:
                left = False
            self._doubtful = self._doubtful or not left
            await self._last()
            host.start()
            if left:
                await self._bring_in(host)

    async def _move(self) -> None:
        """A server comes back at another address."""
        host = self._some()
        if host.process is not None:
            self.cluster.counts.crashes += 1
            host.kill(power=False)
            host.move()
            await self._last()
        host.start()

    def _spare(self, host: Host) -> bool:
        """Whether all that was acknowledged survives if a host loses its disk for good: a majority without it is whole,
        in every configuration that may be in force, and no other is on its way.
        """
        if self._doubtful:
            return False
        members = {other.number for other in self.cluster.hosts if other.number and other is not host}
        for other in self.cluster.hosts:
            if other.process is None or not other.process.up:
                return False
            node = other.process.replica.node
            quorum, log = node.membership.quorum, node._raft.log
            ahead = log.slice(max(log.applied + 1, log.first_index()), log.last_index() + 1, NO_LIMIT)
            if ahead is None or any(entry.kind is not EntryKind.NORMAL for entry in ahead):
                return False
            if not quorum.incoming:
                return False
            for voters in (quorum.incoming, quorum.outgoing):
                if voters and 2 * len(voters & members) <= len(voters):
                    return False
        return True

    async def _bring_in(self, host: Host) -> None:
        """Have a server added as a learner, and promoted, where the servers do not do so by themselves."""
        while self.cluster.by_itself and not self.done and not self.cluster.votes(host):
            await asyncio.sleep(0.5)
        for kind in (ServerChange.ADD_LEARNER, ServerChange.PROMOTE):
            while not self.done and not await self._change(kind, host):
                await asyncio.sleep(0.5)

    async def _change(self, kind: ServerChange, host: Host) -> bool:
        leaders = self.cluster.leaders()
        if not leaders or not host.number:
            return False
        record = host.record()
        self.cluster.counts.changes += 1

        async def work(process: Process) -> None:
            await process.replica.change(kind, record, CHANGE_PATIENCE)

        return await self._order(leaders[-1], work)

    async def _order(self, host: Host, work: Callable[[Process], Awaitable[None]]) -> bool:
        try:
            await self.cluster.ask(host, work, CHANGE_PATIENCE + 2.0)
        except (Unavailable, Lost, LictorError) as error:
            self._doubtful = self._doubtful or isinstance(error, Lost)  # the server may try it yet
            self.cluster.note(f"refused: {error!r}")
            return False
        return True


async def _leave(process: Process, done: "asyncio.Future[bool]") -> None:
    """Leave and end; as the owner's code."""
    left = await process.formation.leave()
    process.cluster.note(f"{process.owner.name} has{'' if left else ' not'} left")
    process.cluster.loop.later(0.0, _tell, done, left)
    await process.stop()


def _tell(done: "asyncio.Future[bool]", left: bool) -> None:
    if not done.done():
        done.set_result(left)


def _begin(function: Callable[[], Awaitable[None]]) -> None:
    asyncio.ensure_future(function())


def hash_pair(a: str, b: str) -> int:
    """A number for two addresses, in either order, the same in every run."""
    return sum((a + b).encode())
