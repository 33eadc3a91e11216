"""One seed from beginning to end: a cluster is formed, clients work while faults happen, everything heals, and what is
left is compared with what was promised.
"""

import asyncio
import contextlib
import gc
import logging
import random
import secrets
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final, NoReturn

import msgspec

from lictor.model.command import Register
from lictor.model.errors import LictorError, NoLeader
from lictor.model.node import Node
from lictor.raft.consensus import ServerChange
from lictor.raft.settings import RaftSettings
from lictor.server.autopilot_config import AutopilotConfig
from tests.simulation.checks import Counts, store_digest
from tests.simulation.clients import NODE, Workload
from tests.simulation.cluster import Cluster, Host
from tests.simulation.faults import Faults
from tests.simulation.followers import followers
from tests.simulation.loop import Broken, SimLoop, Stuck, run
from tests.simulation.process import Lost, Process, Unavailable

PATIENCE: Final = 300.0  # virtual seconds in which a healed cluster must come to rest
SETTLING: Final = 20.0  # virtual seconds in which it then must have applied all that it was asked for


class Result(msgspec.Struct, frozen=True):
    """What became of one seed. `digest` names everything that happened; `error` is empty if all promises held."""

    seed: int
    counts: Counts
    digest: str
    error: str


class Simulation:
    """One seed. `show` gets a line for everything that happens; faults go on for `longest` virtual seconds at most."""

    def __init__(self, seed: int, show: Callable[[str], None] | None = None, longest: float = 20.0) -> None:
        self.seed = seed
        self.chance = chance = random.Random(seed)
        self.loop = SimLoop()  # type: ignore[abstract]
        self._show = show
        self._hasher = blake2b(digest_size=16)
        self.seconds = min(longest, chance.choice((5.0, 10.0, 20.0)))
        self.cluster = Cluster(self.loop, chance, self._note, self._fail, _settings(chance), _autopilot(chance))
        for _ in range(chance.choice((1, 2, 3, 3, 3, 3, 3, 4, 5, 5))):
            self.cluster.add_host()
        count = len(self.cluster.hosts)
        # More than half, so that there cannot be two clusters; or one server begins alone, and the others join it.
        self.cluster.expect = chance.choice((1, chance.randint(count // 2 + 1, count), count))
        self.faults = Faults(self.cluster, random.Random(chance.getrandbits(32)))
        self.workload = Workload(self.cluster, random.Random(chance.getrandbits(32)))
        own = random.Random(f"followers of {seed}")
        self.followers, self.cluster.observer.newly = followers(
            self.cluster, own.choice((0, 0, 1, 3)), own, self.workload.applied
        )

    def run(self) -> Result:
        """Run it."""
        error = ""
        with _alone(self.seed, self._note, self.loop):
            try:
                run(self.loop, self._life())
            except (Broken, Stuck) as broken:
                error = str(broken)
            except Exception as mistake:
                error = "".join(traceback.format_exception(mistake))
        counts = self.cluster.counts
        counts.seeds = 1
        counts.seconds = self.loop.now
        counts.terms = len(self.cluster.observer.leaders)
        counts.applied = self.cluster.observer.length
        counts.snapshots = self.cluster.observer.images
        counts.loads = self.cluster.observer.loaded
        counts.replica_reads = sum(follower.reads for follower in self.followers)
        return Result(self.seed, counts, self._hasher.hexdigest(), error)

    def _note(self, what: str) -> None:
        line = f"{self.loop.now:.6f} {self.loop.turns} {what}"
        self._hasher.update(line.encode())
        if self._show is not None:
            self._show(line)

    def _fail(self, what: str) -> NoReturn:
        self._note(f"BROKEN {what}")
        self.loop.errors.append(what)
        raise Broken(what)

    # -- phases -------------------------------------------------------------------------------------------------------

    async def _life(self) -> None:
        if self.cluster.by_itself:
            await self._wait_for_cluster()
        else:
            await self._form()
        await self._fill()
        clients = asyncio.ensure_future(self.workload.run(self.chance.choice((2, 5, 8))))
        following = asyncio.gather(*(follower.live() for follower in self.followers))
        faults = asyncio.ensure_future(self.faults.run())
        await asyncio.sleep(self.seconds)
        self._note("healing")
        self.faults.done = True
        faults.cancel()
        await asyncio.wait((faults,))
        await self.faults.heal()
        await self._rest("a leader after all has healed", lambda: self._healthy() is not None)
        self.workload.done = True
        await clients
        await self._gather()
        await self._answered()
        await self._rest("all servers at the same place", self._together)
        for follower in self.followers:
            follower.done = True
        await self._rest("the followers to have everything", following.done)
        following.result()
        await self._rest("all servers at the same place", self._together)
        self._judge()

    async def _form(self) -> None:
        """An operator has all servers form a cluster."""
        cluster = self.cluster
        for host in cluster.hosts:
            host.start()
        await self._rest("all servers up", lambda: all(host.number for host in cluster.hosts))
        records = [host.record() for host in cluster.hosts]

        async def form(process: Process) -> None:
            if process.replica.blank:  # the others, who have formed already, may have brought it in
                await process.replica.form(records)

        for host in cluster.hosts:
            await cluster.ask(host, form, 60.0)
        await self._rest("a first leader", lambda: self._healthy() is not None)

    async def _wait_for_cluster(self) -> None:
        """The servers form a cluster themselves; sometimes the faults do not wait for it."""
        for host in self.cluster.hosts:
            self.loop.later(self.chance.uniform(0.0, 3.0), host.start)
        early = self.chance.random() < 0.5
        if early:
            faults = asyncio.ensure_future(self.faults.run())
            await asyncio.sleep(self.seconds / 2)
            faults.cancel()
            await asyncio.wait((faults,))
            await self.faults.heal()
        await self._rest("a first leader", lambda: self._healthy() is not None)
        self.faults.done = False

    async def _fill(self) -> None:
        """The catalog gets the node that sessions belong to."""
        register = Register(Node(node=NODE, address="10.0.0.1"))

        async def write(process: Process) -> None:
            await process.server.apply(register)

        while True:
            leader = self._healthy()
            if leader is not None:
                with contextlib.suppress(NoLeader, Unavailable, Lost):
                    await self.cluster.ask(leader, write, 60.0)
                    return
            await asyncio.sleep(0.1)

    async def _gather(self) -> None:
        """Every server becomes a voter again, and all come to the same state."""
        cluster = self.cluster
        deadline = self.loop.now + PATIENCE
        if cluster.by_itself:
            for host in cluster.hosts:  # one that was removed joins again when it is started again
                if not cluster.votes(host):
                    host.kill(power=False)
        while not self._together():
            leader = self._healthy()
            for host in cluster.hosts:
                host.start()
                if not cluster.by_itself and leader is not None and host.process is not None and host.process.up:
                    await self._promote(leader, host)
            if self.loop.now > deadline:
                self._fail(f"the servers did not come to the same state: {self._state()}")
            await asyncio.sleep(0.5)

    async def _answered(self) -> None:
        """Nothing that any server proposed is left waiting."""
        deadline = self.loop.now + SETTLING
        for host in self.cluster.hosts:
            while host.process is not None and host.process.up:
                numbers = host.process.replica._proposals._origin.numbers()
                if not numbers:
                    break
                if self.loop.now > deadline:
                    self._fail(f"{host.name} waits for its proposals {numbers} in vain: {self._state()}")
                await asyncio.sleep(0.05)

    async def _promote(self, leader: Host, host: Host) -> None:
        record = host.record()

        async def work(process: Process) -> None:
            known = {peer.id: peer for peer in process.replica.peers()}
            if record.id not in known or record.number not in process.replica.roster.records:
                await process.replica.change(ServerChange.ADD_LEARNER, record, 20.0)
            elif not known[record.id].voter:
                await process.replica.change(ServerChange.PROMOTE, record, 20.0)

        try:
            await self.cluster.ask(leader, work, 30.0)
        except (Unavailable, Lost, LictorError) as error:
            self._note(f"{host.name} is no voter yet: {error!r}")

    async def _rest(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = self.loop.now + PATIENCE
        while not condition():
            for host in self.cluster.hosts:
                host.start()  # one that was being stopped may have ended only now
            if self.loop.now > deadline:
                self._fail(f"waited {PATIENCE} s in vain for {what}: {self._state()}")
            await asyncio.sleep(0.1)

    def _healthy(self) -> Host | None:
        """The leader, if there is one that others follow."""
        leaders = self.cluster.leaders()
        return leaders[-1] if leaders else None

    def _together(self) -> bool:
        """Whether all servers are voters and have applied the same."""
        cluster = self.cluster
        for host in cluster.hosts:
            process = host.process
            if process is None or not process.up or process.watched.position != cluster.observer.length:
                return False
            if sum(peer.voter for peer in process.replica.peers()) != len(cluster.hosts):
                return False
        return True

    def _state(self) -> str:
        found = []
        for host in self.cluster.hosts:
            if host.process is not None and host.process.up:
                stats = host.process.replica.stats()
                shown = {key: stats[key] for key in ("state", "term", "last_log_index", "commit_index")}
                found.append(f"{host.name} at {host.process.watched.position} {shown}")
            else:
                found.append(f"{host.name} is down")
        return "; ".join(found)

    def _judge(self) -> None:
        """The end: all the same, nothing lost, every history explained."""
        processes = [host.process for host in self.cluster.hosts if host.process is not None]
        digests = {store_digest(process.server.store) for process in processes}
        if len(digests) != 1:
            self._fail("the servers' stores differ at the end, though they applied the same")
        if processes[0].watched.position < self.cluster.observer.acknowledged:
            self._fail("less is applied at the end than was acknowledged")
        self.workload.compare(dict(processes[0].server.store.kv.rows))
        self.workload.judge()


def _settings(chance: random.Random) -> RaftSettings:
    """Small limits, so that everything that is rare in life happens often."""
    return RaftSettings(
        election_timeout=chance.choice((0.5, 1.0, 2.5)),
        snapshot_threshold=chance.choice((10, 50, 400)),
        snapshot_interval=chance.choice((0.5, 3.0)),
        snapshot_bytes=chance.choice((5_000, 1_000_000)),
        trailing=chance.choice((0, 3, 50)),
        trailing_bytes=chance.choice((500, 1_000_000)),
        segment_bytes=chance.choice((2_000, 20_000)),
        entry_bytes=chance.choice((200, 1_000_000)),
        message_bytes=chance.choice((100, 2_000, 1_000_000)),
        inflight=chance.choice((1, 4, 128)),
        inflight_bytes=16 * 1024 * 1024,
        queued_bytes=chance.choice((2_000, 1_000_000)),
    )


def _autopilot(chance: random.Random) -> AutopilotConfig:
    return AutopilotConfig(
        cleanup_dead_servers=chance.random() < 0.5,
        last_contact_threshold="2s",
        max_trailing_logs=chance.choice((20, 250)),
        server_stabilization_time=chance.choice(("0s", "2s")),
    )


class _Listener(logging.Handler):
    """The servers' log becomes part of the trace; what a server reports as a mistake of its own ends the simulation."""

    def __init__(self, note: Callable[[str], None], loop: SimLoop) -> None:
        super().__init__(logging.INFO)
        self._note = note
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self._note(f"log {record.levelname} {text}")
        if record.exc_info is not None and record.exc_info[1] is not None:
            self._loop.errors.append(f"a server logs a mistake: {text}: {record.exc_info[1]!r}")


@contextmanager
def _alone(seed: int, note: Callable[[str], None], loop: SimLoop) -> Iterator[None]:
    """Nothing from outside: no randomness of the system's, no garbage collection at some moment or other."""
    chance = random.Random(seed ^ 0x5EED)
    randbits = secrets.randbits
    secrets.randbits = chance.getrandbits  # type: ignore[assignment]
    logger, listener = logging.getLogger("lictor"), _Listener(note, loop)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate
        secrets.randbits = randbits


def play(seed: int, show: Callable[[str], None] | None = None, longest: float = 20.0) -> Result:
    """Run one seed."""
    return Simulation(seed, show, longest).run()
