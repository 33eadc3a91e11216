"""The partial replica: a client agent's store holds what the agent looks at, and is kept as the servers have it.

replica = PartialReplica(store, transport, pick_server, chance)
answer = await replica.read(function)       # holds what the read looks at from now on
if replica.covers(answer.seen): ...         # an answer from the store, at once
await replica.confirm(quorum=False)         # the store now has all that was acknowledged before
await replica.close()

One server is followed, that which `pick_server` names. When it goes away, or is slow, another one is; until then
everything that is held goes on being answered, and `age` grows. What nobody has looked at for long is held no more:
first those who depend on it are made to look again, and if nobody does, it goes. `covers` and `want` are how one looks.
"""

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Concatenate, ParamSpec, TypeVar

from lictor.agent.replica_image import Found, Image, Moment, may_be_kept
from lictor.agent.replica_pace import Pace
from lictor.agent.replica_room import Room
from lictor.agent.replica_topics import Holding, Holdings
from lictor.model.errors import LictorError, NoLeader, Refused, TooLarge
from lictor.model.seldom import Seldom
from lictor.model.transport import UNREADABLE, Transport, Unreachable
from lictor.store import partial_messages as wire
from lictor.store.partial import kind_of
from lictor.store.store import Answer, Store, View
from lictor.store.watch import Topic

P = ParamSpec("P")
T = TypeVar("T")

LOCAL = "agent"  # topics that begin so are this agent's own, and always there
ROUNDS = 8  # times that a read may look at something more
TOPICS = 16_384  # held at once, unless the caller says so
TTL = 72 * 3600.0  # seconds without a look after which a topic may go
PATIENCE = 7.0  # seconds to wait for an answer
FIRST = 5.0  # seconds in which a server must begin to tell
BEHIND = 5.0  # seconds for which a server may be behind what is held
RETRY, RETRY_MOST = 0.05, 5.0  # seconds before another server is followed, the first time and at most
LASTING = 2.0  # seconds after which a server that was followed counts as one that answers
REFUSED = 60.0  # seconds for which it is not tried again to hold what servers refused
REFUSED_MOST = 4096
BATCH = 1024  # topics in one call
REMINDER = 600.0  # seconds between two lines about a server that cannot be followed

log = logging.getLogger("lictor.agent.replica")


class NotCoverable(Refused):
    """A read looks at something that cannot be held: it must be asked of a server."""


