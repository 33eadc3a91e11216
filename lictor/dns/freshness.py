"""Whether the own store is fresh enough for DNS: `dns_config.allow_stale` and `max_stale`, `use_cache` and
`cache_max_age`.

A stale answer is allowed by default, from a store of nearly any age. So the door asks seldom, and its finished answers
are given out without a look at the clock as long as it is certain that they may be (`surely_fresh`). Where it is not,
each question is looked at on its own (`fresh_enough`) and confirmed first if need be.
"""

import math
from typing import Protocol

from lictor.dns.settings import DnsSettings
from lictor.model.clock import lease_clock

STALE_FROM = 5.0  # seconds: answers from an older store are counted as stale


class Origin(Protocol):
    """Whose store it is."""

    @property
    def fresh_until(self) -> float:
        """The time of `lease_clock` until which the store is the newest there is."""
        ...

    @property
    def last_contact(self) -> float:
        """Seconds since the leader was last heard of; infinite for never."""
        ...

    async def confirm(self, consistent: bool) -> None:
        """Return once the store holds everything that was acknowledged before. Raises `NoLeader`."""
        ...


class Alone:
    """The origin of a store that nobody else writes to."""

    fresh_until = math.inf
    last_contact = 0.0

    async def confirm(self, consistent: bool) -> None:
        """There is nothing to confirm."""


def surely_fresh(origin: Origin, settings: DnsSettings, seconds: float) -> bool:
    """Whether every answer may be given at once for the next `seconds`, whatever happens."""
    if origin.fresh_until == math.inf:
        return True
    return origin.last_contact + seconds < settings.oldest


def fresh_enough(origin: Origin, settings: DnsSettings) -> bool:
    """Whether an answer may be given at this moment without a confirmation."""
    contact = origin.last_contact
    if contact <= settings.oldest and contact != math.inf:
        return True
    return lease_clock() < origin.fresh_until
