"""Connections between two built-in proxies while no program uses them: kept for the next one, within bounds.

A `Shelf` has those to one endpoint, or those that came by one inbound listener; a process has one `Idle`, which bounds
them all and closes what has been there for too long. The last one kept is the first one taken, so that no more are kept
than are used. Nothing that the peer sends keeps a connection here, save for a whole request for another use.
"""

import asyncio
from collections.abc import Callable

from lictor.connect_proxy.ends import End
from lictor.connect_proxy.secure_end import SecureEnd

IN_ALL = 1024  # connections of a process; one takes about 30 KB
LINGER = 10.0  # seconds in which the last words of one that is closed are to be sent
LOOK = 1.0  # seconds between two looks for those that have been there for too long


class Shelf:
    """See above: the owner of its connections. `asked` is called for one whose peer asks for another use, which is off
    the shelf by then. Without it none may ask.
    """

    def __init__(
        self, idle: "Idle", most: int, seconds: float, asked: Callable[[SecureEnd], None] | None = None
    ) -> None:
        self.most = most
        self.seconds = seconds
        self.ends: dict[SecureEnd, None] = {}
        self._idle = idle
        self._asked = asked

    def keep(self, end: SecureEnd) -> None:
        """Keep a connection whose use is over. Where there are too many, the oldest is closed."""
        if self.most <= 0:
            end.let_go(self)
            end.close()
            return
        if len(self.ends) >= self.most:
            self.close(next(iter(self.ends)))
        end.let_go(self)
        self.ends[end] = None
        self._idle.add(end, self)

    def take(self) -> SecureEnd | None:
        """The connection that was kept last; it is for the caller to be its owner."""
        while self.ends:
            end, _ = self.ends.popitem()
            self._idle.remove(end)
            if end.transport is not None and not end.transport.is_closing():
                return end
        return None

    def close(self, end: SecureEnd) -> None:
        """Close one, with a good-bye."""
        self._forget(end)
        end.close()
        if end.transport is not None and end.transport.get_write_buffer_size():
            self._idle.linger(end)

    def clear(self) -> None:
        """Close all."""
        for end in list(self.ends):
            self.close(end)

    def _forget(self, end: End) -> bool:
        if not isinstance(end, SecureEnd) or end not in self.ends:
            return False
        del self.ends[end]
        self._idle.remove(end)
        return True

    # -- what the ends say -------------------------------------------------------------------------------------------

    def asked(self, end: SecureEnd) -> None:
        """The peer asks for another use."""
        if self._forget(end) and self._asked is not None:
            self._asked(end)
        else:
            end.abort()

    def made(self, end: End) -> None:
        """Nothing is made here."""

    def shaken(self, end: SecureEnd) -> None:
        """Nor shaken."""

    def noted(self, end: SecureEnd) -> None:
        """What TLS says to itself is of no interest any more."""

    def opened(self, end: SecureEnd) -> None:
        """Nothing was asked for."""
        self.close(end)

    def ended(self, end: End) -> None:
        """There is no direction that could end."""

    def failed(self, end: End, reason: str) -> None:
        """The peer closes it, or sends what means nothing."""
        if isinstance(end, SecureEnd):
            self.close(end)

    def lost(self, end: End, error: Exception | None) -> None:
        """It is gone."""
        end.transport = None
        if isinstance(end, SecureEnd):
            self.ends.pop(end, None)
            self._idle.remove(end)


class Idle:
    """See above."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int = IN_ALL) -> None:
        self._loop = loop
        self._most = most
        self._since: dict[SecureEnd, tuple[Shelf | None, float]] = {}  # the oldest first; None: it is closing
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since)

    def add(self, end: SecureEnd, shelf: Shelf) -> None:
        """Note that a shelf keeps another one."""
        if len(self._since) >= self._most:
            oldest = next(iter(self._since))
            self._end(oldest, self._since[oldest][0])
        self._note(end, shelf, shelf.seconds)

    def linger(self, end: SecureEnd) -> None:
        """Cut a connection that is closing if its last words cannot be sent for long."""
        self._note(end, None, LINGER)

    def remove(self, end: SecureEnd) -> None:
        """Note that a shelf has one no more."""
        self._since.pop(end, None)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, end: SecureEnd, shelf: Shelf | None, seconds: float) -> None:
        self._since[end] = (shelf, self._loop.time() + seconds)
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK, self._look)

    def _end(self, end: SecureEnd, shelf: Shelf | None) -> None:
        if shelf is not None:
            shelf.close(end)
        else:
            del self._since[end]
            end.abort()

    def _look(self) -> None:
        now = self._loop.time()
        late = [(end, shelf) for end, (shelf, until) in self._since.items() if until <= now]
        for end, shelf in late:
            self._end(end, shelf)
        self._timer = self._loop.call_later(LOOK, self._look) if self._since else None
