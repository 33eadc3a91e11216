"""The two ends of a connection through the proxy: `SecureEnd` (secure_end.py) speaks TLS with another proxy, `PlainEnd`
bytes with the local service or program. Joined, each writes to the other what it reads.

What is read before the ends are joined is held, up to `HELD` bytes, after which the end is not read any more.
"""

import asyncio
import socket
from typing import Protocol, cast

HELD = 65536  # bytes that an end holds before it is joined
WRITE_HIGH = 262144  # bytes waiting to be sent at which the other end is paused
RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, after 0 seconds


class Owner(Protocol):
    """Whom the ends belong to: a passage."""

    def made(self, end: "End") -> None:
        """An end is connected."""
        ...

    def ended(self, end: "End") -> None:
        """An end will send no more; it may still be written to."""
        ...

    def failed(self, end: "End", reason: str) -> None:
        """An end broke a protocol. Nothing is read of it any more."""
        ...

    def lost(self, end: "End", error: Exception | None) -> None:
        """An end's connection is gone."""
        ...


class End(asyncio.Protocol):
    """What both kinds have in common. `received` counts the bytes of plain text read of it; `full` says that it takes
    no more for now.
    """

    __slots__ = ("_held", "_holding", "ended", "full", "other", "owner", "received", "transport")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.transport: asyncio.Transport | None = None
        self.other: End | None = None
        self.received = 0
        self.ended = False
        self.full = False
        self._held: list[bytes] = []
        self._holding = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = made = cast(asyncio.Transport, transport)
        made.set_write_buffer_limits(WRITE_HIGH)
        self.owner.made(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.owner.lost(self, error)

    def pause_writing(self) -> None:
        self.full = True
        if self.other is not None:
            self.other.hold_back()

    def resume_writing(self) -> None:
        self.full = False
        if self.other is not None:
            self.other.go_on()

    def hold_back(self) -> None:
        """Read no more for now."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Write bytes of plain text."""
        raise NotImplementedError

    def finish(self) -> None:
        """Say that no more will be written; reading goes on."""
        raise NotImplementedError

    def close(self) -> None:
        """Close when all that was written is sent."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close now, in a way that the peer does not take for an end."""
        if self.transport is not None:
            self._close_with_reset(self.transport)
            self.transport.abort()

    def break_off(self) -> None:
        """Close when all that was written is handed to the kernel, in a way that the peer does not take for an end."""
        if self.transport is not None:
            self._close_with_reset(self.transport)
            self.transport.close()

    def _close_with_reset(self, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX and not transport.is_closing():
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            except OSError:
                pass  # it is gone already

    def release(self) -> None:
        """Give what was held to the other end, which is there now."""
        held, self._held = self._held, []
        was_full = self._holding > HELD
        self._holding = 0
        other = self.other
        if other is not None:
            for data in held:
                other.send(data)
            if other.full:
                self.hold_back()
            elif was_full:
                self.go_on()
            if self.ended:
                other.finish()

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._holding += len(data)
        if self._holding > HELD:
            self.hold_back()


class PlainEnd(End):
    """The local service, or the local program that uses an upstream."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        other = self.other
        if other is not None:
            other.send(data)
        else:
            self._hold(data)

    def eof_received(self) -> bool:
        self.ended = True
        self.owner.ended(self)
        return True

    def send(self, data: bytes) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def finish(self) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write_eof()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def join(one: End, two: End) -> None:
    """Have each end write to the other what it reads, beginning with what was held."""
    one.other, two.other = two, one
    one.release()
    two.release()
