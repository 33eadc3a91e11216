"""Which identities an agent holds, and when each is to be signed: the pure part of `leaves`.

Every service that was asked for has a `Life`. It waits until it may be signed, is being signed, and is then held until
a random point between 60 % and 90 % of its leaf's life. What makes it be signed again is that point, or another active
root: then at a random moment of the next half minute, so that the leaves of a datacenter do not come all at once. A
leaf is handed out for as long as there is no younger one.

Two clocks are handed in. A certificate's life is told by the wall clock, which may be set; how long this agent has held
it is told by one that only goes forward. Whichever is first decides, and nothing is waited for longer than `LOOK`, so
that a clock that was set is noticed.

At most `AT_ONCE` are being signed. Where the servers refuse because there is too much to sign, or do not answer, all
wait together, for longer each time and with chance, and then one tries: what one is refused for, so are the others.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from lictor.model.errors import LictorError

RENEW_FROM, RENEW_TO = 0.6, 0.9  # of a leaf's life, between which it is renewed
ROOT_SPREAD = 30.0  # seconds over which leaves are renewed after a change of the active root, by default
START_SPREAD = 30.0  # seconds over which those are renewed that were due when the agent started
AT_ONCE = 4  # leaves being signed at a time
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds after a failure, doubled with each that follows
FORGET = 72 * 3600.0  # seconds for which nobody has asked
EVICTABLE = 600.0  # seconds for which nobody has asked, where there is no room for another service
MOST = 4096  # services
EXPIRED = "expired"  # the state of a life whose leaf has ended
LOOK = 30.0  # seconds at most between two looks at all

Chance = Callable[[], float]
"""A random number from 0 to 1."""


class TooManyLeaves(LictorError):
    """The agent holds as many identities as it may."""

    status = 429

    def __init__(self) -> None:
        super().__init__(
            f"this agent holds {MOST} identities, and each was asked for within the last {EVICTABLE / 60:g} minutes: "
            "ask another agent, or again later"
        )


class Now(NamedTuple):
    """The time, in seconds: `wall` since 1970, `steady` from any beginning and never back."""

    wall: float
    steady: float


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """A service's identity: its certificate with the intermediates that lead to the root, and its key, PEM both.

    `valid_after` and `valid_before` are in seconds since 1970. `authority` is the id of the key that signed it, `root`
    that of the root which was active then.
    """

    service: str
    uri: str
    serial: str
    certificate: str
    key: str
    valid_after: float
    valid_before: float
    authority: str
    root: str
    create_index: int
    modify_index: int

    def __repr__(self) -> str:
        return f"Leaf({self.uri}, serial {self.serial})"

    def valid(self, wall: float) -> bool:
        """Whether it has not ended."""
        return wall < self.valid_before


def utc_text(seconds: float) -> str:
    """A time since 1970 in RFC 3339's form, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Active(NamedTuple):
    """The active root: its id, and that of the key that signs leaves under it; and the trust domain."""

    root: str
    signing_key: str
    domain: str


class Life:
    """One service's. `leaf` is what may be handed out; None before the first was signed."""

    __slots__ = (
        "asked",
        "began",
        "failures",
        "followers",
        "leaf",
        "queued",
        "renew_steady",
        "renew_wall",
        "retry_at",
        "service",
        "signing",
    )

    def __init__(self, service: str, steady: float) -> None:
        self.service = service
        self.leaf: Leaf | None = None
        self.asked = steady
        self.followers = 0
        self.signing = False
        self.began: Active | None = None  # the active root as it was known when signing began
        self.queued = False
        self.failures = 0
        self.renew_wall = self.renew_steady = -math.inf
        self.retry_at = -math.inf

    def due_in(self, now: Now) -> float:
        """Seconds until it is to be signed, as the clocks go now."""
        if self.leaf is None:
            wanted = 0.0
        else:
            wanted = min(self.renew_wall - now.wall, self.renew_steady - now.steady)
        return max(wanted, self.retry_at - now.steady)

    def state(self, now: Now) -> str:
        """`new`, `signing`, `good`, `renewing`, `overdue` (still good, and could not be
        renewed when it should have been), `expired`.
        """
        if self.leaf is None:
            return "signing" if self.signing else "new"
        if not self.leaf.valid(now.wall):
            return EXPIRED
        if self.signing:
            return "renewing"
        return "overdue" if self.failures else "good"


