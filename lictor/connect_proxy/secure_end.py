"""The end of a connection that speaks TLS with another proxy, or with whoever connects from outside.

TLS is done here, over memory buffers, and not by the event loop's own transports, for three things that those lack:
one direction can end before the other (a `close_notify` alone), a session can be resumed, and bytes may come before
the handshake (the PROXY header). What arrives is decrypted at once, so that nothing waits in the buffers of TLS but the
piece of a record: backpressure is that the transport is paused.

With another built-in proxy the connection is used again (framing.py): `line` is there, what is read and written are
frames, and the end of a direction is one of them. The end then has one owner after the other.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import NamedTuple, Protocol

from lictor.connect_proxy.certificates import Identity, Peer
from lictor.connect_proxy.ends import End, Owner
from lictor.connect_proxy.framing import HEADER, MOST, PROTOCOL, Garbage, Kind, Line, Refusal, State, header

RECORD = 16384  # bytes of plain text in a TLS record at most
FRAME = RECORD - HEADER  # bytes of data that fit into a record with their header
_GOOD_BYE = "it said good-bye"
TICKETS = 4096  # bytes at most that TLS says to itself and that wait until there is more to send


class SecureOwner(Owner, Protocol):
    """Whom the end belongs to: a passage, or, while nobody uses it, whoever keeps it."""

    def shaken(self, end: "SecureEnd") -> None:
        """The TLS handshake is complete. The peer's certificate was verified against the roots, and not more."""
        ...

    def noted(self, end: "SecureEnd") -> None:
        """Something was read of an end that is no plain text: perhaps a session's ticket."""
        ...

    def asked(self, end: "SecureEnd") -> None:
        """The peer asks for another use."""
        ...

    def opened(self, end: "SecureEnd") -> None:
        """The peer agrees to another use."""
        ...


class Facts(NamedTuple):
    """What is known of the peer of a connection that may be used again; `born` is the event loop's time."""

    peer: Peer
    identity: Identity
    born: float
    remote: str = ""


Begin = Callable[[bytes], bytes | None]
"""Takes the bytes that come before the handshake, all that have come so far: returns what follows them, or None where
they are not complete. Raises `ValueError` for what they should not be."""

Choose = Callable[[bytes], ssl.SSLContext]
"""Takes the first bytes of TLS, and says with which context a server goes on."""


