"""The two ends of a connection through the proxy: `SecureEnd` speaks TLS with another proxy, `PlainEnd` bytes with the
local service or program. Joined, each writes to the other what it reads.

TLS is done here, over memory buffers, and not by the event loop's own transports, for three things that those lack:
one direction can end before the other (a `close_notify` alone), a session can be resumed, and bytes may come before
the handshake (the PROXY header). What arrives is decrypted at once, so that nothing waits in the buffers of TLS but the
piece of a record: backpressure is that the transport is paused.

What is read before the ends are joined is held, up to `HELD` bytes, after which the end is not read any more.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

RECORD = 16384  # bytes of plain text in a TLS record at most
TICKETS = 4096  # bytes at most that TLS says to itself and that wait until there is more to send
HELD = 65536  # bytes that an end holds before it is joined
WRITE_HIGH = 262144  # bytes waiting to be sent at which the other end is paused
RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, after 0 seconds


class Owner(Protocol):
    """Whom the ends belong to: a passage."""

    def made(self, end: "End") -> None:
        """An end is connected."""
        ...

    def shaken(self, end: "SecureEnd") -> None:
        """The TLS handshake is complete. The peer's certificate was verified against the roots, and not more."""
        ...

    def noted(self, end: "SecureEnd") -> None:
        """Something was read of an end that is no plain text: perhaps a session's ticket."""
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
        transport = self.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX and not transport.is_closing():
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            except OSError:
                pass  # it is gone already
        transport.abort()

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


Begin = Callable[[bytes], bytes | None]
"""Takes the bytes that come before the handshake, all that have come so far: returns what follows them, or None where
they are not complete. Raises `ValueError` for what they should not be."""

Choose = Callable[[bytes], ssl.SSLContext]
"""Takes the first bytes of TLS, and says with which context a server goes on."""


