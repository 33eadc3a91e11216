"""Notices: messages that only tell a follower what is committed. They can wait a little, for the next entries tell it
too; under load that is every other message, and its answer.

Where another server waits for the outcome, or has just been told the commit index, a notice goes at once.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from lictor.raft.core.message import Message, MessageKind

PATIENCE = 0.002  # seconds


class Notices:
    """A leader's, by the follower they are for. `send` takes what must go now."""

    def __init__(self, send: Callable[[int, Sequence[Message]], None]) -> None:
        self._send = send
        self._held: dict[int, Message] = {}
        self._told: dict[int, int] = {}
        self._awaited = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, index: int) -> None:
        """A leadership begins: others may wait for anything up to `index`."""
        self._held.clear()
        self._told.clear()
        self._awaited = index

    def awaited(self, index: int) -> None:
        """Another server waits for the outcome of an entry."""
        self._awaited = index

    def sort(self, to: int, messages: Iterable[Message], end: int) -> list[Message]:
        """What is to go now of the messages for a server; the rest is held back. `end` is the last index."""
        held = self._held.pop(to, None)
        going: list[Message] = []
        for message in messages:
            if message.kind is MessageKind.APPEND:
                if held is not None and held.index > message.index:
                    going.append(held)  # it says more than this one, which asks for something
                held = None
                if not message.entries:
                    held = message
                    continue
                self._told[to] = message.commit
            going.append(message)
        if held is None:
            return going
        if held.index != end or self._told.get(to, 0) < self._awaited:
            self._told[to] = held.commit
            going.append(held)
            return going
        self._held[to] = held
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._expire)
        return going

    def _expire(self) -> None:
        self._timer = None
        self.go()

    def go(self) -> None:
        """Send all that is held back."""
        held, self._held = self._held, {}
        for to, message in held.items():
            self._told[to] = message.commit
            self._send(to, (message,))

    def drop(self) -> None:
        """The leadership is over, or the server stops."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
