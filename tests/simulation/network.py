"""The network between servers: a `Transport` for each process, over connections that live, stall and break.

On one connection everything arrives once, in order, as TCP has it. What a connection does not survive is lost with all
that was on its way. Where nothing passes (a *cut* from one address to another), what is sent waits: when the cut heals
in time it arrives, old as it is, otherwise the connection breaks; sometimes it breaks at once. A process that is killed
closes its connections, a machine that loses its power does not: the others notice later.

With `Weather.loss`, `doubles`, `shuffles` and `echoes`, messages and calls are lost, doubled and overtaken as well, as
no connection would: more than servers must stand, and they must stand it.
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

from lictor.model.errors import LictorError
from lictor.model.transport import Caller, OnCall, OnMessage, OnStream, Unreachable
from tests.simulation.loop import Owner, SimLoop

RETRY_LONGEST: Final = 5.0  # seconds between two attempts to get through
QUEUED_BYTES: Final = 32 * 1024 * 1024  # on the way from one server to another; more is dropped
ECHO: Final = 10.0  # seconds after which a message may come again
WINDOW: Final = 4  # pieces of a stream that are on their way


class Weather(msgspec.Struct):
    """What the network is like. Delays in seconds; `tail` is how often a frame takes up to `slow`; chances else."""

    delay: float = 0.001
    slow: float = 0.2
    tail: float = 0.01
    bandwidth: float = 50e6
    loss: float = 0.0
    doubles: float = 0.0
    shuffles: float = 0.0
    echoes: float = 0.0  # messages that come again long after, up to `ECHO` seconds
    breaks: float = 0.0  # of connections, at each frame

    @property
    def faithful(self) -> bool:
        """Whether messages arrive once and in order."""
        return not (self.loss or self.doubles or self.shuffles or self.echoes)


class Network:
    """All connections, and who listens where. `cut` holds (from, to) pairs of addresses between which nothing passes.

    `trace` is told of what happens, in short lines; `passed` each time a frame has arrived; `sent` of each message, by
    its sender's name, its method and its body, before it is on its way.
    """

    def __init__(
        self, loop: SimLoop, chance: random.Random, trace: Callable[[str], None], passed: Callable[[], None]
    ) -> None:
        self.sent: Callable[[str, str, bytes], None] = lambda name, method, body: None
        self.loop = loop
        self.chance = chance
        self.weather = Weather()
        self.cut: set[tuple[str, str]] = set()
        self.kept: set[tuple[str, str]] = set()  # cuts that are not to be healed by whoever has made the same one
        self.frames = 0
        self.broken = 0
        self.passed = passed
        self._trace = trace
        self._listening: dict[str, SimTransport] = {}
        self._numbers = itertools.count(1)

    def join(self, owner: Owner, address: str) -> "SimTransport":
        """A process begins to listen at an address."""
        transport = SimTransport(self, owner, address)
        self._listening[address] = transport
        return transport

    def leave(self, transport: "SimTransport", *, silently: bool) -> None:
        """A process is gone. Others learn of it, unless it went `silently`: then only when they want something."""
        if self._listening.get(transport.address) is transport:
            del self._listening[transport.address]
        for connection in list(transport.connections.values()):
            connection.die(silently)

    def listener(self, address: str) -> "SimTransport | None":
        """Who listens at an address."""
        return self._listening.get(address)

    def take_number(self) -> int:
        """A number for a connection or a request."""
        return next(self._numbers)

    def delay(self) -> float:
        """How long a frame is on its way."""
        weather, chance = self.weather, self.chance
        seconds = chance.expovariate(1 / weather.delay)
        if weather.tail and chance.random() < weather.tail:
            seconds += chance.random() * weather.slow
        return seconds

    def patience(self) -> float:
        """How long a sender hears nothing before it gives a connection up, in seconds."""
        return self.chance.uniform(1.0, 12.0)

    def passes(self, source: str, target: str) -> bool:
        """Whether anything gets from one address to another."""
        return (source, target) not in self.cut

    def note(self, what: str) -> None:
        """Tell the trace."""
        self._trace(what)

    def break_some(self, share: float) -> None:
        """Break a share of all connections."""
        for transport in list(self._listening.values()):
            for connection in list(transport.connections.values()):
                if connection.dialler is transport and self.chance.random() < share:
                    connection.break_off()


class _Frame(msgspec.Struct, frozen=True):
    """Something on its way. `deliver` is called at the other end, as its code."""

    size: int
    what: str
    deliver: Callable[..., None]
    args: tuple[Any, ...]


class _Pipe:
    """One direction of a connection."""

    def __init__(self, connection: "Connection", source: "SimTransport", target: "SimTransport") -> None:
        self._connection = connection
        self._network = connection.network
        self._source = source
        self._target = target
        self._queue: deque[tuple[float, _Frame]] = deque()
        self._last = 0.0
        self._free = 0.0  # when the line has taken what was sent before
        self._waiting = False
        self.bytes = 0

    def send(self, frame: _Frame) -> None:
        """Put a frame on its way."""
        network, loop = self._network, self._network.loop
        self._free = max(self._free, self._connection.open_at, loop.now) + frame.size / network.weather.bandwidth
        self._last = arrives = max(self._last, self._free + network.delay())
        self.bytes += frame.size
        self._queue.append((arrives, frame))
        if not self._waiting:
            self._waiting = True
            loop.at(arrives, self._arrive, 0.05, None)

    def _arrive(self, retry: float, since: float | None) -> None:
        """Deliver what is due, or try again later."""
        connection, network, loop = self._connection, self._network, self._network.loop
        self._waiting = False
        if not connection.alive or not self._queue:
            return
        if connection.is_news_to(self._target):
            connection.break_off()
            return
        if not network.passes(self._source.address, self._target.address) or connection.numb:
            since = loop.now if since is None else since
            if loop.now - since > connection.patience:
                connection.break_off()
                return
            self._waiting = True
            loop.later(retry * network.chance.uniform(0.8, 1.2), self._arrive, min(2 * retry, RETRY_LONGEST), since)
            return
        while self._queue and self._queue[0][0] <= loop.now:
            frame = self._queue.popleft()[1]
            self.bytes -= frame.size
            network.frames += 1
            network.note(f"net {self._source.address}>{self._target.address} {frame.what}")
            loop.later(0.0, frame.deliver, *frame.args, owner=self._target.owner)
            network.passed()
        if network.weather.breaks and network.chance.random() < network.weather.breaks:
            connection.break_off()
        elif self._queue:
            self._waiting = True
            loop.at(self._queue[0][0], self._arrive, 0.05, None)


class Connection:
    """Between the process that dialled and the one that listened. Dead once and for all when it breaks."""

    def __init__(self, network: Network, dialler: "SimTransport", listener: "SimTransport", open_at: float) -> None:
        self.network = network
        self.number = network.take_number()
        self.dialler = dialler
        self.listener = listener
        self.open_at = open_at
        self.alive = True
        self.numb = False  # one end is gone and the other does not know
        self.patience = network.patience()
        self.ends: list[Callable[[str], None]] = []
        self._there = _Pipe(self, dialler, listener)
        self._back = _Pipe(self, listener, dialler)
        dialler.connections[self.number] = self
        listener.connections[self.number] = self

    def pipe(self, source: "SimTransport") -> _Pipe:
        """The direction in which a process sends."""
        return self._there if source is self.dialler else self._back

    def break_off(self) -> None:
        """Lose all that is on its way; both ends learn of it."""
        if not self.alive:
            return
        self.alive = False
        network = self.network
        network.broken += 1
        network.note(f"net {self.dialler.address}-{self.listener.address} breaks")
        for end in (self.dialler, self.listener):
            end.connections.pop(self.number, None)
            network.loop.later(network.delay(), end.lost, self, owner=end.owner)

    def is_news_to(self, end: "SimTransport") -> bool:
        """Whether another process listens at an end's address by now, which knows nothing of this connection."""
        return self.numb and self.network.listener(end.address) not in (None, end)

    def die(self, silently: bool) -> None:
        """One end is gone."""
        if silently:
            self.numb = True
            self.network.loop.later(self.patience, self._unheard)
        else:
            self.break_off()

    def _unheard(self) -> None:
        """Nothing has come for long: who has a stream open misses the signs of life."""
        if self.dialler.streams_over(self) or self.listener.streams_over(self):
            self.break_off()


