"""Clients: what they ask the servers, and what they write down of it.

Each does one thing after another, through a random server each time. A request that reached no server is forgotten;
one whose answer did not come (a timeout, an error that leaves it open, a server that died) may have taken effect, or
may do so at any later time.

- *registers*: keys that everybody sets, compares and sets, deletes and reads; every value is written once;
- *marks*: keys that one client sets once; those that were acknowledged must be there at the end;
- *counters*: read, and compare-and-set to one more: at the end it is what was counted, or more by what is unknown;
- *locks*: keys that sessions acquire and release; sessions end by request, or by their TTL.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from jepsen.checker import FOREVER, Operation, Recorder, Verdict, check_by_key
from jepsen.checker.models import FencedLock, Model, Register
from lictor.model.command import Batch, KVWrite, SessionCreate, SessionDestroy
from lictor.model.duration import parse_duration
from lictor.model.errors import LictorError, Refused
from lictor.model.kv import KVEntry
from lictor.model.session import Session
from lictor.store.reads import kv
from tests.simulation.cluster import Cluster, Host
from tests.simulation.loop import Broken
from tests.simulation.process import Lost, Process, Unavailable

_decode: Final = msgspec.msgpack.Decoder(Batch).decode

NODE: Final = "catalog-node"  # what sessions belong to
CHECK_LIMIT: Final = 200_000  # configurations tried for one key, before it is left undecided
PATIENCE: Final = 9.0  # seconds for an answer: more than a server holds a request


class Workload:
    """All clients of one cluster, and their histories."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.chance = chance
        self.registers = Recorder(self.clock)
        self.locks = Recorder(self.clock)
        self.ends: list[Operation] = []
        self.marks: dict[str, bytes] = {}
        self.attempted: dict[str, bytes] = {}
        self.counted: dict[str, int] = {}
        self.uncounted: dict[str, int] = {}
        self.done = False
        self.pause = chance.choice((0.02, 0.1, 0.4))  # seconds between two requests of a client
        self.kinds = {"registers": 6.0, "marks": 2.0, "counters": 1.0, "locks": chance.choice((0.0, 2.0, 6.0))}
        self.keys = chance.choice((1, 2, 5))
        self.size = chance.choice((8, 8, 8, 3000))  # bytes of a mark
        self.renewed: dict[
            str, tuple[float, float]
        ] = {}  # sessions with a TTL: since when at least it runs, in seconds
        self._written: dict[str, set[bytes]] = {}
        self._number = 0

    def clock(self) -> int:
        """The time of histories: nanoseconds."""
        return int(self.cluster.loop.now * 1e9)

    def fresh(self) -> bytes:
        """A value that nobody wrote before."""
        self._number += 1
        return b"v%d" % self._number

    async def run(self, clients: int) -> None:
        """Let so many clients live until `done`."""
        lives = [Client(self, number, random.Random(self.chance.getrandbits(32))).live() for number in range(clients)]
        await asyncio.gather(*lives)

    def applied(self, proposal: bytes) -> None:
        """Something was applied for the first time: sessions that end by it had their time."""
        if b"session-destroy" not in proposal:
            return
        for command in _decode(proposal).commands:
            if not isinstance(command, SessionDestroy):
                continue
            since, ttl = self.renewed.pop(command.id, (0.0, 0.0))
            self.cluster.counts.expired += ttl > 0
            if self.cluster.loop.now - since < ttl:
                text = f"{command.id} is ended at {self.cluster.loop.now}, though its owner was heard at {since}"
                self.cluster.fail(f"{text}, and its TTL is {ttl} s")

    # -- judging ------------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Check all histories. Raises `Broken`."""
        self._linearizable(self.registers.history(), Register())
        self._linearizable(self.locks.history() + self.ends, FencedLock())

    def _linearizable(self, history: list[Operation], model: Model) -> None:
        for result in check_by_key(history, model, limit=CHECK_LIMIT):
            if result.verdict is Verdict.UNDECIDED:
                self.cluster.counts.undecided += 1
            elif result.verdict is not Verdict.LINEARIZABLE:
                raise Broken(str(result))

    def compare(self, rows: dict[str, KVEntry]) -> None:
        """Compare what is there at the end with what was acknowledged. Raises `Broken`."""
        for key, value in self.marks.items():
            if key not in rows or rows[key].value != value:
                raise Broken(f"{key} was acknowledged and is lost: {rows.get(key)}")
        for key, row in rows.items():
            if key.startswith("mark/") and self.attempted.get(key) != row.value:
                raise Broken(f"{key} is there, but nobody wrote it: {row}")
        for key, counted in self.counted.items():
            found = int(rows[key].value or b"0") if key in rows else 0
            if not counted <= found <= counted + self.uncounted.get(key, 0):
                raise Broken(f"{key} is {found}, but {counted} were counted, and {self.uncounted.get(key, 0)} perhaps")

    def wrote(self, key: str, value: bytes | None) -> None:
        """A value may be found under a key from now on."""
        self._written.setdefault(key, set()).add(value or b"")

    def may_find(self, key: str, value: bytes | None) -> bool:
        """Whether anybody wrote that."""
        return value is None or value in self._written.get(key, ())