class SecureEnd(End):
    """Another proxy, or whoever connects from outside."""

    __slots__ = ("_before", "_begin", "_choose", "_incoming", "_open", "_outgoing", "_said_bye", "_touched", "tls")
    tls: ssl.SSLObject

    def __init__(
        self,
        owner: Owner,
        context: ssl.SSLContext | None = None,
        *,
        name: bytes | None = None,
        session: ssl.SSLSession | None = None,
        choose: Choose | None = None,
        begin: Begin | None = None,
    ) -> None:
        """A client's has a `context`; `name` is sent to the server, `session` resumed where it agrees. A server's has
        its context chosen by the first bytes; `begin` reads what comes before TLS.
        """
        super().__init__(owner)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._choose = choose
        if context is not None:
            self.tls = context.wrap_bio(self._incoming, self._outgoing, False, name, session)
        self._open = False
        self._said_bye = False
        self._touched = False
        self._begin = begin
        self._before = b""

    @property
    def is_untouched(self) -> bool:
        """Whether a server's end has not read a byte, nor written one."""
        return self._choose is not None and not self._touched

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._choose is None:
            self._shake()

    def connection_lost(self, error: Exception | None) -> None:
        self.finish()  # a session that ends without good-bye would not be resumed by others any more
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._begin is not None:  # what comes before TLS is not complete
            rest = self._start(data)
            if not rest:
                return
            data = rest
        incoming = self._incoming
        incoming.write(data)
        if not self._open:
            if self._choose is not None:
                self.tls = self._choose(data).wrap_bio(incoming, self._outgoing, True)
                self._choose = None
            complete = self._shake()
            if not complete or not incoming.pending:
                return
        read = self.tls.read
        other = self.other
        if other is None:
            self._drain()
            return
        try:
            piece = read(RECORD)
            if not self.received:
                self.owner.noted(self)  # a ticket may have come before it
            if not incoming.pending and piece:
                # The usual case: one record, whole.
                self.received += len(piece)
                other.send(piece)
                if self._outgoing.pending:
                    self._flush()
                return
        except ssl.SSLWantReadError:
            # Part of a record, or something that TLS says to itself, such as a ticket for the next time.
            if self._outgoing.pending:
                self._flush()
            self.owner.noted(self)
            return
        except ssl.SSLZeroReturnError:
            piece = b""
        except ssl.SSLError as error:
            self._broken(error)
            return
        self._many(piece, other)

    def _many(self, piece: bytes, other: End) -> None:
        """Read on after a first record, and write all there is at once."""
        pieces = []
        read = self.tls.read
        bye = False
        trouble: ssl.SSLError | None = None
        try:
            while piece:
                pieces.append(piece)
                piece = read(RECORD)
            bye = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            bye = True
        except ssl.SSLError as error:
            trouble = error
        if pieces:
            data = b"".join(pieces)
            self.received += len(data)
            other.send(data)
        if self._outgoing.pending:
            self._flush()
        if trouble is not None:
            self._broken(trouble)
        elif bye:
            self._bye()

    def _drain(self) -> None:
        """Read what there is while nobody takes it."""
        try:
            while piece := self.tls.read(RECORD):
                self.received += len(piece)
                self._hold(piece)
        except ssl.SSLWantReadError:
            if self._outgoing.pending > TICKETS:
                self._flush()
            return
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            self._broken(error)
            return
        self._bye()

    def eof_received(self) -> bool:
        if self._open and self.ended:
            return True
        # TLS says good-bye before TCP does; who does not may have been cut off by somebody in between.
        self.owner.failed(
            self, "the connection ended without close_notify" if self._open else "it ended in the handshake"
        )
        return True

    def send(self, data: bytes) -> None:
        transport = self.transport
        if transport is None or self._said_bye or transport.is_closing():
            return
        try:
            sent = self.tls.write(data)
            if sent < len(data):
                view = memoryview(data)
                while sent < len(data):
                    sent += self.tls.write(view[sent:])
        except ssl.SSLError as error:
            self._broken(error)
            return
        transport.write(self._outgoing.read())

    def finish(self) -> None:
        if self._said_bye or not self._open:
            return
        self._said_bye = True
        try:
            self.tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the answer to it is not there yet
        self._flush()

    def close(self) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self.finish()
            transport.close()

    def release(self) -> None:
        asked = self._holding > 0
        super().release()
        if not asked and self._outgoing.pending:
            self._flush()  # nothing may be sent for long: what TLS has to say waits for no answer

    def _start(self, data: bytes) -> bytes:
        """Read what comes before TLS. Returns what follows it, nothing where that has not come."""
        self._before += data
        self._touched = True
        assert self._begin is not None
        try:
            rest = self._begin(self._before)
        except ValueError as error:
            self.owner.failed(self, str(error))
            return b""
        if rest is None:
            return b""
        self._begin = None
        self._before = b""
        return rest

    def _shake(self) -> bool:
        """Go on with the handshake. Returns whether it is complete."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()
            self.owner.failed(self, _told(error))
            return False
        self._open = True
        # A client's last words go together with the first bytes of plain text, where these are there already. All that
        # a server has still to say by TLS 1.3 is a ticket, which goes with the service's first bytes.
        if not self.tls.server_side:
            self.owner.shaken(self)
            self._flush()
        else:
            if self.tls.version() != "TLSv1.3":
                self._flush()
            self.owner.shaken(self)
        return True

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def _bye(self) -> None:
        if not self.ended:
            self.ended = True
            self.owner.ended(self)

    def _broken(self, error: ssl.SSLError) -> None:
        self._flush()
        self.owner.failed(self, _told(error))


def _told(error: ssl.SSLError) -> str:
    """What went wrong, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is not trusted: {error.verify_message}"
    return (error.reason or str(error)).replace("_", " ").lower()


def join(one: End, two: End) -> None:
    """Have each end write to the other what it reads, beginning with what was held."""
    one.other, two.other = two, one
    one.release()
    two.release()