class _Call:
    """A call that waits for its answer."""

    def __init__(self, answer: "asyncio.Future[bytes]") -> None:
        self.answer = answer


class _Stream:
    """A stream at its caller: what arrived, and how it ended."""

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.ended: BaseException | None = None
        self.done = False
        self.arrived = asyncio.Event()


class SimTransport:
    """A `Transport`: one process's end of the network."""

    def __init__(self, network: Network, owner: Owner, address: str) -> None:
        self.network = network
        self.owner = owner
        self.address = address
        self.connections: dict[int, Connection] = {}
        self._dialled: dict[str, Connection] = {}
        self._refused: dict[str, float] = {}
        self._messages: dict[str, OnMessage] = {}
        self._calls: dict[str, OnCall] = {}
        self._streams: dict[str, OnStream] = {}
        self._asked: dict[int, tuple[Connection, _Call | _Stream]] = {}
        self._answering: dict[int, tuple[Connection, asyncio.Task[None]]] = {}
        self._credit: dict[int, asyncio.Semaphore] = {}

    # -- the interface ------------------------------------------------------------------------------------------------

    def on_message(self, method: str, handler: OnMessage, *, agents: bool = False) -> None:
        self._messages[method] = handler

    def on_call(self, method: str, handler: OnCall, *, agents: bool = False) -> None:
        self._calls[method] = handler

    def on_stream(self, method: str, handler: OnStream, *, agents: bool = False) -> None:
        self._streams[method] = handler

    def send(self, address: str, method: str, body: bytes) -> bool:
        connection = self._dial(address)
        if connection is None or connection.pipe(self).bytes > QUEUED_BYTES:
            return False
        self.network.sent(self.owner.name, method, body)
        self._put(connection, len(body), f"{method} {len(body)}", "_message", method, bytes(body))
        return True

    async def call(self, address: str, method: str, body: bytes, timeout: float) -> bytes:
        connection = self._dial(address)
        if connection is None or connection.pipe(self).bytes > QUEUED_BYTES:
            raise Unreachable(f"{method} to {address}: nobody is there")
        number = self.network.take_number()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = connection, _Call(answer)
        self._put(connection, len(body), f"{method}? {len(body)}", "_called", connection, number, method, bytes(body))
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise Unreachable(f"{method} to {address}: no answer within {timeout} s") from None
        finally:
            self._asked.pop(number, None)
            if not answer.done() or answer.cancelled():
                self._give_up(connection, number)

    async def stream(self, address: str, method: str, body: bytes) -> AsyncIterator[bytes]:
        connection = self._dial(address)
        if connection is None:
            raise Unreachable(f"{method} to {address}: nobody is there")
        number = self.network.take_number()
        stream = _Stream()
        self._asked[number] = connection, stream
        self._put(connection, len(body), f"{method}* {len(body)}", "_opened", connection, number, method, bytes(body))
        try:
            while True:
                while stream.pieces:
                    piece = stream.pieces.popleft()
                    self._put(connection, 8, "more", "_more", number)
                    yield piece
                if stream.ended is not None:
                    raise stream.ended
                if stream.done:
                    return
                stream.arrived.clear()
                await stream.arrived.wait()
        finally:
            self._asked.pop(number, None)
            if not stream.done and stream.ended is None:
                self._give_up(connection, number)

    # -- connections --------------------------------------------------------------------------------------------------

    def _dial(self, address: str) -> Connection | None:
        """The connection to an address, perhaps a new one that is not open yet."""
        network, loop = self.network, self.network.loop
        connection = self._dialled.get(address)
        if connection is not None and connection.alive:
            return connection
        if loop.now < self._refused.get(address, 0.0):
            return None
        listener = network.listener(address)
        blocked = not (network.passes(self.address, address) and network.passes(address, self.address))
        refused = blocked and network.chance.random() < 0.5  # otherwise it keeps trying to get through
        if listener is None or refused or listener is self or self.owner.dead:
            self._refused[address] = loop.now + network.chance.uniform(0.02, 0.5)
            return None
        opens = loop.now + 2 * network.delay()
        connection = self._dialled[address] = Connection(network, self, listener, opens)
        return connection

    def streams_over(self, connection: Connection) -> bool:
        """Whether a stream that this process has asked for comes over a connection."""
        return any(used is connection and isinstance(asked, _Stream) for used, asked in self._asked.values())

    def lost(self, connection: Connection) -> None:
        """A connection broke."""
        for _, (used, asked) in sorted(self._asked.items()):
            if used is not connection:
                continue
            if isinstance(asked, _Call):
                if not asked.answer.done():
                    asked.answer.set_exception(Unreachable("the connection broke"))
            else:
                asked.ended = Unreachable("the connection broke")
                asked.arrived.set()
        for number, (used, task) in sorted(self._answering.items()):
            if used is connection:
                self._answering.pop(number)
                task.cancel()

    def _put(self, connection: Connection, size: int, what: str, end: str, *args: Any) -> None:
        """Send a frame, for a method of the other end's transport; in bad weather less or more than once."""
        if not connection.alive or self.owner.dead:
            return
        network = self.network
        other = connection.listener if connection.dialler is self else connection.dialler
        frame = _Frame(size + 32, what, getattr(other, end), args)
        weather, chance = network.weather, network.chance
        if weather.faithful or end not in ("_message", "_called"):
            connection.pipe(self).send(frame)
            return
        if chance.random() < weather.loss:
            network.note(f"net {self.address}>{other.address} {what} is lost")
            return
        if end == "_message" and chance.random() < weather.echoes:
            network.loop.later(chance.uniform(0.0, ECHO), self._overtaken, connection, frame, other)
        for _ in range(2 if chance.random() < weather.doubles else 1):
            if chance.random() < weather.shuffles:
                late = network.delay() + chance.random() * weather.slow
                network.loop.later(late, self._overtaken, connection, frame, other)
            else:
                connection.pipe(self).send(frame)

    def _overtaken(self, connection: Connection, frame: _Frame, other: "SimTransport") -> None:
        if connection.alive and self.network.passes(self.address, other.address):
            self.network.note(f"net {self.address}>{other.address} {frame.what} out of turn")
            self.network.loop.later(0.0, frame.deliver, *frame.args, owner=other.owner)

    def _give_up(self, connection: Connection, number: int) -> None:
        self._put(connection, 8, "cancel", "_cancelled", number)

    def _caller(self) -> Caller:
        return Caller("")

    # -- what arrives -------------------------------------------------------------------------------------------------

    def _message(self, method: str, body: bytes) -> None:
        handler = self._messages.get(method)
        if handler is not None:
            handler(self._caller(), body)

    def _called(self, connection: Connection, number: int, method: str, body: bytes) -> None:
        handler = self._calls.get(method)
        if handler is None:
            self._put(connection, 8, "unknown", "_failed", number, LictorError(f"rpc: can't find method {method}"))
            return
        work = self._answer(connection, number, handler, body)
        task = asyncio.get_running_loop().create_task(work)
        if number in self._answering:
            return  # the same call for a second time: both run
        self._answering[number] = connection, task

    async def _answer(self, connection: Connection, number: int, handler: OnCall, body: bytes) -> None:
        try:
            answer = await handler(self._caller(), body)
        except LictorError as error:
            self._put(connection, 64, f"error {error}", "_failed", number, error)
        else:
            self._put(connection, len(answer), f"answer {len(answer)}", "_answered", number, bytes(answer))
        finally:
            self._answering.pop(number, None)

    def _opened(self, connection: Connection, number: int, method: str, body: bytes) -> None:
        handler = self._streams.get(method)
        if handler is None:
            self._put(connection, 8, "unknown", "_failed", number, LictorError(f"rpc: can't find method {method}"))
            return
        self._credit[number] = asyncio.Semaphore(WINDOW)
        work = self._pour(connection, number, handler(self._caller(), body))
        self._answering[number] = connection, asyncio.get_running_loop().create_task(work)

    async def _pour(self, connection: Connection, number: int, pieces: AsyncIterator[bytes]) -> None:
        credit = self._credit[number]
        try:
            async for piece in pieces:
                await credit.acquire()
                self._put(connection, len(piece), f"piece {len(piece)}", "_piece", number, bytes(piece))
        except LictorError as error:
            self._put(connection, 64, f"error {error}", "_failed", number, error)
        else:
            self._put(connection, 8, "end", "_ended", number)
        finally:
            self._answering.pop(number, None)
            self._credit.pop(number, None)

    def _answered(self, number: int, body: bytes) -> None:
        asked = self._asked.get(number)
        if asked is not None and isinstance(asked[1], _Call) and not asked[1].answer.done():
            asked[1].answer.set_result(body)

    def _failed(self, number: int, error: LictorError) -> None:
        _, asked = self._asked.get(number, (None, None))
        if isinstance(asked, _Call):
            if not asked.answer.done():
                asked.answer.set_exception(error)
        elif asked is not None:
            asked.ended = error
            asked.arrived.set()

    def _piece(self, number: int, piece: bytes) -> None:
        _, asked = self._asked.get(number, (None, None))
        if isinstance(asked, _Stream):
            asked.pieces.append(piece)
            asked.arrived.set()

    def _ended(self, number: int) -> None:
        _, asked = self._asked.get(number, (None, None))
        if isinstance(asked, _Stream):
            asked.done = True
            asked.arrived.set()

    def _more(self, number: int) -> None:
        credit = self._credit.get(number)
        if credit is not None:
            credit.release()

    def _cancelled(self, number: int) -> None:
        _, task = self._answering.pop(number, (None, None))
        if task is not None:
            task.cancel()
