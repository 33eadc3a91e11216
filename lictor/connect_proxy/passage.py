"""A connection through the proxy, from when it is accepted until both of its ends are gone.

    made ──> (TLS, identity, intention, the far end) ──> joined ──> one direction ended ──> both ──> closed
                       │                                    │
                       └── refused, timed out               └── cut, idle, broken

`Passage` is what inbound and outbound ones have in common. It counts itself among the passages of its listener, which
is how they are drained, cut and shown. Where the TLS connection is used again, it outlives the passage: it goes back to
the listener when both directions have ended.
"""

import asyncio
import enum
from collections.abc import Callable
from typing import Any, Protocol

from lictor.connect_proxy.certificates import Peer
from lictor.connect_proxy.ends import End, PlainEnd, join
from lictor.connect_proxy.secure_end import SecureEnd

TICK = 0.25  # seconds between two looks at deadlines
LINGER = 30.0  # seconds without a byte sent after which a connection that is closing is cut


class State(enum.IntEnum):
    """Where a passage is."""

    OPENING = 0
    JOINED = 1
    CLOSING = 2
    CLOSED = 3


class Deadlines:
    """Calls back at times that are seldom reached, more cheaply than a timer each. One an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[Passage, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def set(self, passage: "Passage", seconds: float, late: Callable[[], None]) -> None:
        """Have `late` called in so many seconds, in place of what was set for the passage before."""
        self._due[passage] = (self._loop.time() + seconds, late)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK, self._look)

    def clear(self, passage: "Passage") -> None:
        """Have nothing called."""
        self._due.pop(passage, None)

    def close(self) -> None:
        """Forget everything."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._loop.time()
        late = [(passage, call) for passage, (when, call) in self._due.items() if when <= now]
        for passage, call in late:
            self._due.pop(passage, None)
            call()
        self._timer = self._loop.call_later(TICK, self._look) if self._due else None


class Host(Protocol):
    """The listener that a passage came by."""

    loop: asyncio.AbstractEventLoop
    deadlines: Deadlines
    passages: set["Passage"]

    def joined(self, passage: Any) -> None:
        """Bytes pass from now on."""
        ...

    def closed(self, passage: Any) -> None:
        """Both ends are gone."""
        ...

    def keep(self, passage: Any, end: SecureEnd) -> bool:
        """Take a TLS connection whose use is over. Returns False where it is not wanted."""
        ...


