"""The end that was called: it hands messages to their handlers, and runs those of calls and streams in tasks."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Any, Protocol

from lictor.model.errors import Forbidden, LictorError, Unsupported
from lictor.model.transport import Caller, OnCall, OnStream, Unreachable
from lictor.rpc import frame
from lictor.rpc.connection import Connection
from lictor.rpc.credit import Credit
from lictor.rpc.errors import encode_error
from lictor.rpc.handlers import Handlers
from lictor.rpc.limits import Limits


class Keeper(Protocol):
    """Who keeps the connections that came in, and their bounds together."""

    def hold(self, more: int) -> None:
        """A connection holds so many bytes more, or less, of what is no whole frame yet."""
        ...

    def take(self, size: int) -> bool:
        """Room for a call's question, or an answer that must wait; False where there is none."""
        ...

    def give(self, size: int) -> None:
        """What was taken is not needed any more."""
        ...

    def owe(self, connection: "Incoming") -> None:
        """A connection owes its caller a sign of life with the next beat."""
        ...

    def failed(self, method: str, caller: str, error: Exception) -> None:
        """A handler failed in a way that nobody foresaw."""
        ...


class _Work:
    """A call or stream that is being answered. `size` is that of its question."""

    __slots__ = ("credit", "more", "size", "task")

    def __init__(self, task: asyncio.Task[None], size: int) -> None:
        self.task = task
        self.size = size
        self.credit = Credit()
        self.more: asyncio.Future[None] | None = None