class SecureEnd(End):
    """Another proxy, or whoever connects from outside. `line` and `facts` are there where it may be used again."""

    __slots__ = (
        "_before",
        "_begin",
        "_choose",
        "_incoming",
        "_open",
        "_outgoing",
        "_said_bye",
        "_touched",
        "facts",
        "line",
        "tls",
    )
    owner: SecureOwner
    tls: ssl.SSLObject

    def __init__(
        self,
        owner: SecureOwner,
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
        self.line: Line | None = None
        self.facts: Facts | None = None

    @property
    def is_untouched(self) -> bool:
        """Whether a server's end has not read a byte, nor written one."""
        return self._choose is not None and not self._touched

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._choose is None:
            self._shake()

    def connection_lost(self, error: Exception | None) -> None:
        self._say_bye()  # a session that ends without good-bye would not be resumed by others any more
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
        if self.line is not None:
            self._hear(self.line)
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

    # -- a connection that is used again -----------------------------------------------------------------------------

    def _hear(self, line: Line) -> None:
        """Read frames."""
        read = self.tls.read
        pieces: list[bytes] = []
        trouble = ""
        try:
            piece = read(RECORD)
            if piece and self.received and self.other is not None and not self._incoming.pending:
                data = line.data_alone(piece)
                if data:
                    # The usual case: one record that is one frame.
                    self.received += len(data)
                    self.other.send(data)
                    if self._outgoing.pending:
                        self._flush()
                    return
                pieces.append(piece)
            else:
                while piece:
                    pieces.append(piece)
                    piece = read(RECORD)
                trouble = _GOOD_BYE
        except ssl.SSLWantReadError:
            if not pieces and line.uses == 1:
                self.owner.noted(self)
        except ssl.SSLZeroReturnError:
            trouble = _GOOD_BYE
        except ssl.SSLError as error:
            trouble = _told(error)
        if pieces:
            try:
                self._understand(line, pieces)
            except Garbage as error:
                trouble = str(error)
            if self.transport is None or self.transport.is_closing():
                return
        if self._outgoing.pending and (self.other is not None or self._outgoing.pending > TICKETS):
            self._flush()
        if trouble:
            in_use = trouble is _GOOD_BYE and line.state is not State.IDLE
            self.owner.failed(self, "the connection was cut off" if in_use else trouble)

    def _understand(self, line: Line, pieces: list[bytes]) -> None:
        """Do what several records say. Raises `Garbage`."""
        found: list[bytes] = []
        for piece in pieces:
            data = line.data_alone(piece)
            if not data:
                break
            found.append(data)
        rest = pieces[len(found) :]
        for event in line.hear(b"".join(rest)) if rest else ():
            if isinstance(event, bytes):
                found.append(event)
                continue
            self._pass_on(found)
            found = []
            if isinstance(event, Refusal):
                self.owner.failed(self, event.reason)
            elif event is Kind.END:
                self._bye()
            elif event is Kind.OPEN:
                self.owner.asked(self)
            else:
                self.owner.opened(self)
            if self.transport is None or self.transport.is_closing():
                return
        self._pass_on(found)

    def _pass_on(self, pieces: list[bytes]) -> None:
        if not pieces:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        is_first = not self.received
        self.received += len(data)
        if is_first and self.line is not None and self.line.uses == 1:
            self.owner.noted(self)
        if self.other is not None:
            self.other.send(data)
        else:
            self._hold(data)

    def ask(self) -> None:
        """Ask the peer for another use."""
        assert self.line is not None
        self._say(self.line.ask())

    def grant(self) -> None:
        """Agree to the use that the peer asks for."""
        assert self.line is not None
        self._say(self.line.grant())

    def deny(self, reason: str) -> None:
        """Refuse the use that the peer asks for."""
        assert self.line is not None
        self._say(self.line.refuse(reason))

    def let_go(self, owner: SecureOwner) -> None:
        """Belong to another, the use being over."""
        other, self.other = self.other, None
        self.owner = owner
        self.received = 0
        self.ended = False
        if other is not None:
            other.other = None  # it may still have bytes to send, and what comes of that is not for the next use
            if other.full:
                self.go_on()

    def _say(self, frame: bytes) -> None:
        if not frame or self._said_bye or self.transport is None or self.transport.is_closing():
            return
        try:
            self.tls.write(frame)
        except ssl.SSLError as error:
            self._broken(error)
            return
        self._flush()

    # -- what is written ---------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        transport = self.transport
        if transport is None or self._said_bye or transport.is_closing():
            return
        try:
            if self.line is None:
                self._write(data, 0)
            elif len(data) <= FRAME:
                self.tls.write(header(len(data)) + data)
            else:
                for at in range(0, len(data), MOST):
                    part = data[at : at + MOST] if len(data) > MOST else data
                    self.tls.write(header(len(part)) + part[:FRAME])
                    self._write(part, FRAME)
        except ssl.SSLError as error:
            self._broken(error)
            return
        transport.write(self._outgoing.read())

    def _write(self, data: bytes, sent: int) -> None:
        """Have TLS take what follows the bytes that it has had."""
        if not sent:
            sent = self.tls.write(data)
        if sent < len(data):
            view = memoryview(data)
            while sent < len(data):
                sent += self.tls.write(view[sent:])

    def finish(self) -> None:
        if self.line is not None:
            self._say(self.line.end())
        else:
            self._say_bye()

    def _say_bye(self) -> None:
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
            self._say_bye()
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
        if self.tls.selected_alpn_protocol() == PROTOCOL:
            self.line = Line(is_client=not self.tls.server_side)
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
