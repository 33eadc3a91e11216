"""Proposals on their way: those of this server until it has applied them, and those that a leader puts into its log.

This server numbers what it proposes, and sends it again, under the same number, whenever the leader is another one or
has been silent for long. That a proposal is applied once is the business of `once`.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

from lictor.model.errors import LictorError
from lictor.raft.once import Proposal

PROPOSAL_OVERHEAD = 256  # bytes that a proposal counts for beside its body; an entry of 8 MB has 32,768 at most


class Busy(LictorError):
    """More is waiting than a server will hold."""

    def __init__(self) -> None:
        super().__init__("rate limit exceeded: too many writes are waiting; try again later")


class _Waiting:
    __slots__ = ("born", "done", "patience", "proposal", "sent")

    def __init__(self, proposal: Proposal, done: "asyncio.Future[Any]", born: float, patience: float) -> None:
        self.proposal = proposal
        self.done = done
        self.born = born
        self.patience = patience
        self.sent = 0.0


class Origin:
    """What this server has proposed and not applied yet."""

    def __init__(self, origin: int) -> None:
        self.origin = origin
        self._next = 1
        self._waiting: dict[int, _Waiting] = {}
        self._unsent: list[_Waiting] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, body: bytes, now: float, patience: float) -> "tuple[int, asyncio.Future[Any]]":
        """Number a proposal, which waits `patience` seconds for a leader. Returns its number, and what will hold its
        result.
        """
        number = self._next
        self._next += 1
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        low = next(iter(self._waiting), number)
        waiting = _Waiting(Proposal(self.origin, number, low, body), done, now, patience)
        self._waiting[number] = waiting
        self._unsent.append(waiting)
        return number, done

    def drop(self, number: int) -> None:
        """Nobody waits for a proposal any more."""
        self._waiting.pop(number, None)

    def applied(self, number: int, result: object) -> None:
        """A proposal of this server's was applied."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not waiting.done.done():
            waiting.done.set_result(result)

    def fail(self, numbers: Iterable[int], error: LictorError) -> None:
        """The result of these will never be known here."""
        for number in list(numbers):
            waiting = self._waiting.pop(number, None)
            if waiting is not None and not waiting.done.done():
                waiting.done.set_exception(error)

    def numbers(self) -> list[int]:
        """All that wait."""
        return list(self._waiting)

    def hopeless(self, now: float, leaderless_since: float | None, limit: float) -> list[int]:
        """Those whose patience is over without a leader, and those older than `limit` seconds."""
        found = []
        for number, waiting in self._waiting.items():
            alone = leaderless_since is not None and now - max(waiting.born, leaderless_since) >= waiting.patience
            if alone or now - waiting.born >= limit:
                found.append(number)
        return found

    def take_unsent(self, now: float) -> list[Proposal]:
        """What is to be sent now."""
        unsent, self._unsent = self._unsent, []
        found = []
        for waiting in unsent:
            if waiting.proposal.number in self._waiting:
                waiting.sent = now
                found.append(waiting.proposal)
        return found

    @property
    def has_unsent(self) -> bool:
        """Whether anything is to be sent."""
        return bool(self._unsent)

    def send_again(self, sent_before: float = float("inf")) -> None:
        """Send again, in order, all that was sent before a time."""
        self._unsent = [waiting for waiting in self._waiting.values() if waiting.sent < sent_before]


def _weight(proposal: Proposal) -> int:
    return len(proposal.body) + PROPOSAL_OVERHEAD


class LeaderQueue:
    """What a leader has taken and not put into its log yet; nothing that is under way there is taken a second time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: deque[Proposal] = deque()
        self._known: set[tuple[int, int]] = set()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(self, proposals: Iterable[Proposal]) -> None:
        """Take proposals; beyond the limit they are passed over, and will come again."""
        for proposal in proposals:
            key = (proposal.origin, proposal.number)
            if key in self._known or self._bytes > self._limit:
                continue
            self._known.add(key)
            self._queue.append(proposal)
            self._bytes += _weight(proposal)

    def take(self, limit: int) -> list[Proposal]:
        """The first ones, at most `limit` bytes of them, but one at least."""
        taken: list[Proposal] = []
        size = 0
        while self._queue and (not taken or size + _weight(self._queue[0]) <= limit):
            proposal = self._queue.popleft()
            size += _weight(proposal)
            taken.append(proposal)
        self._bytes -= size
        return taken

    def put_back(self, proposals: list[Proposal]) -> None:
        """They could not be put into the log now."""
        self._queue.extendleft(reversed(proposals))
        self._bytes += sum(_weight(proposal) for proposal in proposals)

    def applied(self, proposal: Proposal) -> None:
        """A proposal came out of the log."""
        self._known.discard((proposal.origin, proposal.number))

    def clear(self) -> None:
        """The leadership is over."""
        self._queue.clear()
        self._known.clear()
        self._bytes = 0
