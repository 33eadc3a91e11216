"""Agents that are no servers: their partial replicas follow the servers, through all that happens to these.

`History` applies what the servers apply to a store of its own, one command after the other, and writes down when each
key changed. So it can be said of whatever a replica shows whether the servers' state ever was so, and when:

- *one state*: what a replica shows, of one key or of all keys under a prefix, was the servers' state at one index, and
  that index is not below the one that the replica says it has;
- *no way back*: an answer's index never falls, and no later answer is of an earlier state;
- *fresh reads*: after `confirm`, a replica shows everything that was acknowledged before;
- *own writes*: after a write and `reach` of its index, a replica shows the write, or what replaced it;
- *all arrives*: when all is well again, every replica shows what the servers have.

Agents keep an image of what they hold now and then, and crash; what they find of it may be torn. One that is whole is
where they go on from: no answer is of an earlier state than the image was of, and all else holds as before.
"""

import asyncio
import bisect
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import msgspec

from lictor.agent.replica import NotCoverable, PartialReplica
from lictor.agent.replica_image import Moment, read_image
from lictor.model.command import Batch, KVWrite
from lictor.model.errors import LictorError
from lictor.model.kv import KVEntry
from lictor.store import commands
from lictor.store.reads import kv
from lictor.store.store import Answer, Store
from lictor.store.watch import Topic
from tests.simulation.cluster import Cluster
from tests.simulation.loop import Clock
from tests.simulation.process import DATACENTER, Lost, Process, Unavailable

OWN: Final = "own/"  # keys that followers write
PREFIXES: Final = ("", OWN)
PATIENCE: Final = 9.0  # seconds for an answer to a write
NO_TIME: Final = Moment(0.0)
LAST: Final = 60.0  # virtual seconds in which a replica must have everything once all is well

_decode: Final = msgspec.msgpack.Decoder(Batch).decode


class History:
    """When each key changed, and the index after each position."""

    def __init__(self) -> None:
        self._store = Store()
        self._rows: dict[str, KVEntry | None] = {}
        self._changes: dict[str, list[tuple[int, KVEntry | None]]] = defaultdict(lambda: [(0, None)])
        self._indexes = [0]

    def applied(self, proposal: bytes) -> None:
        """The servers apply it, in this order."""
        try:
            batch = _decode(proposal)
        except msgspec.MsgspecError:
            batch = Batch(0.0, ())
        for command in batch.commands:
            commands.apply_batch(self._store, Batch(batch.time, (command,)))
            self._compare()
        self._store.flush()
        self._indexes.append(self._store.index)

    def _compare(self) -> None:
        rows = self._store.kv.rows
        for key in self._rows.keys() | rows.keys():
            row = rows.get(key)
            if row is not self._rows.get(key):
                self._rows[key] = row
                self._changes[key].append((self._store.index, row))

    def index_at(self, position: int) -> int:
        """The servers' index after a position."""
        return self._indexes[position]

    def rows(self, prefix: str) -> dict[str, KVEntry]:
        """What there is under a prefix."""
        return {key: row for key, row in self._store.kv.rows.items() if key.startswith(prefix)}

    @property
    def keys(self) -> list[str]:
        """All keys that there ever were."""
        return sorted(self._changes)

    def when(self, key: str, row: KVEntry | None, least: int) -> tuple[int, float] | None:
        """From which index on a key was so, and up to which one it was, exclusively: the first time that ended above
        `least`; None where it never was.
        """
        changes = self._changes[key]
        start = max(0, bisect.bisect_right(changes, least, key=lambda change: change[0]) - 1)
        for number in range(start, len(changes)):
            if changes[number][1] == row:
                end = changes[number + 1][0] if number + 1 < len(changes) else float("inf")
                return changes[number][0], end
        return None


