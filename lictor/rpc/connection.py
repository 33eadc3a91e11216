"""What both ends of a connection have in common: frames that go out together, a bound on what waits, signs of life.

Frames sent in one turn of the loop leave in one write, at its end. While the other side does not take them they wait
here, and not in the loop's transport, so that what waits is counted in one place.
"""

import asyncio
import logging
from typing import cast

from lictor.model.errors import TooLarge
from lictor.model.transport import Unreachable
from lictor.rpc import frame
from lictor.rpc.frame import Frame, Reader
from lictor.rpc.limits import Limits

log = logging.getLogger("lictor.rpc")

CLOSED = "the other side closed the connection"

_HIGH_WATER = 1024 * 1024  # bytes in the transport beyond which nothing more is handed to it
_WRITE = 1024 * 1024  # bytes handed over at once, while there are frames for it
_LONG = 32 * 1024  # bytes; a piece of this length is not copied to leave with others
_CLOSING = 1.0  # seconds for the last bytes to leave

_ALIVE = b"".join(frame.encode(frame.ALIVE))


class Connection(asyncio.Protocol):
    """One end. Subclasses say what a frame means, in `_frame`, and what to do once connected, and at the end.

    `peer` is host:port of the other end. `closed` is why the connection is over, or goes to be; empty while it lives.
    """

    __slots__ = (
        "_flushing",
        "_long",
        "_longest",
        "_loop",
        "_out",
        "_paused",
        "_queued",
        "_reader",
        "_room",
        "_sent",
        "_transport",
        "closed",
        "limits",
        "over",
        "peer",
    )

    def __init__(self, limits: Limits, peer: str) -> None:
        self.limits = limits
        self.peer = peer
        self.closed = ""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(limits.frame)
        self._transport: asyncio.Transport | None = None
        self._longest = frame.longest_body(limits.frame)
        self._out: list[bytes] = []
        self._queued = 0  # bytes in `_out`
        self._long = False  # whether some piece in `_out` may be
        self._paused = False
        self._flushing = False
        self._sent = False  # since this was last looked at
        self._room: list[asyncio.Future[None]] = []  # mostly empty, and much smaller than a deque then

    @property
    def connected(self) -> bool:
        """Whether the loop has begun with it."""
        return self._transport is not None

    @property
    def held(self) -> int:
        """Bytes that have come and make no whole frame yet."""
        return self._reader.held

    # What subclasses do

    def _frame(self, kind: int, number: int, method: str, body: bytes) -> None:
        """Act on a frame. Raises ValueError for what a well-meaning peer does not send."""
        raise NotImplementedError

    def _connected(self) -> None:
        """The transport is there."""

    def _greeted(self) -> None:
        """The other side's preamble has come, and is right."""

    def _refuse_peer(self, problem: str) -> None:
        """The other side is not what it should be."""
        self.abort(problem)

    def _ended(self) -> None:
        """The connection is over."""

    def has_room(self) -> bool:
        """Whether more may be sent now."""
        return self._queued <= self.limits.buffered

    # The loop's calls

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = transport = cast(asyncio.Transport, made)
        transport.set_write_buffer_limits(_HIGH_WATER)
        if self.closed:
            transport.abort()
        else:
            self._connected()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        greeted = reader.greeted
        frames = reader.feed(data)
        if not greeted and reader.greeted:
            self._greeted()
        self._frames(frames)
        if reader.problem and not self.closed:
            self._refuse_peer(reader.problem)

    def _frames(self, frames: list[Frame]) -> None:
        for kind, number, method, body in frames:
            if self.closed:
                return
            try:
                self._frame(kind, number, method, body)
            except ValueError as error:
                self.abort(str(error))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed:
            self.closed = f"the connection broke: {error}" if error else CLOSED
        self._out, self._queued = [], 0
        self._ended()
        self._wake()
        if not self.over.done():
            self.over.set_result(None)

    # Sending

    def _post(self, kind: int, number: int, method: str = "", body: bytes = b"") -> None:
        """Have a frame leave at the end of this turn of the loop. Raises `TooLarge`."""
        size = len(body)
        if size > self._longest:
            raise TooLarge(f"{size} bytes are too many for one frame between agents: {self._longest} are allowed")
        if size >= _LONG:
            self._long = True
        pieces = frame.encode(kind, number, method, body)
        self._out += pieces
        self._queued += len(pieces[0]) + len(pieces[1])
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        transport = self._transport
        # uvloop's transport, broken but not yet reported lost, does not take bytes.
        if transport is None or self.closed or transport.is_closing():
            return
        while self._out and not self._paused:
            pieces = self._next_pieces()
            self._sent = True
            if self._long:
                transport.writelines(_joined(pieces))
            else:
                transport.write(b"".join(pieces))
        if not self._out:
            self._long = False
        if self._room:
            self._wake()

    def _next_pieces(self) -> list[bytes]:
        """Take what is to be written next: everything, unless that is much."""
        out = self._out
        if self._queued <= _WRITE:
            self._out, self._queued = [], 0
            return out
        end = size = 0
        while size < _WRITE:
            size += len(out[end])
            end += 1
        self._queued -= size
        pieces = out[:end]
        del out[:end]
        return pieces

    async def room(self) -> None:
        """Return once there is room to send. Raises `Unreachable` where the connection ends first."""
        while not self.closed:
            if self.has_room():
                return
            turn = self._loop.create_future()
            self._room.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self._wake()  # it was this one's turn: somebody else's, then
                raise
        raise Unreachable(f"{self.peer}: {self.closed}")

    def _wake(self) -> None:
        """Let those go on who wait for room. They look for themselves whether it lasts for all of them."""
        while self._room and (self.closed or self.has_room()):
            turn = self._room.pop(0)
            if not turn.done():  # who waited has not given up
                turn.set_result(None)
                if not self.closed:
                    return  # it will send, and when that has left, the next has its turn

    # The connection's life

    def _say(self) -> None:
        """Give a sign of life, unless something else goes out anyway."""
        if not self._out:
            self._write(_ALIVE)

    def _write(self, data: bytes) -> None:
        """Write at once, ahead of nothing: only while no frame waits."""
        if self._transport is not None and not self.closed and not self._transport.is_closing():
            self._sent = True
            self._transport.write(data)

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        self.closed = self.closed or reason
        self._reader.stop(reason)
        if self._transport is not None:
            self._transport.abort()

    def close(self, reason: str) -> None:
        """End the connection once what waits has left, or could not leave in time."""
        self._flush()
        self.closed = self.closed or reason
        if self._transport is not None:
            self._transport.close()
            self._loop.call_later(_CLOSING, self._transport.abort)


def _joined(pieces: list[bytes]) -> list[bytes]:
    """The same bytes in fewer pieces, the long ones as they are."""
    joined: list[bytes] = []
    start = 0
    for end, piece in enumerate(pieces):
        if len(piece) >= _LONG:
            joined += (b"".join(pieces[start:end]), piece)
            start = end + 1
    if start < len(pieces):
        joined.append(b"".join(pieces[start:]))
    return joined
