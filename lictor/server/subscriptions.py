"""What a server does for the partial replicas of client agents (`lictor.agent.replica`).

An agent opens one stream, `replica.follow`, and says with calls what it wants to follow, and when it wants to be told
how far it is. What it is told comes in pieces, see `lictor.store.partial_messages`: all changes of one turn in one, and
about once a second a piece in any case, so that it knows how old its data is. A server without a leader goes on telling
what it has, with its age; what is first asked for waits until it can be confirmed.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from lictor.model.errors import LictorError, Refused, TooLarge
from lictor.model.transport import UNREADABLE, Caller, Transport
from lictor.server.subscriptions_session import QUEUE_BYTES, Session
from lictor.server.subscriptions_topics import Followed, Topics
from lictor.store import partial_messages as wire
from lictor.store.partial import kind_of
from lictor.store.store import Store
from lictor.store.watch import Topic

T = TypeVar("T")

UNKNOWN = "this server knows no such topic"
BEAT = 1.0  # seconds between two pieces
BEATS = 500  # in a second for all agents; where they are more, each gets fewer
TICK = 0.25  # seconds between two looks at who is due a piece
AGES = 20  # to a second, so that pieces which say nothing but the age are often the same
IDLE = 60.0  # seconds for which an agent may take nothing
REACH = 10.0  # seconds that it may take to get to an index
AGAIN = 0.5  # seconds before the leader is asked again
SESSIONS_MOST = 16_384
TOPICS_MOST = 1_000_000  # that all sessions together may follow, each counted


class Contact(Protocol):
    """What is asked of consensus."""

    @property
    def cluster(self) -> str: ...

    @property
    def leader(self) -> str: ...

    @property
    def last_contact(self) -> float: ...


class Confirming(Protocol):
    """What is asked of a server."""

    store: Store

    @property
    def consensus(self) -> Contact: ...

    async def confirm(self, *, quorum: bool) -> None: ...


class _Agent:
    """A session, and the stream that takes from it."""

    __slots__ = ("ended", "session", "taken", "waiting")

    def __init__(self, session: Session, now: float) -> None:
        self.session = session
        self.taken = now
        self.waiting: asyncio.Future[None] | None = None
        self.ended = False
        session.woken = self.wake

    def wake(self) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)


class Subscriptions:
    """All agents that follow this server. Made on a running loop, before the transport listens. `chance` names this run
    where the cluster has no name.
    """

    def __init__(self, server: Confirming, transport: Transport, datacenter: str, chance: random.Random) -> None:
        self._server = server
        self._store = server.store
        self._datacenter = datacenter
        self._run = f"run-{chance.getrandbits(64):016x}"
        self._cluster = ""
        self._loop = asyncio.get_running_loop()
        self._topics = Topics(self._store, self._soon)
        self._agents: dict[int, _Agent] = {}
        self._scheduled = False
        self._reaching: dict[asyncio.Future[None], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted = 0  # topics of all agents together, at most
        self._mark: tuple[wire.State, bytes] | None = None
        self._closed = False
        self.pieces = 0
        self.overflows = 0
        self._store.flushed.append(self._flushed)
        self._ticking: asyncio.TimerHandle | None = None  # while an agent follows
        transport.on_stream(wire.FOLLOW, self._on_follow, agents=True)
        transport.on_call(wire.WANT, self._on_want, agents=True)
        transport.on_call(wire.CONFIRM, self._on_confirm, agents=True)
        transport.on_call(wire.REACH, self._on_reach, agents=True)

    @property
    def sessions(self) -> int:
        """How many agents follow this server."""
        return len(self._agents)

    @property
    def topics(self) -> int:
        """How many topics are followed by any of them."""
        return len(self._topics)

    @property
    def looks(self) -> int:
        """How often a topic was looked at after a change."""
        return self._topics.looks

    @property
    def changes(self) -> int:
        """How many changes of topics were found, each encoded once."""
        return self._topics.changes

    async def close(self) -> None:
        """Follow nothing any more; streams end."""
        self._closed = True
        if self._ticking is not None:
            self._ticking.cancel()
        self._store.flushed.remove(self._flushed)
        self._topics.close_all()
        self._end_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- calls and streams --------------------------------------------------------------------------------------------

    async def _on_follow(self, caller: Caller, body: bytes) -> AsyncIterator[bytes]:
        asked = _read(wire.decode_follow, body)
        if asked.datacenter and asked.datacenter != self._datacenter:
            raise Refused(f'this server is in datacenter "{self._datacenter}", not in "{asked.datacenter}"')
        if asked.session in self._agents or len(self._agents) >= SESSIONS_MOST or self._closed:
            raise Refused("this server follows no more agents")
        self._name_cluster()
        agent = _Agent(Session(self._topics, self._piece), self._loop.time())
        self._agents[asked.session] = agent
        if self._ticking is None:
            self._ticking = self._loop.call_later(TICK, self._tick)
        try:
            self._resume(agent, asked)
            while not agent.ended:
                piece = agent.session.take(self._look)
                if piece is None:
                    agent.waiting = self._loop.create_future()
                    await agent.waiting
                    continue
                self.pieces += 1
                yield piece
                agent.taken = self._loop.time()
        finally:
            self._end(asked.session, agent)

    def _resume(self, agent: _Agent, asked: wire.Follow) -> None:
        same = asked.cluster == self._cluster
        new = self._expect(agent, asked.known)
        held = {topic: version for topic, version in new.items() if same and version}
        if held:
            self._start(self._begin_held(agent, asked.index, held))
        first = [topic for topic in new if topic not in held]
        if first:
            self._start(self._begin_confirmed(agent, first))
        agent.session.mark()

    def _name_cluster(self) -> None:
        """Know the cluster's name. Where it has another one than before, nobody can go on where it was."""
        name = self._server.consensus.cluster or self._run
        if name != self._cluster:
            self._cluster = name
            self._end_all()

    def _end_all(self) -> None:
        for agent in self._agents.values():
            agent.ended = True
            agent.wake()

    def _end(self, number: int, agent: _Agent) -> None:
        agent.ended = True
        self.overflows += agent.session.overflows
        agent.session.overflows = 0
        agent.session.close()
        if self._agents.get(number) is agent:
            del self._agents[number]

    async def _on_want(self, caller: Caller, body: bytes) -> bytes:
        asked = _read(wire.decode_want, body)
        agent = self._agent(asked.session)
        if agent.session.queued > 2 * QUEUE_BYTES:
            raise Refused("this agent asks, and takes nothing of what it is told")
        if asked.drop:
            agent.session.drop_wanted(asked.drop)
        new = self._expect(agent, [(topic, 0) for topic in asked.add])
        if new:
            try:
                await self._server.confirm(quorum=False)
            except BaseException:
                for topic in new:
                    agent.session.drop(topic)
                raise
            agent.session.begin(new)
        return b""

    async def _on_confirm(self, caller: Caller, body: bytes) -> bytes:
        asked = _read(wire.decode_confirm, body)
        agent = self._agent(asked.session)
        await self._server.confirm(quorum=asked.quorum)
        agent.session.mark()
        return wire.encode(self._store.index)

    async def _on_reach(self, caller: Caller, body: bytes) -> bytes:
        asked = _read(wire.decode_reach, body)
        agent = self._agent(asked.session)
        try:
            async with asyncio.timeout(REACH):
                await self._reached(asked.index)
        except TimeoutError:
            raise LictorError(
                f"this server is at index {self._store.index} and has not come to {asked.index}"
            ) from None
        agent.session.mark()
        return wire.encode(self._store.index)

    def _agent(self, session: int) -> _Agent:
        agent = self._agents.get(session)
        if agent is None:
            raise Refused("this server does not follow this agent")
        return agent

    def _expect(self, agent: _Agent, topics: Sequence[tuple[Topic, int]]) -> dict[Topic, int]:
        """Have topics of which the agent has a version ready to begin. Returns those that it does not follow yet."""
        session = agent.session
        if len(session.topics) + len(topics) > wire.TOPICS_MOST:
            raise TooLarge(f"an agent can follow {wire.TOPICS_MOST} topics")
        if self._wanted + len(topics) > TOPICS_MOST:
            raise TooLarge(f"a server follows {TOPICS_MOST} topics for all agents together")
        self._wanted += len(topics)
        for topic, _ in topics:
            if kind_of(topic) is None:
                session.refuse(topic, UNKNOWN)
        return session.expect([one for one in topics if kind_of(one[0]) is not None])

    # -- beginning ----------------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin_held(self, agent: _Agent, index: int, topics: dict[Topic, int]) -> None:
        """Go on where an agent was: never with a state older than it has seen."""
        await self._reached(index)
        agent.session.begin(topics)

    async def _begin_confirmed(self, agent: _Agent, topics: list[Topic]) -> None:
        while not agent.ended:
            try:
                await self._server.confirm(quorum=False)
            except LictorError:
                await asyncio.sleep(AGAIN)
            else:
                agent.session.begin(dict.fromkeys(topics, 0))
                return

    async def _reached(self, index: int) -> None:
        if self._store.index < index:
            done: asyncio.Future[None] = self._loop.create_future()
            self._reaching[done] = index
            try:
                await done
            finally:
                del self._reaching[done]

    # -- what the store tells -----------------------------------------------------------------------------------------

    def _flushed(self) -> None:
        self._topics.forget_changes()
        if self._reaching:
            for waiting, index in self._reaching.items():
                if index <= self._store.index and not waiting.done():
                    waiting.set_result(None)

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._look_soon)

    def _look_soon(self) -> None:
        self._scheduled = False
        self._look()

    def _look(self) -> None:
        """Have every agent told of all that has changed."""
        told: dict[Session, list[tuple[Followed, msgspec.Raw]]] = {}
        for followed, change in self._topics.look():
            if change is None:
                for session in list(followed.sessions):
                    session.refuse(followed.topic)
                continue
            one = (followed, msgspec.Raw(change))
            for session in followed.sessions:
                told.setdefault(session, []).append(one)
        made: dict[tuple[object, ...], tuple[tuple[Followed, ...], bytes]] = {}
        for session, changes in told.items():
            whole = session.whole
            key = (whole, *(id(followed) for followed, _ in changes))
            found = made.get(key)
            if found is None:
                piece = self._piece([raw for _, raw in changes], whole)
                found = made[key] = (tuple(followed for followed, _ in changes), piece)
            session.tell(*found)

    # -- pieces -------------------------------------------------------------------------------------------------------

    def _piece(self, messages: list[msgspec.Raw], whole: bool) -> bytes:
        store = self._store
        age = self._server.consensus.last_contact
        state = wire.State(
            store.index,
            store.floor,
            store.base,
            None if math.isinf(age) else math.ceil(age * AGES) / AGES,
            bool(self._server.consensus.leader),
            whole,
            self._cluster,
        )
        if messages:
            return wire.piece(state, messages)
        if self._mark is None or self._mark[0] != state:
            self._mark = (state, wire.piece(state, []))
        return self._mark[1]

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(TICK, self._tick) if self._agents else None
        self._name_cluster()
        now = self._loop.time()
        beat = max(BEAT, len(self._agents) / BEATS)
        for number, agent in list(self._agents.items()):
            silent = now - agent.taken
            if silent >= IDLE:
                self._end(number, agent)
            elif silent >= beat:
                agent.session.mark()
        self._wanted = sum(len(agent.session.topics) for agent in self._agents.values())
        self._topics.forget_starts()


def _read(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except UNREADABLE as error:
        raise Refused(f"the call cannot be read: {error}") from None
