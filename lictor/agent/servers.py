"""The servers that a client agent knows of, and which of them it asks. Pure: the time is handed in.

An agent stays with one server, so that its requests see that server's state in order, and moves on when it fails. Now
and then it takes another one, so that the agents of a datacenter stay spread over its servers, also over those that
have come later.
"""

import random
from collections.abc import Iterable

REBALANCE = 120.0  # seconds at least between two changes without need
REBALANCE_RATE = 64.0  # changes a second that all agents together make at most
FORGIVEN = 30.0  # seconds after which a failure counts no more


def rebalance_after(members: int, servers: int, chance: random.Random) -> float:
    """How long to stay with one server, in seconds: longer where there are more agents to a server."""
    seconds = max(REBALANCE, members / (REBALANCE_RATE * max(1, servers)))
    return seconds * chance.uniform(1.0, 1.5)


class Servers:
    """The servers' addresses, host:port of their `ports.server`."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._order: list[str] = []
        self._failed: dict[str, float] = {}
        self.current = ""

    def __len__(self) -> int:
        return len(self._order)

    @property
    def addresses(self) -> list[str]:
        """All of them, in the order in which they are asked."""
        return list(self._order)

    def learn(self, addresses: Iterable[str]) -> bool:
        """These are the servers from now on. Returns whether any is new. New ones come in at random places."""
        wanted = dict.fromkeys(addresses)
        self._order = [address for address in self._order if address in wanted]
        new = [address for address in wanted if address not in self._order]
        for address in new:
            self._order.insert(self._chance.randint(0, len(self._order)), address)
        self._failed = {address: at for address, at in self._failed.items() if address in wanted}
        if self.current not in wanted:
            self.current = ""
        return bool(new)

    def pick(self, now: float) -> str:
        """Whom to ask: the present server or, where it failed, the one that has been well, or failed, for longest;
        empty where none is known.
        """
        if not self._order:
            return ""
        if not self.current:
            well = [a for a in self._order if now - self._failed.get(a, -FORGIVEN) >= FORGIVEN]
            self.current = well[0] if well else min(self._order, key=lambda a: self._failed[a])
        return self.current

    def failed(self, address: str, now: float) -> None:
        """A server did not answer: another one is asked from now on, if there is one."""
        if address in self._order:
            self._failed[address] = now
            self._order.remove(address)
            self._order.append(address)
        if address == self.current:
            self.current = ""

    def rebalance(self) -> None:
        """Take another one, any of them."""
        self._chance.shuffle(self._order)
        self.current = ""