class Incoming(Connection):
    """The acceptor's end of a connection from `peer`. `cut_off` tells whether this side has put an end to it, `heard`
    whether anything came since that was last looked at, `held_since` when the frame began that is not whole yet.

    With a `required_name`, a caller whose certificate is not for that name may use only what is open to all agents.
    """

    __slots__ = (
        "_calls",
        "_held",
        "_is_server",
        "_keeper",
        "_messages",
        "_open",
        "_owes",
        "_required_name",
        "_setup",
        "_streams",
        "_work",
        "caller",
        "cut_off",
        "heard",
        "held_since",
    )

    def __init__(self, peer: str, limits: Limits, handlers: Handlers, required_name: str, keeper: Keeper) -> None:
        super().__init__(limits, peer)
        self.caller = Caller(peer)
        self.cut_off = False
        self.heard = True
        self.held_since = 0.0
        self._messages = handlers.messages
        self._calls = handlers.calls
        self._streams = handlers.streams
        self._open = handlers.open
        self._required_name = required_name
        self._is_server = True
        self._keeper = keeper
        self._owes = False
        self._held = 0
        self._work: dict[int, _Work] = {}
        self._setup: asyncio.TimerHandle | None = None

    def _connected(self) -> None:
        assert self._transport is not None
        # A certificate that was not verified does not show here.
        certificate = self._transport.get_extra_info("peercert") or {}
        names = tuple(name.lower() for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS")
        self.caller = Caller(self.peer, names)
        self._is_server = not self._required_name or any(covers(name, self._required_name) for name in names)
        self._setup = self._loop.call_later(self.limits.setup, self.abort, "it did not say what it is in time")

    def _greeted(self) -> None:
        if self._setup is not None:
            self._setup.cancel()
        self._write(frame.PREAMBLE)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        self._sent = False
        if not self._owes:
            self._owes = True
            self._keeper.owe(self)
        super().data_received(data)
        self._count()

    def sign(self) -> None:
        """Give a sign of life for what has come since the last beat, if nothing was sent after it."""
        self._owes = False
        if self._reader.greeted and not self._sent:
            self._say()

    def abort(self, reason: str) -> None:
        self.cut_off = self.cut_off or not self.closed
        super().abort(reason)
        self._count()

    def _count(self) -> None:
        held = self.held
        if held != self._held:
            if held < self._held or not self._held:
                self.held_since = self._loop.time()
            more, self._held = held - self._held, held
            self._keeper.hold(more)

    def _refuse_peer(self, problem: str) -> None:
        if problem == frame.SPEAKS_TLS:
            self._write(frame.PREAMBLE)  # by this its side of TLS sees that here is none
            self.cut_off = True
            self.close(problem)
        else:
            self.abort(problem)

    @property
    def greeted(self) -> bool:
        """Whether it has said that it speaks the protocol."""
        return self._reader.greeted

    @property
    def trusted(self) -> bool:
        """Whether it has shown that it comes from a server."""
        return bool(self._required_name) and self._is_server

    def has_room(self) -> bool:
        """Whether an answer may be sent now."""
        return self._queued <= self.limits.answers

    def _ended(self) -> None:
        self._reader.stop(self.closed)
        self._count()
        if self._setup is not None:
            self._setup.cancel()
        for work in self._work.values():
            work.task.cancel()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The handlers that run."""
        return [work.task for work in self._work.values()]

    def _frame(self, kind: int, number: int, method: str, body: bytes) -> None:
        if kind == frame.MESSAGE:
            handler = self._messages.get(method)
            if handler is not None and (self._is_server or (kind, method) in self._open):
                try:
                    handler(self.caller, body)
                except Exception as error:
                    self._keeper.failed(method, self.peer, error)
        elif kind == frame.CALL:
            call = self._calls.get(method)
            run = None if call is None else self._answer(number, method, call, body)
            self._begin(kind, number, method, len(body), run)
        elif kind == frame.STREAM:
            stream = self._streams.get(method)
            run = None if stream is None else self._produce(number, method, stream, body)
            self._begin(kind, number, method, len(body), run)
        elif kind == frame.CANCEL:
            work = self._work.get(number)
            if work is not None:
                work.task.cancel()
        elif kind == frame.CREDIT:
            self._grant(number, frame.decode_count(body))
        elif kind != frame.ALIVE:
            raise ValueError(f"a frame of kind {kind} from the side that called")

    def _begin(self, kind: int, number: int, method: str, size: int, run: Coroutine[Any, Any, None] | None) -> None:
        if run is None:
            self._refuse(number, Unsupported(f"this server does not know {method!r}"))
        elif not self._is_server and (kind, method) not in self._open:
            run.close()
            self._refuse(number, Forbidden(f"{method} needs a certificate for {self._required_name}"))
        elif number in self._work:
            run.close()
            raise ValueError(f"number {number} is in use")
        elif len(self._work) >= self.limits.open:
            run.close()
            self._refuse(number, LictorError("too many calls at once on one connection"))
        elif not self._keeper.take(size):
            run.close()
            self._refuse(number, LictorError("too much is being asked of this server at once: try again"))
        else:
            task = self._loop.create_task(run)
            self._work[number] = _Work(task, size)
            task.add_done_callback(partial(self._done, number))

    def _done(self, number: int, task: asyncio.Task[None]) -> None:
        self._keeper.give(self._work.pop(number).size)

    def _refuse(self, number: int, error: LictorError) -> None:
        if not self.has_room():
            raise ValueError("it goes on calling and takes no answers")
        self._post(frame.ERROR, number, *encode_error(error))

    def _grant(self, number: int, count: int) -> None:
        work = self._work.get(number)
        if work is not None:
            work.credit.grant(count)
            if work.more is not None and not work.more.done():
                work.more.set_result(None)

    async def _answer(self, number: int, method: str, handler: OnCall, body: bytes) -> None:
        try:
            await self._reply(frame.ANSWER, number, "", await handler(self.caller, body))
        except Exception as error:
            await self._reply(frame.ERROR, number, *encode_error(self._told(error, method)))

    async def _produce(self, number: int, method: str, handler: OnStream, body: bytes) -> None:
        try:
            await self._pieces(number, handler(self.caller, body))
            await self._reply(frame.END, number)
        except Exception as error:
            await self._reply(frame.ERROR, number, *encode_error(self._told(error, method)))

    async def _pieces(self, number: int, pieces: AsyncIterator[bytes]) -> None:
        work = self._work[number]
        try:
            async for piece in pieces:
                while work.credit.left <= 0:
                    work.more = self._loop.create_future()
                    await work.more
                await self._reply(frame.ITEM, number, "", piece)
                work.credit.spend(piece)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    async def _reply(self, kind: int, number: int, method: str = "", body: bytes = b"") -> None:
        if not self.has_room():
            size = len(body)
            if not self._keeper.take(size):
                self.abort("it asks for much and takes no answers")
                return
            try:
                await self.room()
            except Unreachable:
                return  # there is nobody to be told
            finally:
                self._keeper.give(size)
        self._post(kind, number, method, body)

    def _told(self, error: Exception, method: str) -> LictorError:
        """What the caller is told of a failure. One that nobody foresaw is for this server's log."""
        if isinstance(error, LictorError):
            return error
        if isinstance(error, Unreachable):
            return LictorError(str(error))
        self._keeper.failed(method, self.peer, error)
        return LictorError(f"{method} failed on the server that was asked; its log says why")


def covers(name: str, required: str) -> bool:
    """Whether a certificate's name, in lower case, stands for the required one: the same, or with a star as its first
    label (RFC 6125, section 6.4.3).
    """
    return name == required or (name.startswith("*.") and name[2:] == required.partition(".")[2])
