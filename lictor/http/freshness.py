"""How fresh a read is, as its caller wishes: what must be confirmed before the own store may answer, and what the
answer then says of it.

Behind every answer from the store there is a *gate*, by its caller's wish:

- ANY: it may be given at any time. So are all where the own store is the newest for ever, and the agent's own state.
- LEASE, the default: now, while the own store is known to be the newest there is; otherwise once that is confirmed.
- QUORUM, `consistent`: only once a majority has confirmed it.
- AGE, for `stale` and for what a cache may answer: now, unless the leader was last heard of longer ago than the caller
  allows, or never. Such a one is a default read then.

What was confirmed is what the leader has: its age is 0, and the leader is known. Of the others the age is told as it is
when they are written.
"""

import asyncio
import math
from typing import Protocol

import msgspec

from lictor.agent.agent import MAX_CONTACT, Agent
from lictor.agent.confirmations import Confirmations
from lictor.model.clock import lease_clock

ANY, LEASE, QUORUM, AGE = range(4)
LEADER_MODE, CONSISTENT_MODE, STALE_MODE = "leader", "consistent", "stale"
CONFIRMED = (0, True)  # milliseconds, and whether there is a leader
_LINES = b"\r\nX-Consul-Knownleader: %b\r\nX-Consul-Lastcontact: %d"


class Consistency(msgspec.Struct, frozen=True):
    """A caller's wish: `leader` (the default), `stale` or `consistent`. `max_stale` bounds the age of a stale read, in
    seconds; `stated` is whether the caller said any of it; `cached` whether a cache may answer. Where no server answers
    then, what is here will do if it is not older than `stale_if_error` seconds.
    """

    mode: str = LEADER_MODE
    max_stale: float = math.inf
    stated: bool = False
    cached: bool = False
    stale_if_error: float = -1.0

    @property
    def aged(self) -> bool:
        """Whether the answer may be older than what the leader has."""
        return self.cached or self.mode == STALE_MODE


DEFAULT = Consistency()
STALE = Consistency(STALE_MODE, stated=True)


class Origin(Protocol):
    """Who knows how fresh the store is: consensus, or an agent without one."""

    @property
    def fresh_until(self) -> float:
        """The time of `lease_clock` until which the store is the newest there is."""
        ...


class Freshness:
    """What an agent knows of its store's freshness. `origin` is there for those who look at it with every request."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.origin: Origin = agent.server.consensus if agent.server is not None else agent
        self.confirmations = Confirmations(agent.confirm)
        # The age as it was at one time of the loop, at which many answers may be written.
        self._at = -1.0
        self._contact = math.inf
        self._lines = b""

    @property
    def always(self) -> bool:
        """Whether the own store is the newest for ever, so that there is nothing to confirm."""
        return self.origin.fresh_until == math.inf

    def gate(self, consistency: Consistency) -> int:
        """The gate of a read."""
        if self.always:
            return ANY
        if consistency.aged:
            return AGE
        return QUORUM if consistency.mode == CONSISTENT_MODE else LEASE

    def open(self, gate: int, max_stale: float) -> bool:
        """Whether an answer may be given without a confirmation."""
        if gate == AGE:
            self._look()
            return self._contact <= max_stale and self._contact != math.inf
        if gate == LEASE:
            return lease_clock() < self.origin.fresh_until
        return gate == ANY

    async def admit(self, consistency: Consistency) -> Consistency:
        """Return once a read is as fresh as is wished; what it then is. Raises `NoLeader`."""
        gate = self.gate(consistency)
        if self.open(gate, consistency.max_stale):
            return consistency
        await self._agent.confirm(gate == QUORUM)
        return consistency if gate != AGE else DEFAULT

    def contact(self, consistency: Consistency) -> tuple[int, bool]:
        """Milliseconds since the leader was last heard of, and whether there is one, as a read tells it."""
        return self._agent.leader_contact() if consistency.aged else CONFIRMED

    def lines(self) -> bytes:
        """The header lines that tell the age as it is now, with the end of the line before them."""
        self._look()
        return self._lines

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if now != self._at:
            self._at = now
            contact, known = self._agent.leader_contact()
            self._contact = contact / 1000 if contact < MAX_CONTACT else math.inf
            self._lines = _LINES % (b"true" if known else b"false", contact)
            if self._agent.client is not None and contact < MAX_CONTACT:
                self._lines += b"\r\nAge: %d" % (contact // 1000)
