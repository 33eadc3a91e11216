"""Which proposals were applied: replicated state, so that a proposal that comes twice into the log counts once.

Whoever proposes (an *origin*, one run of one server) numbers its proposals from 1 on. With each it says up to where it
waits for none any more (`low`: everything below is settled for it). So the table holds, for each origin, only what may
still come twice. It is a function of the log: all servers drop the same origins at the same entry.
"""

from collections import OrderedDict
from typing import Annotated

import msgspec

ORIGINS = 1024  # the longest silent ones are dropped beyond that; a server has one origin each time it starts
WAITING = 65536  # numbers that are kept of one origin above its `low`
PROPOSAL_BYTES = 48 * 1024 * 1024  # of one body: an entry with it must fit into a message between servers

_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class Proposal(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What somebody wants applied: `body` is for the machine."""

    origin: _Number
    number: _Number
    low: _Number
    body: Annotated[bytes, msgspec.Meta(max_length=PROPOSAL_BYTES)]


class _Origin:
    __slots__ = ("done", "low")

    def __init__(self, low: int, done: set[int]) -> None:
        self.low = low
        self.done = done


class AppliedNumbers:
    """The table. Pure."""

    def __init__(self) -> None:
        self._origins: OrderedDict[int, _Origin] = OrderedDict()

    def take(self, proposal: Proposal) -> bool:
        """Note a proposal as applied. Returns False where it was before, or is not waited for any more."""
        known = self._origins.get(proposal.origin)
        if known is None:
            known = self._origins[proposal.origin] = _Origin(0, set())
            if len(self._origins) > ORIGINS:
                self._origins.popitem(last=False)
        else:
            self._origins.move_to_end(proposal.origin)
        number = proposal.number
        if number < known.low or number in known.done:
            return False
        if proposal.low > known.low:
            self._settle(known, proposal.low)
        known.done.add(number)
        if len(known.done) > WAITING:
            self._settle(known, sorted(known.done)[len(known.done) // 2])
        return True

    def _settle(self, origin: _Origin, low: int) -> None:
        if low - origin.low <= len(origin.done):
            for number in range(origin.low, low):
                origin.done.discard(number)
        else:
            origin.done = {number for number in origin.done if number >= low}
        origin.low = low

    def has(self, origin: int, number: int) -> bool:
        """Whether a proposal was applied, or is not waited for any more."""
        known = self._origins.get(origin)
        return known is not None and (number < known.low or number in known.done)

    def encode(self) -> bytes:
        """The table as bytes; equal tables give equal bytes."""
        return msgspec.msgpack.encode([(number, one.low, sorted(one.done)) for number, one in self._origins.items()])

    def load(self, data: bytes) -> None:
        """Become a table that was encoded. Raises `ValueError`."""
        rows = msgspec.msgpack.decode(data, type=list[tuple[int, int, list[int]]])
        self._origins = OrderedDict((number, _Origin(low, set(done))) for number, low, done in rows)
