"""The end that began the connection: it sends messages, calls, and asks for streams."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from lictor.model.errors import LictorError
from lictor.model.transport import Unreachable
from lictor.rpc import frame
from lictor.rpc.connection import Connection
from lictor.rpc.credit import Intake
from lictor.rpc.errors import decode_error
from lictor.rpc.limits import Limits


class _Stream:
    """A stream that is being taken. `end` is None while it may go on, an error or "" once it does not."""

    __slots__ = ("end", "intake", "more")

    def __init__(self) -> None:
        self.intake = Intake()
        self.end: LictorError | Unreachable | str | None = None
        self.more: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.more is not None and not self.more.done():
            self.more.set_result(None)


class Outgoing(Connection):
    """The initiator's end of a connection to `peer`. `greeting` is done once the other side has answered the
    preamble, and fails with `Unreachable` where it does not; `on_end` is called once the connection is over.
    """

    __slots__ = ("_calls", "_expects", "_idle", "_next", "_on_end", "_silent", "_streams", "greeting")

    def __init__(self, peer: str, limits: Limits, on_end: Callable[["Outgoing"], None]) -> None:
        super().__init__(limits, peer)
        self.greeting: asyncio.Future[None] = self._loop.create_future()
        self._on_end = on_end
        self._next = 0
        self._expects = False  # a sign of life, for what was sent
        self._silent = 0  # beats for which one is expected
        self._idle = 0  # beats in which nothing was sent
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._streams: dict[int, _Stream] = {}

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._calls or self._streams)

    def _connected(self) -> None:
        self._write(frame.PREAMBLE)

    def _greeted(self) -> None:
        if not self.greeting.done():
            self.greeting.set_result(None)

    def _ended(self) -> None:
        if not self.greeting.done():
            self.greeting.set_exception(self._unreachable())
            self.greeting.exception()  # nobody may look at it
        calls, self._calls = self._calls, {}
        for answer in calls.values():
            if not answer.done():
                answer.set_exception(self._unreachable())
                answer.exception()  # its task may be cancelled before it looks
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.end = self._unreachable()
            stream.wake()
        self._on_end(self)

    def data_received(self, data: bytes) -> None:
        self._silent, self._expects = 0, False
        if self._sent:
            self._sent, self._idle = False, 0
        super().data_received(data)

    def beat(self) -> None:
        """Called once a beat: say something where nothing was said for long, and give up a peer that never answers.
        Until both have greeted, there is another limit on that.

        Beats are counted, not seconds: what has arrived while this process stood still is read before the next.
        """
        if not self._reader.greeted:
            return
        if self._sent:
            self._sent, self._idle, self._expects = False, 0, True
        else:
            self._idle += 1
        limits = self.limits
        if self._expects:
            self._silent += 1
            if self._silent > limits.silent_beats:
                self.abort(f"nothing was heard of it for {limits.beat * limits.silent_beats:g} s")
                return
        if self._idle >= (1 if self._calls else limits.idle_beats):
            self._say()

    def _unreachable(self) -> Unreachable:
        return Unreachable(f"{self.peer}: {self.closed}")

    def has_room(self) -> bool:
        """Whether a call may begin now."""
        limits = self.limits
        return self._queued <= limits.buffered and len(self._calls) + len(self._streams) < limits.open

    def _frame(self, kind: int, number: int, method: str, body: bytes) -> None:
        if kind == frame.ANSWER:
            answer = self._calls.pop(number, None)
            if answer is not None and not answer.done():
                answer.set_result(body)
        elif kind == frame.ITEM:
            stream = self._streams.get(number)
            if stream is not None:
                stream.intake.add(body)
                stream.wake()
        elif kind == frame.ERROR:
            self._fail(number, decode_error(method, body))
        elif kind == frame.END:
            self._finish(number, "")
        elif kind != frame.ALIVE:
            raise ValueError(f"a frame of kind {kind} from the side that was called")

    def _fail(self, number: int, error: LictorError) -> None:
        answer = self._calls.pop(number, None)
        if answer is None:
            self._finish(number, error)
        elif not answer.done():
            answer.set_exception(error)
            answer.exception()

    def _finish(self, number: int, end: LictorError | str) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.end = end
            stream.wake()

    def send(self, method: str, body: bytes) -> bool:
        """Send a message, or drop it and return False. Raises `TooLarge`."""
        if self.closed or (self._queued and self._queued + len(body) > self.limits.buffered):
            return False
        self._post(frame.MESSAGE, 0, method, body)
        return True

    async def call(self, method: str, body: bytes, deadline: float) -> bytes:
        """Call, and return the answer. `deadline` is a time of the loop. Raises `Unreachable`, `TooLarge` and the
        callee's `LictorError`.
        """
        if self.closed:
            raise self._unreachable()
        self._next = number = self._next + 1
        self._post(frame.CALL, number, method, body)
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._calls[number] = answer
        timer = self._loop.call_at(deadline, self._expire, answer, method)
        try:
            return await answer
        finally:
            timer.cancel()
            self._forget(number)

    def _expire(self, answer: asyncio.Future[bytes], method: str) -> None:
        if not answer.done():
            answer.set_exception(Unreachable(f"{self.peer}: {method} was not answered in time"))
            answer.exception()

    def _forget(self, number: int) -> None:
        """Nobody waits for it any more; where it is still open, the other side is told."""
        if (self._calls.pop(number, None) or self._streams.pop(number, None)) is not None and not self.closed:
            self._post(frame.CANCEL, number)
        if self._room:
            self._wake()

    async def stream(self, method: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """Ask for a stream. Iterating raises `Unreachable`, `TooLarge` and the callee's `LictorError`."""
        if self.closed:
            raise self._unreachable()
        self._next = number = self._next + 1
        self._post(frame.STREAM, number, method, body)
        self._streams[number] = stream = _Stream()
        try:
            while True:
                while stream.intake.pieces:
                    yield stream.intake.take()
                    due = stream.intake.due()
                    if due and stream.end is None and not self.closed:
                        self._post(frame.CREDIT, number, body=frame.encode_count(due))
                if isinstance(stream.end, Exception):
                    raise stream.end
                if stream.end is not None:
                    return
                stream.more = self._loop.create_future()
                await stream.more
        finally:
            self._forget(number)