class Book:
    """All lives of an agent. Nothing here waits: whoever drives it asks `due` for what to have signed, says what came
    of each by `signed`, `refused` or `unavailable`, and looks again after `wait` seconds, or once it has said more.
    `root_spread`: seconds over which leaves are renewed after a change of the active root.
    """

    def __init__(self, chance: Chance, active: Active | None = None, root_spread: float = ROOT_SPREAD) -> None:
        self._chance = chance
        self._root_spread = root_spread
        self._lives: dict[str, Life] = {}
        self._active = active
        self._urgent: deque[Life] = deque()  # without a leaf that is good, in the order in which they were asked for
        self._renewals: deque[Life] = deque()
        self._dropped: list[str] = []
        self._signing = 0
        self._index = 0  # the highest that a leaf has
        self._look_at = -math.inf  # when lives may have become due
        self._pause_until = -math.inf
        self._busy = False  # whether the last failure was that there is too much to sign
        self._failures = 0  # one after the other, that were not about a single service

    # -- what there is ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._lives)

    def __iter__(self) -> Iterator[Life]:
        return iter(self._lives.values())

    def get(self, service: str) -> Life | None:
        """A service's life, without asking for it."""
        return self._lives.get(service)

    @property
    def failing(self) -> bool:
        """Whether nothing is signed at present, for a reason that is not one service's."""
        return self._failures > 0

    # -- what happens -------------------------------------------------------------------------------------------------

    def ask(self, service: str, now: Now) -> Life:
        """Somebody wants a service's leaf: it is kept from now on. Raises `TooManyLeaves`."""
        life = self._lives.get(service)
        if life is None:
            if len(self._lives) >= MOST:
                self._make_room(now)
            life = self._lives[service] = Life(service, now.steady)
            self._queue(life, now)
        life.asked = now.steady
        if life.leaf is None or not life.leaf.valid(now.wall):
            if not self._busy:
                self._hurry(life, now)
            self._consider(life, now)  # the clock may have been set
        return life

    def load(self, leaf: Leaf, now: Now) -> None:
        """Take over a leaf that an earlier run has kept. One that should have been renewed meanwhile is, soon."""
        if leaf.service in self._lives or len(self._lives) >= MOST:
            return
        life = self._lives[leaf.service] = Life(leaf.service, now.steady)
        self._hold(life, leaf, now)
        if self._foreign(leaf):
            self._renew_within(life, self._root_spread, now)
        if life.due_in(now) <= 0 and leaf.valid(now.wall):
            life.renew_wall = math.inf
            self._renew_within(life, START_SPREAD, now)
        self._consider(life, now)

    def due(self, now: Now) -> list[str]:
        """The services to have signed now. Each must be told of afterwards."""
        if now.steady >= self._look_at:
            self._look(now)
        if now.steady < self._pause_until:
            return []
        free = (1 if self._failures else AT_ONCE) - self._signing
        found: list[str] = []
        while free > 0 and (life := self._next()) is not None:
            life.queued, life.signing, life.began = False, True, self._active
            found.append(life.service)
            free -= 1
        self._signing += len(found)
        return found

    def wait(self, now: Now) -> float:
        """Seconds after which `due` is to be asked again, if nothing happens before."""
        look = max(0.0, self._look_at - now.steady)
        if (self._urgent or self._renewals) and self._signing < (1 if self._failures else AT_ONCE):
            return min(look, max(0.0, self._pause_until - now.steady))
        return look

    def signed(self, leaf: Leaf, now: Now) -> Leaf:
        """A leaf was signed. Returns it as it is held: with an index above that of every other one."""
        self._failures = 0
        self._signing -= 1
        life = self._lives.get(leaf.service)
        if life is None:
            return leaf
        index = self._index = max(leaf.modify_index, self._index + 1)
        leaf = msgspec.structs.replace(leaf, create_index=index, modify_index=index)
        life.signing = False
        life.failures, life.retry_at = 0, -math.inf
        self._hold(life, leaf, now)
        if life.due_in(now) <= 0:  # the servers' clocks are far behind this one: the next leaf would be no better
            life.retry_at = now.steady + LONGEST_PAUSE
        if life.began != self._active and self._foreign(leaf):
            self._renew_within(life, self._root_spread, now)
        self._consider(life, now)
        return leaf

    def refused(self, service: str, now: Now) -> None:
        """A service was refused, for what it is: it tries again later, and the others go on."""
        self._failures = 0
        life = self._lives.get(service)
        self._failed(service, now.steady + self._pause(life.failures + 1 if life is not None else 1), now)

    def unavailable(self, service: str, now: Now, *, busy: bool = False) -> None:
        """Nobody signs at present, or (`busy`) there is too much to sign: all wait, this one no longer than others."""
        self._busy = busy
        if now.steady >= self._pause_until:  # else it had begun with another, for which all wait already
            self._failures += 1
            self._pause_until = now.steady + self._pause(self._failures)
        self._failed(service, self._pause_until, now)

    def resume(self, now: Now) -> None:
        """The servers may be back: whoever waits for them may try."""
        for life in self._lives.values():
            if life.retry_at <= self._pause_until:
                life.retry_at = -math.inf
        self._busy = False
        self._pause_until = self._look_at = now.steady

    def root_changed(self, active: Active, now: Now) -> None:
        """This is the active root. Leaves that another one stands for are renewed, spread."""
        if active == self._active:
            return
        self._active = active
        for life in self._lives.values():
            if life.leaf is not None and self._foreign(life.leaf):
                self._renew_within(life, self._root_spread, now)
                self._consider(life, now)

    def renounce(self, service: str, now: Now) -> None:
        """A service's leaf is not to be used any more: its key is forgotten. Whoever waits for it gets another one."""
        life = self._lives.get(service)
        if life is None:
            return
        if not life.followers:
            self._drop(life)
            return
        life.leaf = None
        life.renew_wall = life.renew_steady = -math.inf
        self._consider(life, now)

    def forget(self, now: Now) -> None:
        """Drop the lives that nobody has asked for in a long time."""
        for life in [life for life in self._lives.values() if self._idle(life, now) >= FORGET]:
            self._drop(life)

    def dropped(self) -> list[str]:
        """The services whose lives were dropped since this was last asked."""
        found = [service for service in self._dropped if service not in self._lives]
        self._dropped.clear()
        return found

    # -- inside -------------------------------------------------------------------------------------------------------

    def _hold(self, life: Life, leaf: Leaf, now: Now) -> None:
        life.leaf = leaf
        self._index = max(self._index, leaf.modify_index)
        span = max(0.0, leaf.valid_before - leaf.valid_after)
        part = RENEW_FROM + (RENEW_TO - RENEW_FROM) * self._chance()
        life.renew_wall = leaf.valid_after + part * span
        life.renew_steady = now.steady + part * span

    def _foreign(self, leaf: Leaf) -> bool:
        """Whether another root than the active one stands for a leaf."""
        active = self._active
        if active is None:
            return False
        if not leaf.uri.lower().startswith(f"spiffe://{active.domain}/"):
            return True
        return leaf.authority != active.signing_key and leaf.root != active.root

    def _renew_within(self, life: Life, spread: float, now: Now) -> None:
        """Renew at a random moment of the next `spread` seconds, and before half of what is left of it."""
        left = max(0.0, life.leaf.valid_before - now.wall) if life.leaf is not None else 0.0
        life.renew_steady = min(life.renew_steady, now.steady + self._chance() * min(spread, left / 2))

    def _consider(self, life: Life, now: Now) -> None:
        """A life's time may have changed: look at all when the first is due."""
        if not (life.signing or life.queued):
            self._look_at = min(self._look_at, now.steady + min(max(0.0, life.due_in(now)), LOOK))

    def _look(self, now: Now) -> None:
        """Queue what is due, and find when the next will be."""
        wait = LOOK
        for life in self._lives.values():
            if life.signing or life.queued:
                continue
            left = life.due_in(now)
            if left <= 0:
                self._queue(life, now)
            else:
                wait = min(wait, left)
        self._look_at = now.steady + wait

    def _queue(self, life: Life, now: Now) -> None:
        life.queued = True
        good = life.leaf is not None and life.leaf.valid(now.wall)
        (self._renewals if good else self._urgent).append(life)

    def _next(self) -> Life | None:
        for queue in (self._urgent, self._renewals):
            while queue:
                life = queue.popleft()
                if self._lives.get(life.service) is life:
                    return life
        return None

    def _failed(self, service: str, retry_at: float, now: Now) -> None:
        self._signing -= 1
        life = self._lives.get(service)
        if life is not None:
            life.signing = False
            life.failures += 1
            life.retry_at = retry_at
            self._consider(life, now)

    def _pause(self, failures: int) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30))
        return longest * (0.5 + 0.5 * self._chance())

    def _idle(self, life: Life, now: Now) -> float:
        return 0.0 if life.followers or life.signing else now.steady - life.asked

    def _hurry(self, life: Life, now: Now) -> None:
        """Somebody waits for a leaf while nobody signs: see soon whether that is over."""
        soon = now.steady + FIRST_PAUSE
        if self._pause_until <= soon:
            return
        if life.retry_at == self._pause_until:
            life.retry_at = soon
        self._pause_until = soon

    def _make_room(self, now: Now) -> None:
        oldest = max(self._lives.values(), key=lambda life: self._idle(life, now))
        if self._idle(oldest, now) < EVICTABLE:
            raise TooManyLeaves
        self._drop(oldest)

    def _drop(self, life: Life) -> None:
        del self._lives[life.service]
        self._dropped.append(life.service)
