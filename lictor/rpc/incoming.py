"""The end that was called: it hands messages to their handlers, and runs those of calls and streams in tasks."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from lictor.model.errors import Forbidden, LictorError, Unsupported
from lictor.model.transport import Caller, OnCall, OnStream, Unreachable
from lictor.rpc import frame
from lictor.rpc.connection import Connection, log
from lictor.rpc.credit import Credit
from lictor.rpc.errors import encode_error
from lictor.rpc.handlers import Handlers
from lictor.rpc.limits import Limits


class _Work:
    """A call or stream that is being answered."""

    __slots__ = ("credit", "more", "task")

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.credit = Credit()
        self.more: asyncio.Future[None] | None = None


class Incoming(Connection):
    """The acceptor's end of a connection from `peer`. `cut_off` tells whether this side has put an end to it.
    `on_held` is told how many bytes more, or less, it holds of what is no whole frame yet.

    With a `required_name`, a caller whose certificate is not for that name may use only what is open to all agents.
    """

    def __init__(
        self, peer: str, limits: Limits, handlers: Handlers, required_name: str, on_held: Callable[[int], None]
    ) -> None:
        super().__init__(limits, peer)
        self.caller = Caller(peer)
        self.cut_off = False
        self._messages = handlers.messages
        self._calls = handlers.calls
        self._streams = handlers.streams
        self._open = handlers.open
        self._required_name = required_name
        self._is_server = True
        self._on_held = on_held
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
        super().data_received(data)
        self._count()

    def abort(self, reason: str) -> None:
        self.cut_off = self.cut_off or not self.closed
        super().abort(reason)
        self._count()

    def _count(self) -> None:
        held = self.held
        if held != self._held:
            more, self._held = held - self._held, held
            self._on_held(more)

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
                except Exception:
                    log.exception("the handler of %s failed on a message from %s", method, self.peer)
        elif kind == frame.CALL:
            call = self._calls.get(method)
            self._begin(kind, number, method, None if call is None else self._answer(number, method, call, body))
        elif kind == frame.STREAM:
            stream = self._streams.get(method)
            self._begin(kind, number, method, None if stream is None else self._produce(number, method, stream, body))
        elif kind == frame.CANCEL:
            work = self._work.get(number)
            if work is not None:
                work.task.cancel()
        elif kind == frame.CREDIT:
            self._grant(number, frame.decode_count(body))
        elif kind != frame.ALIVE:
            raise ValueError(f"a frame of kind {kind} from the side that called")

    def _begin(self, kind: int, number: int, method: str, run: Coroutine[Any, Any, None] | None) -> None:
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
        else:
            task = self._loop.create_task(run)
            self._work[number] = _Work(task)
            task.add_done_callback(partial(self._done, number))

    def _done(self, number: int, task: asyncio.Task[None]) -> None:
        del self._work[number]

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
            try:
                await self.room()
            except Unreachable:
                return  # there is nobody to be told
        self._post(kind, number, method, body)

    def _told(self, error: Exception, method: str) -> LictorError:
        """What the caller is told of a failure. One that nobody foresaw is for this server's log."""
        if isinstance(error, LictorError):
            return error
        if isinstance(error, Unreachable):
            return LictorError(str(error))
        log.error("the handler of %s failed for %s", method, self.peer, exc_info=error)
        return LictorError(f"{method} failed on the server that was asked; its log says why")


def covers(name: str, required: str) -> bool:
    """Whether a certificate's name, in lower case, stands for the required one: the same, or with a star as its first
    label (RFC 6125, section 6.4.3).
    """
    return name == required or (name.startswith("*.") and name[2:] == required.partition(".")[2])