class PartialReplica:
    """See above. Made on a running loop. It begins to follow a server when something is to be held first.

    `pick_server` names the server to follow, host:port, or nothing; `failed` is told of one that did not answer.
    `admit` is called before servers are asked for topics, and raises what they may not be asked for.
    `datacenter` is that of the servers, where it is to be checked; `ttl` and `patience` are in seconds. For one topic
    servers are asked at most `rate` times a second, after `burst` times at once. Whoever runs it may set `on_leader`,
    which is told when there is a leader again, and `on_change`, which is told the topics that are other than before.
    """

    def __init__(
        self,
        store: Store,
        transport: Transport,
        pick_server: Callable[[], str],
        chance: random.Random,
        *,
        failed: Callable[[str, Exception], None] | None = None,
        admit: Callable[[], None] | None = None,
        datacenter: str = "",
        ttl: float = TTL,
        rate: float = math.inf,
        burst: int = 2,
        topics_most: int = TOPICS,
        patience: float = PATIENCE,
    ) -> None:
        self.server = ""
        self.knows_leader = False
        self.on_leader: Callable[[], None] = _nobody
        self.on_change: Callable[[Iterable[Topic]], None] | None = None
        self.streams = 0
        self.pieces = 0
        self.misses = 0
        self.dropped = 0
        self._store = store
        self._transport = transport
        self._pick = pick_server
        self._chance = chance
        self._failed = failed
        self._admit = admit or _nobody
        self._datacenter = datacenter
        self._most = min(topics_most, wire.TOPICS_MOST)
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._trouble = Seldom(log, self._loop.time, REMINDER)
        self._held = Holdings(store)
        self._room = Room(self._held, self._most, ttl)
        self._pace = Pace(rate, burst)
        self._session = 0
        self._leave = False
        self._following: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._add: dict[Topic, None] = {}
        self._drop: dict[Topic, None] = {}
        self._refused: dict[Topic, tuple[float, str]] = {}
        self._connected: asyncio.Event = asyncio.Event()
        self._hurried = asyncio.Event()
        self._reaching: dict[asyncio.Future[None], int] = {}
        self._current_at = -math.inf  # when, by the loop's time, all that is held was the newest there was

    # -- what is held -------------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether anything is held, or will be."""
        return bool(self._held.topics)

    @property
    def ready(self) -> bool:
        """Whether a server is followed."""
        return bool(self.server)

    @property
    def age(self) -> float:
        """Seconds since all that is held was the newest there is: infinite for never."""
        return self._loop.time() - self._current_at

    @property
    def index(self) -> int:
        """The index that all that is held is of, at least."""
        return self._held.index

    @property
    def topics(self) -> int:
        """How many topics are held."""
        return len(self._held.topics)

    @property
    def rows(self) -> int:
        """How many rows are held."""
        return self._held.rows

    @property
    def changes(self) -> int:
        """How many changes of topics have come."""
        return self._held.changes

    def covers(self, seen: Iterable[Topic]) -> bool:
        """Whether the store has all that a read looked at, as a server had it. Counts as a look."""
        now = self._loop.time()
        topics = self._held.topics
        covered = True
        for topic in seen:
            holding = topics.get(topic)
            if holding is not None:
                holding.used = now
                holding.asked = False
                covered = covered and holding.covered
            elif topic[0] != LOCAL:
                covered = False
        return covered

    def check(self, seen: Iterable[Topic]) -> None:
        """Raise `NotCoverable` where there is something that cannot be held, or that servers have refused lately."""
        for topic in seen:
            if topic[0] == LOCAL:
                continue
            if kind_of(topic) is None:
                raise NotCoverable(f"{topic[0]!r} is held by servers only")
            refused = self._refused.get(topic)
            if refused is not None:
                if self._loop.time() - refused[0] < REFUSED:
                    raise NotCoverable(refused[1])
                del self._refused[topic]

    async def want(self, seen: Iterable[Topic]) -> None:
        """Hold topics, and return once they are there. Raises `NotCoverable`, or `NoLeader` where no server tells them
        in time, or cannot say that they are the newest.
        """
        missing = [t for t in dict.fromkeys(seen) if t[0] != LOCAL and not self._is_covered(t)]
        if not missing:
            return
        self.misses += 1
        self.check(missing)
        self._admit()
        self._make_room(len(missing), frozenset(missing))
        waiting = [self._hold(topic) for topic in missing]
        self._start()
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.gather(*waiting)
        except TimeoutError:
            raise NoLeader from None
        finally:
            for topic, waiter in zip(missing, waiting, strict=True):
                self._give_up(topic, waiter)

    async def hold(self, looks_at: Callable[[], Iterable[Topic]]) -> None:
        """Hold what a read looks at, which may be more once it finds more. Raises what `want` raises."""
        for _ in range(ROUNDS):
            seen = tuple(looks_at())
            if self.covers(seen):
                return
            await self.want(seen)
        raise NotCoverable("the read looks at ever more")

    async def read(self, function: Callable[Concatenate[View, P], T], *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        """Run a read function, holding what it looks at. Raises what the function raises, and what `want` raises."""
        found: Answer[T] | LictorError

        def looks_at() -> Iterable[Topic]:
            nonlocal found
            view = View(self._store)
            try:
                found = Answer(function(view, *args, **kwargs), view.index, tuple(view.seen))
            except LictorError as error:  # what is not there yet may be what it misses
                found = error
            return view.seen

        await self.hold(looks_at)
        if isinstance(found, LictorError):
            raise found
        return found

    async def confirm(self, quorum: bool) -> None:
        """Return once the store has all that was acknowledged before, of what is held. With `quorum` a majority
        confirms the leader. Raises `NoLeader`.
        """
        if not quorum and not self.active:
            return  # what is looked at next is confirmed when it comes
        self._start()
        try:
            async with asyncio.timeout(self._patience):
                await self._reached(await self._confirmed(quorum))  # the server tells it without being asked
        except TimeoutError:
            raise NoLeader from None

    async def reach(self, index: int) -> None:
        """Return once what is held is of at least that index; waits for a server that tells so."""
        if self._held.index >= index:
            return
        self._start()
        await self._connected.wait()
        # Without the answer it is told all the same, a second or so later.
        with contextlib.suppress(Unreachable, LictorError):
            await self._call(wire.REACH, wire.encode(wire.Reach(self._session, index)))
        await self._reached(index)

    async def _reached(self, index: int) -> None:
        if self._held.index < index:
            reached: asyncio.Future[None] = self._loop.create_future()
            self._reaching[reached] = index
            try:
                await reached
            finally:
                del self._reaching[reached]

    def hurry(self) -> None:
        """A server has come, or is back: where none is followed, try again now."""
        self._hurried.set()

    # -- what is kept for a restart -----------------------------------------------------------------------------------

    def image(self, datacenter: str, at: Moment, keeps: Callable[[Topic], bool] = may_be_kept) -> Image:
        """What is held, to be kept."""
        return Image(self._held, datacenter, at, self._loop.time(), self.age, keeps)

    def resume(self, found: Found, at: Moment) -> None:
        """Hold what an earlier run has kept, and have servers tell what has changed since. Before anything is held.
        Topics that nobody had looked at for `ttl` are let go of, and so are those that are too many.
        """
        now = self._loop.time()
        former = sorted((one for one in found.topics if one.idle < self._room.ttl), key=lambda one: one.idle)
        self._held.load(found.cluster, found.index, found.floor, found.base, former[: self._most], now)
        self._current_at = now - found.age_at(at)
        if former:
            self._start()

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = [task for task in (self._following, self._telling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _is_covered(self, topic: Topic) -> bool:
        holding = self._held.topics.get(topic)
        return holding is not None and holding.covered

    def _hold(self, topic: Topic) -> asyncio.Future[None]:
        holding = self._held.topics.get(topic)
        if holding is None:
            holding = self._held.hold(topic, self._loop.time())
            seconds = self._pace.wait(topic, self._loop.time())
            if seconds:
                self._loop.call_later(seconds, self._ask_for, holding)
            else:
                self._add[topic] = None
        waiter: asyncio.Future[None] = self._loop.create_future()
        holding.waiters.append(waiter)
        return waiter

    def _ask_for(self, holding: Holding) -> None:
        """The time has come that a topic may be asked for, if it still is to be held."""
        if self._held.topics.get(holding.topic) is holding and not holding.covered:
            self._add[holding.topic] = None
            self._tell_soon()

    def _give_up(self, topic: Topic, waiter: "asyncio.Future[None]") -> None:
        """Somebody waits no more for a topic to be there: without the last of them it goes."""
        if waiter.done() and not waiter.cancelled():
            waiter.exception()  # it was raised for another one, or will be
        holding = self._held.topics.get(topic)
        if holding is not None and waiter in holding.waiters:
            holding.waiters.remove(waiter)
            if not holding.covered and not holding.waiters:
                self._forget(holding)

    # -- following a server -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._following is None:
            self._following = self._loop.create_task(self._follow_always())
            self._sweeping = self._loop.call_later(self._room.step, self._sweep)
        self._tell_soon()

    async def _follow_always(self) -> None:
        pause = RETRY
        while True:
            address = self._pick()
            if address:
                begun = self._loop.time()
                try:
                    await self._follow(address)
                except (
                    Unreachable,
                    LictorError,
                    TimeoutError,
                    *UNREADABLE,
                    KeyError,
                    ValueError,
                    OverflowError,
                ) as error:
                    self._trouble.info(
                        f"{address} {self.streams}",  # one that was followed meanwhile is worth a line again
                        "a server is followed no more: server=%s error=%s",
                        address,
                        str(error) or "no word of it",
                    )
                    if self._failed is not None:
                        self._failed(address, error)
                finally:
                    self._lost()
                if self._loop.time() - begun > LASTING:
                    pause = RETRY
            self._hurried.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * self._chance.uniform(0.5, 1.5)):
                    await self._hurried.wait()
                    pause = RETRY
            pause = min(2 * pause, RETRY_MOST)

    def _lost(self) -> None:
        self.server = ""
        self.knows_leader = False
        self._session = 0
        self._connected.clear()

    async def _follow(self, address: str) -> None:
        """Follow a server until another one is to be. Raises what ends it."""
        held = self._held
        self._session = self._chance.getrandbits(62)
        self._leave = False
        self._add.clear()
        self._drop.clear()
        asked = wire.Follow(self._session, self._datacenter, held.cluster, held.index, held.resume())
        stream = self._transport.stream(address, wire.FOLLOW, wire.encode(asked))
        async with aclosing(stream) as pieces:  # type: ignore[type-var]
            news = aiter(pieces)
            async with asyncio.timeout(FIRST):
                piece = await anext(news)
            self._take(piece)
            self.server = address
            self.streams += 1
            self._connected.set()
            self._tell_soon()
            since = self._loop.time()
            async for piece in news:
                told = self._take(piece)
                now = self._loop.time()
                if told.state.index >= held.index:
                    since = now
                elif now - since > BEHIND:
                    raise Unreachable(f"{address} is behind: at index {told.state.index}, {held.index} is held here")
                if self._leave or self._pick() not in ("", address):
                    return
        raise Unreachable(f"{address} has ended the stream")

    def _take(self, data: bytes) -> wire.Piece:
        piece = wire.decode_piece(data)
        news = self._held.apply(data, piece)
        self.pieces += 1
        now = self._loop.time()
        found, self.knows_leader = piece.state.leader and not self.knows_leader, piece.state.leader
        if piece.state.whole and piece.state.age is not None:
            self._current_at = max(self._current_at, now - piece.state.age)
        if news.changed and self.on_change is not None:
            self.on_change(news.changed)
        for holding in news.begun:
            holding.emptied = now
            waiters, holding.waiters = holding.waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        for holding, reason in news.refused:
            self._is_refused(holding, reason)
        if piece.state.whole:
            for reached, index in self._reaching.items():
                if index <= self._held.index and not reached.done():
                    reached.set_result(None)
        if found:
            self.on_leader()
        return piece

    def _is_refused(self, holding: Holding, reason: str) -> None:
        if len(self._refused) >= REFUSED_MOST:
            self._refused.pop(next(iter(self._refused)))
        self._refused[holding.topic] = (self._loop.time(), reason)
        self._fail(holding, NotCoverable(reason))
        if self._held.topics.get(holding.topic) is holding:
            self._held.drop(holding)

    def _fail(self, holding: Holding, error: LictorError) -> None:
        waiters, holding.waiters = holding.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    async def _confirmed(self, quorum: bool) -> int:
        while True:
            await self._connected.wait()
            body = wire.encode(wire.Confirm(self._session, quorum))
            try:
                return wire.decode_index(await self._call(wire.CONFIRM, body))
            except (Unreachable, *UNREADABLE):
                await asyncio.sleep(RETRY)
            except NoLeader:
                raise
            except LictorError:
                await asyncio.sleep(RETRY)  # it does not follow this agent any more

    async def _call(self, method: str, body: bytes) -> bytes:
        return await self._transport.call(self.server, method, body, self._patience + 1.0)

    # -- telling it what to tell --------------------------------------------------------------------------------------

    def _tell_soon(self) -> None:
        if self._telling is None and self.server and (self._add or self._drop):
            self._telling = self._loop.create_task(self._tell())

    async def _tell(self) -> None:
        """Tell the server which topics have come and gone, in order."""
        try:
            while self.server and (self._add or self._drop):
                drop = list(self._drop)[:BATCH]
                # What is dropped and wanted again is dropped first.
                add = list(self._add)[:BATCH] if len(drop) == len(self._drop) else []
                for topic in add:
                    del self._add[topic]
                for topic in drop:
                    del self._drop[topic]
                await self._tell_some(add, drop)
        finally:
            self._telling = None

    async def _tell_some(self, add: list[Topic], drop: list[Topic]) -> None:
        session = self._session
        asked = [self._held.topics[topic] for topic in add]
        try:
            await self._call(wire.WANT, wire.encode(wire.Want(session, tuple(add), tuple(drop))))
        except Unreachable:
            if session == self._session:
                self._leave = True  # what the server knows is not known: another stream begins with all of it
        except (NoLeader, TooLarge) as error:
            if session == self._session:
                for holding in asked:
                    if self._held.topics.get(holding.topic) is holding and not holding.covered:
                        self._fail(holding, error)
                        self._held.drop(holding)
        except LictorError as error:  # it follows this agent no more: the next one is told everything
            log.debug("a server takes no more topics: server=%s error=%s", self.server, error)

    def _forget(self, holding: Holding) -> None:
        """Hold a topic no more, and have the server know."""
        topic, held = holding.topic, self._held
        held.drop(holding)
        if topic in self._add:
            del self._add[topic]
        elif topic not in self._drop:
            self._drop[topic] = None
            held.leaving[topic] = held.leaving.get(topic, 0) + 1
            self._tell_soon()

    # -- what nobody looks at -----------------------------------------------------------------------------------------

    def configure(self, ttl: float, rate: float, burst: int) -> None:
        """Let go of topics after another time, and ask for one at another pace."""
        self._room.ttl = ttl
        self._pace = Pace(rate, burst)
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = self._loop.call_later(self._room.step, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = self._loop.call_later(self._room.step, self._sweep)
        if not self.server:
            return  # nothing is forgotten that could not be had again
        asked, gone = self._room.idle(self._loop.time())
        for holding in gone:
            self._let_go(holding)
        if asked:
            for holding in asked:
                holding.asked = True
            self._held.tell([holding.topic for holding in asked])

    def _make_room(self, more: int, spared: frozenset[Topic]) -> None:
        """Drop what has to go for more topics. Raises `NotCoverable` where all is in use, or could not be had again."""
        if not self._room.scarce(more):
            return
        # Nothing is forgotten that could not be had again.
        gone = self._room.make(more, spared, self._loop.time()) if self.server else None
        if gone is None:
            if len(self._held.topics) + more <= self._most:
                return
            raise NotCoverable(f"{self._most} topics are held already")
        for holding in gone:
            self._let_go(holding)

    def _let_go(self, holding: Holding) -> None:
        self.dropped += 1
        self._forget(holding)


def _nobody() -> None:
    pass