class Client:
    """One client."""

    def __init__(self, workload: Workload, number: int, chance: random.Random) -> None:
        self._workload = workload
        self._cluster = workload.cluster
        self._number = number
        self._chance = chance
        self._session = ""
        self._ttl = ""
        self._born = 0
        self._touched: set[str] = set()
        self._held = ""

    async def live(self) -> None:
        """Do things until the workload is done."""
        workload, chance = self._workload, self._chance
        doing: dict[str, Callable[[], Awaitable[None]]] = {
            "registers": self._register,
            "marks": self._mark,
            "counters": self._count,
            "locks": self._lock,
        }
        names = list(workload.kinds)
        weights = [workload.kinds[name] for name in names]
        while not workload.done:
            await asyncio.sleep(chance.expovariate(1 / workload.pause))
            if self._cluster.quiet:
                await self._get(f"register/{chance.randrange(workload.keys)}", "default")
            else:
                await doing[chance.choices(names, weights)[0]]()

    # -- asking a server ----------------------------------------------------------------------------------------------

    def _server(self) -> Host:
        """Any; more often one that takes itself for the leader, above all one that others do not."""
        leaders = self._cluster.leaders()
        return leaders[0] if leaders and self._chance.random() < 0.2 else self._chance.choice(self._cluster.hosts)

    async def _ask(self, work: Callable[[Process], Awaitable[Any]]) -> Any:
        """An answer, after which everything up to the server's position is known. Raises `Unavailable`, `Lost`,
        `Refused`.
        """
        chance = self._chance
        patience = PATIENCE if chance.random() < 0.9 else chance.uniform(0.01, 1.0)
        answer, position = await self._cluster.ask(self._server(), work, patience, hang_up=chance.random() < 0.5)
        self._cluster.observer.answered(position)
        return answer

    async def _write(self, command: KVWrite | SessionCreate | SessionDestroy) -> Any:
        async def work(process: Process) -> Any:
            return await process.server.apply(command)

        return await self._ask(work)

    async def _read(self, key: str, how: str) -> KVEntry | None:
        """A default or consistent read."""
        needed = self._cluster.observer.acknowledged

        async def work(process: Process) -> KVEntry | None:
            await process.confirm(how)
            self._cluster.observer.fresh(process.owner.name, process.watched.position, needed, how)
            return process.server.store.read(kv.entry, key).value

        found = await self._ask(work)
        assert found is None or isinstance(found, KVEntry)
        self._cluster.counts.reads += 1
        return found

    # -- registers ----------------------------------------------------------------------------------------------------

    async def _register(self) -> None:
        chance = self._chance
        key = f"register/{chance.randrange(self._workload.keys)}"
        luck = chance.random()
        if luck < 0.35:
            await self._get(key, "default")
        elif luck < 0.5:
            await self._get(key, "consistent")
        elif luck < 0.6:
            await self._stale(key)
        elif luck < 0.85:
            value = self._workload.fresh()
            self._workload.wrote(key, value)
            await self._record("write", value, key, KVWrite("set", key, value))
        elif luck < 0.9:
            await self._record("delete", None, key, KVWrite("delete", key))
        else:
            await self._compare_and_set(key)

    async def _get(self, key: str, how: str) -> tuple[bytes | None, int] | None:
        """The value and its index; None where there was no answer."""
        recorder = self._workload.registers
        number = recorder.call(self._number, "read", key=key)
        try:
            row = await self._read(key, how)
        except (Unavailable, Lost, LictorError):
            recorder.forget(number)
            return None
        value = row.value if row is not None else None
        recorder.answer(number, value)
        return value, row.modify_index if row is not None else 0

    async def _record(self, name: str, value: Any, key: str, command: KVWrite) -> None:
        recorder, counts = self._workload.registers, self._cluster.counts
        number = recorder.call(self._number, name, value, key)
        try:
            result = await self._write(command)
        except Unavailable:
            recorder.forget(number)
        except (Lost, LictorError):
            counts.unknown += 1
        else:
            recorder.answer(number, bool(result))
            counts.writes += 1

    async def _compare_and_set(self, key: str) -> None:
        found = await self._get(key, "default")
        if found is not None:
            value = self._workload.fresh()
            self._workload.wrote(key, value)
            await self._record("cas", (found[0], value), key, KVWrite("cas", key, value, index=found[1]))

    async def _stale(self, key: str) -> None:
        """A stale read shows something that was written, and never less than an earlier one of the same process."""

        async def work(process: Process) -> tuple[KVEntry | None, int]:
            answer = process.server.store.read(kv.entry, key)
            before = process.shown.get(key, 0)
            process.shown[key] = answer.index
            if answer.index < before:
                raise Broken(f"{process.owner.name} showed {key} at {before}, and then at {answer.index}")
            return answer.value, answer.index

        try:
            row, _ = (await self._cluster.ask(self._server(), work, 1.0))[0]
        except (Unavailable, Lost):
            return
        if row is not None and not self._workload.may_find(key, row.value):
            raise Broken(f"a stale read shows {row}, which nobody wrote")

    # -- marks and counters -------------------------------------------------------------------------------------------

    async def _mark(self) -> None:
        workload, counts = self._workload, self._cluster.counts
        value = workload.fresh()
        key, value = f"mark/{value.decode()}", value.ljust(workload.size, b".")
        workload.attempted[key] = value
        try:
            await self._write(KVWrite("set", key, value))
        except Unavailable:
            del workload.attempted[key]
        except (Lost, LictorError):
            counts.unknown += 1
        else:
            workload.marks[key] = value
            counts.writes += 1

    async def _count(self) -> None:
        workload, key = self._workload, f"counter/{self._chance.randrange(2)}"
        try:
            row = await self._read(key, self._chance.choice(("default", "consistent")))
        except (Unavailable, Lost, LictorError):
            return
        value = int(row.value or b"0") if row is not None else 0
        command = KVWrite("cas", key, b"%d" % (value + 1), index=row.modify_index if row is not None else 0)
        workload.counted.setdefault(key, 0)
        try:
            done = await self._write(command)
        except Unavailable:
            return
        except (Lost, LictorError):
            workload.uncounted[key] = workload.uncounted.get(key, 0) + 1
            self._cluster.counts.unknown += 1
        else:
            workload.counted[key] += bool(done)
            self._cluster.counts.writes += 1

    # -- locks --------------------------------------------------------------------------------------------------------

    async def _lock(self) -> None:
        chance = self._chance
        if not self._session:
            await self._make_session()
            return
        luck = chance.random()
        if luck < 0.2:
            await self._read_lock(f"lock/{chance.randrange(2)}")
        elif luck < 0.3:
            await self._renew()
        elif luck < 0.4:
            await self._end_session()
        elif self._held and luck < 0.8:
            held, self._held = self._held, ""
            await self._use_lock("release", "unlock", held)
        else:
            key = f"lock/{chance.randrange(2)}"
            if await self._use_lock("acquire", "lock", key):
                self._held = key

    async def _make_session(self) -> None:
        workload, chance = self._workload, self._chance
        ttl = chance.choice(("", "", "1s", "4s"))
        session = Session(id=f"session-{workload.fresh().decode()}", node=NODE, ttl=ttl)
        self._ttl = ttl
        self._born = workload.clock()
        if ttl:
            workload.renewed[session.id] = self._cluster.loop.now, parse_duration(ttl)
        try:
            self._session = await self._write(SessionCreate(session))
        except (Unavailable, Lost, LictorError):
            return
        self._touched = set()
        self._held = ""

    async def _end_session(self) -> None:
        recorder, session = self._workload.locks, self._session
        self._session = self._held = ""
        self._workload.renewed.pop(session, None)
        numbers = [recorder.call(self._number, "end", session, key) for key in sorted(self._touched)]
        try:
            await self._write(SessionDestroy(session))
        except Unavailable:
            for number in numbers:
                recorder.forget(number)
        except (Lost, LictorError):
            self._cluster.counts.unknown += 1
        else:
            for number in numbers:
                recorder.answer(number, True)

    async def _use_lock(self, name: str, verb: str, key: str) -> bool:
        workload, session = self._workload, self._session
        if key not in self._touched:
            self._touched.add(key)
            # Its TTL may end it at any time; that is nobody's request.
            workload.ends.append(Operation(self._number, "end", session, None, self._born, FOREVER, key))
        value = workload.fresh()
        number = workload.locks.call(self._number, name, (session, value), key)
        try:
            result = bool(await self._write(KVWrite(verb, key, value, session=session)))
        except Unavailable:
            workload.locks.forget(number)
        except Refused:
            workload.locks.forget(number)
            self._expired()
        except (Lost, LictorError):
            self._cluster.counts.unknown += 1
        else:
            workload.locks.answer(number, result)
            self._cluster.counts.locks += 1
            return result
        return False

    async def _renew(self) -> None:
        asked, session = self._cluster.loop.now, self._session

        async def work(process: Process) -> bool:
            return await process.leadership.renew_session(session) is not None

        try:
            there = await self._ask(work)
        except (Unavailable, Lost, LictorError):
            return
        if not there:
            self._expired()
        elif self._ttl and session in self._workload.renewed:
            self._workload.renewed[session] = asked, parse_duration(self._ttl)

    def _expired(self) -> None:
        """The session has ended, and nobody asked for it."""
        if not self._ttl:
            raise Broken(f"{self._session} has no TTL, and has ended")
        self._session = self._held = ""

    async def _read_lock(self, key: str) -> None:
        recorder = self._workload.locks
        number = recorder.call(self._number, "read", key=key)
        try:
            row = await self._read(key, "default")
        except (Unavailable, Lost, LictorError):
            recorder.forget(number)
            return
        if row is None:
            recorder.answer(number, None)
        else:
            holder = row.session if isinstance(row.session, str) else None
            recorder.answer(number, (holder, row.lock_index, row.value, row.modify_index))