class Follower:
    """One agent, which reads and writes until `done`."""

    def __init__(self, cluster: Cluster, history: History, number: int, chance: random.Random) -> None:
        self.done = False
        self.reads = 0
        self._cluster = cluster
        self._history = history
        self._chance = chance
        self._name = f"f{number}"
        self._address = f"{self._name}:8300"
        self._clock = Clock(lambda: cluster.loop.now, chance.uniform(0.9, 1.1), chance.uniform(10.0, 1e5))
        self._owner = cluster.loop.own(self._name, self._clock)
        self._transport = cluster.network.join(self._owner, self._address)
        self._store = Store()
        self._replica: PartialReplica
        self._present = ""
        self._pause = chance.choice((0.02, 0.1, 0.5))
        self._seen: dict[str, tuple[int, int]] = {}  # by prefix: the last answer's index, and one that its state was at
        self._values = 0
        self._image = b""  # on disk, and what had been seen of the state that it is of
        self._seen_then: dict[str, tuple[int, int]] = {}

    async def live(self) -> None:
        """All of it, as the agent's own code."""
        ended: asyncio.Future[None] = self._cluster.loop.create_future()
        self._cluster.loop.later(0.0, self._launch, ended, owner=self._owner)
        await ended

    def _launch(self, ended: "asyncio.Future[None]") -> None:
        task = asyncio.get_running_loop().create_task(self._live())

        def over(task: "asyncio.Task[None]") -> None:
            error = task.exception()
            if error is not None:
                self._cluster.loop.later(0.0, ended.set_exception, error)
            else:
                self._cluster.loop.later(0.0, ended.set_result, None)

        task.add_done_callback(over)

    async def _live(self) -> None:
        self._replica = self._fresh()
        acts = (self._read, self._confirmed, self._write, self._cut, self._keep, self._crash)
        while not self.done:
            act = self._chance.choices(acts, (6.0, 2.0, 2.0, 0.5, 0.5, 0.2))[0]
            try:
                await act()
            except NotCoverable:
                raise
            except LictorError as error:
                self._cluster.note(f"{self._name}: {error!r}")
            if self._chance.random() < 0.05:
                self._present = ""
            await asyncio.sleep(self._chance.expovariate(1 / self._pause))
        await self._last()
        await self._replica.close()

    def _fresh(self) -> PartialReplica:
        return PartialReplica(
            self._store, self._transport, self._pick, self._chance, failed=self._failed, datacenter=DATACENTER
        )

    async def _keep(self) -> None:
        """What is held is written to disk."""
        self._image = self._replica.image(DATACENTER, NO_TIME, _everything).encode()
        self._seen_then = dict(self._seen)

    async def _crash(self) -> None:
        """The process is gone, and another one begins with what is on disk."""
        data, self._seen = self._image, {}
        if self._chance.random() < 0.3:
            data = data[: self._chance.randrange(len(data) + 1)]
        await self._replica.close()
        self._store = Store()
        self._replica = self._fresh()
        try:
            found = read_image(data, DATACENTER, _everything)
        except ValueError as error:
            self._cluster.note(f"{self._name} begins with nothing: {error}")
            return
        self._cluster.note(f"{self._name} goes on from {found.index}")
        self._seen = dict(self._seen_then)
        self._replica.resume(found, NO_TIME)

    def _pick(self) -> str:
        if not self._present:
            self._present = self._chance.choice([host.address for host in self._cluster.hosts])
        return self._present

    def _failed(self, address: str, error: Exception) -> None:
        self._present = ""

    async def _read(self, least: int = 0) -> None:
        """Look at a prefix; it must show a state that the servers were in, at `least` or later."""
        prefix = self._chance.choice(PREFIXES)
        self._judge(prefix, await self._replica.read(kv.tree, prefix), least)

    async def _confirmed(self) -> None:
        """Look at a prefix as a default or consistent read does."""
        prefix = self._chance.choice(PREFIXES)
        await self._replica.read(kv.tree, prefix)
        needed = self._history.index_at(self._cluster.observer.acknowledged)
        await self._replica.confirm(self._chance.random() < 0.3)
        self._judge(prefix, await self._replica.read(kv.tree, prefix), needed)

    async def _write(self) -> None:
        """Write through any server, and look."""
        self._values += 1
        key, value = f"{OWN}{self._name}", b"%d" % self._values

        async def work(process: Process) -> int:
            await process.server.apply(KVWrite("set", key, value))
            return process.server.store.index

        await self._replica.read(kv.tree, OWN)
        try:
            index, position = await self._cluster.ask(self._chance.choice(self._cluster.hosts), work, PATIENCE)
        except (Unavailable, Lost):
            return
        self._cluster.observer.answered(position)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._replica.reach(index)
        except TimeoutError:
            return
        answer = await self._replica.read(kv.tree, OWN)
        self._judge(OWN, answer, index)
        (own,) = [row for row in answer.value if row.key == key]
        if own.value != value:
            self._cluster.fail(f"{self._name} wrote {value!r} and reads {own}")

    async def _cut(self) -> None:
        """Some servers are out of reach for a while."""
        hosts = self._chance.sample(self._cluster.hosts, self._chance.randint(1, len(self._cluster.hosts)))
        pairs = {(self._address, host.address) for host in hosts} | {(host.address, self._address) for host in hosts}
        self._cluster.note(f"{self._name} is cut off from {[host.name for host in hosts]}")
        self._cluster.network.cut |= pairs
        seconds = self._chance.choice((0.2, 2.0, 8.0))
        self._cluster.loop.later(seconds, self._cluster.network.cut.difference_update, pairs)

    async def _last(self) -> None:
        """All is well: what the servers have comes."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LAST
        for prefix in PREFIXES:
            rows: dict[str, KVEntry] | None = None
            while rows != self._history.rows(prefix):
                if loop.time() > deadline:
                    self._cluster.fail(f"{self._name} shows {rows} under {prefix!r} though all is well")
                try:
                    rows = {row.key: row for row in (await self._replica.read(kv.tree, prefix)).value}
                except LictorError as error:
                    self._cluster.note(f"{self._name}: {error!r}")
                await asyncio.sleep(0.2)

    def _judge(self, prefix: str, answer: Answer[list[KVEntry]], least: int) -> None:
        self.reads += 1
        rows = {row.key: row for row in answer.value}
        index, state = self._seen.get(prefix, (0, 0))
        if answer.index < index:
            self._cluster.fail(f"{self._name}: the index of {prefix!r} falls from {index} to {answer.index}")
        start, end = max(least, state, self._replica.index), float("inf")
        begin = 0
        for key in self._history.keys:
            if not key.startswith(prefix):
                continue
            found = self._history.when(key, rows.get(key), start)
            if found is None:
                self._cluster.fail(
                    f"{self._name} shows {key} as {rows.get(key)}, which it was not at {start} or later "
                    f"(needed {least}, seen {state}, has {self._replica.index})"
                )
            begin, end = max(begin, found[0]), min(end, found[1])
        if begin >= end:
            self._cluster.fail(f"{self._name} shows {prefix!r} as it was at no index: {sorted(rows)}")
        self._seen[prefix] = (answer.index, max(state, begin))


def _everything(topic: Topic) -> bool:
    """The image is of KV, which agents do not keep: it is what there is to judge by."""
    return True


def followers(
    cluster: Cluster, count: int, chance: random.Random, newly: Callable[[bytes], None]
) -> tuple[list[Follower], Callable[[bytes], None]]:
    """So many agents, and what is to be told of each proposal in the place of `newly`."""
    history = History()

    def applied(proposal: bytes) -> None:
        history.applied(proposal)
        newly(proposal)

    made = [Follower(cluster, history, number, random.Random(chance.getrandbits(32))) for number in range(count)]
    return made, applied