class Passage:
    """See above. Times are the event loop's."""

    __slots__ = (
        "began",
        "counted",
        "details",
        "host",
        "idle_since",
        "peer",
        "plain",
        "reason",
        "received_before",
        "remote",
        "secure",
        "state",
        "task",
        "was_joined",
    )

    def __init__(self, host: Host) -> None:
        self.host = host
        self.plain: PlainEnd | None = None
        self.secure: SecureEnd | None = None
        self.peer: Peer | None = None  # who the other end of `secure` is, once that is known
        self.state = State.OPENING
        self.began = host.loop.time()
        self.idle_since = self.began
        self.received_before = 0  # bytes of plain text that were read of `secure`, when it has gone back
        self.counted = 0  # bytes that had moved when it was last looked at
        self.was_joined = False
        self.task: asyncio.Task[None] | None = None
        self.reason = ""  # of the end, where it is not the usual one: a word for metrics
        self.details = ""  # the same for the log
        self.remote = ""  # who connected, as host:port
        host.passages.add(self)

    @property
    def moved(self) -> int:
        """Bytes of plain text that were read of both ends."""
        return self.from_plain + self.from_secure

    @property
    def from_plain(self) -> int:
        """Those of the local side."""
        return self.plain.received if self.plain is not None else 0

    @property
    def from_secure(self) -> int:
        """Those of the mesh."""
        return self.secure.received if self.secure is not None else self.received_before

    def join(self) -> None:
        """Let bytes pass."""
        assert self.plain is not None and self.secure is not None
        self.state = State.JOINED
        self.was_joined = True
        self.host.deadlines.clear(self)
        self.host.joined(self)
        join(self.plain, self.secure)
        self._settle()

    def stop(self, reason: str, details: str = "") -> None:
        """Cut it: both ends, at once."""
        if self.state >= State.CLOSING:
            return
        self._close(reason, details)
        for end in (self.plain, self.secure):
            if end is not None:
                end.abort()
        self._look_closed()

    def refuse(self, reason: str, details: str = "") -> None:
        """End it before it begins, with the good-bye of TLS where that has begun."""
        if self.state >= State.CLOSING:
            return
        self._close(reason, details)
        for end in (self.plain, self.secure):
            if end is not None:
                end.close()
        self._look_closed()

    def _close(self, reason: str, details: str) -> None:
        self.state = State.CLOSING
        self.reason = self.reason or reason
        self.details = self.details or details
        task, self.task = self.task, None
        if task is not None and task is not asyncio.current_task(self.host.loop):
            task.cancel()
        self.counted = -1
        self._linger()

    def _linger(self) -> None:
        """Wait for what was written to be sent, as long as there is less of it each time."""
        left = 0
        for end in (self.plain, self.secure):
            if end is not None and end.transport is not None:
                left += end.transport.get_write_buffer_size()
        if self.counted < 0 or left < self.counted:
            self.counted = left
            self.host.deadlines.set(self, LINGER, self._linger)
            return
        for end in (self.plain, self.secure):
            if end is not None:
                end.abort()

    # -- what the ends say -----------------------------------------------------------------------------------------

    def made(self, end: End) -> None:
        raise NotImplementedError

    def shaken(self, end: SecureEnd) -> None:
        raise NotImplementedError

    def noted(self, end: SecureEnd) -> None:
        """Something was read that is no plain text."""

    def asked(self, end: SecureEnd) -> None:
        """The peer asks for another use, which no passage is asked for."""
        self.stop("broken", "another use was asked for within one")

    def opened(self, end: SecureEnd) -> None:
        """The peer agrees to another use."""

    def ended(self, end: End) -> None:
        if self.state is State.JOINED:
            if end.other is not None and not end.other.ended:
                end.other.finish()
            self._settle()  # to close says so, too

    def failed(self, end: End, reason: str) -> None:
        if self.state is State.JOINED:
            # What came before is sent on; what would have come is not known.
            if end is self.secure and end.line is not None and end.received and self.plain is not None:
                # Frames tell an end. This is none, and the program must not take half an answer for a whole one. Who
                # does not speak in frames may end so having said all, and who refuses says nothing at all.
                self.plain.break_off()
            self.refuse("broken", reason)
        else:
            self.refuse("handshake", reason)

    def lost(self, end: End, error: Exception | None) -> None:
        end.transport = None
        other = self.secure if end is self.plain else self.plain
        if self.state < State.CLOSING:
            was_joined = self.state is State.JOINED
            self._close("" if was_joined and error is None else "lost", str(error or ""))
            if other is not None:
                if error is not None and was_joined:
                    other.abort()  # so that the peer does not take it for the end of what was said
                else:
                    other.finish()
                    other.close()
        self._look_closed()

    def _settle(self) -> None:
        plain, secure = self.plain, self.secure
        if self.state is not State.JOINED or plain is None or secure is None:
            return
        if plain.ended and secure.ended:
            secure.finish()
            self._close("", "")
            plain.close()
            received = secure.received
            if secure.line is not None and self.host.keep(self, secure):
                self.received_before = received
                self.secure = None
            else:
                secure.close()
            self._look_closed()

    def _look_closed(self) -> None:
        plain, secure = self.plain, self.secure
        if (
            self.state is State.CLOSING
            and (plain is None or plain.transport is None)
            and (secure is None or secure.transport is None)
        ):
            self.state = State.CLOSED
            self.host.deadlines.clear(self)
            self.host.passages.discard(self)
            self.host.closed(self)
            # What refers to itself would wait for the collector, and TLS is large.
            for end in (plain, secure):
                if end is not None:
                    end.other = None
            self.plain = self.secure = None
