"""The endpoints of one upstream, and which is next. Pure: the time and chance are handed in.

An endpoint is chosen at random, by weight. One that fails several times in a row is left out for a while, longer each
time it happens again; where too many would be left out, or all of those that are left have been tried, it is taken
nevertheless: a proxy with bad news only must not be worse than none.
"""

import bisect
import ssl
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

import msgspec

from lictor.connect_proxy.records import HealthEntry
from lictor.connect_proxy.settings import Ejection
from lictor.model.host_port import join_host_port
from lictor.model.service import CONNECT_PROXY
from lictor.model.spiffe import ServiceId

LONGEST = 300.0  # seconds that an endpoint is left out at most


class Target(msgspec.Struct, frozen=True):
    """Where an instance is reached, and whose certificate it must show."""

    host: str
    port: int
    service: str
    datacenter: str
    weight: int = 1

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)

    def identity(self, trust_domain: str) -> ServiceId:
        """The id that its certificate must have."""
        return ServiceId(trust_domain, self.datacenter, self.service)


def targets_of(entries: Iterable[HealthEntry], service: str = "") -> tuple[Target, ...]:
    """The instances of an answer of the agent. `service` is the upstream's, where it is one service: whatever is said
    of an instance, only that service's certificate is good.
    """
    found = []
    for entry in entries:
        instance = entry.service
        name = service
        if not name:
            is_proxy = instance.kind == CONNECT_PROXY
            name = instance.proxy.destination_service_name if is_proxy else instance.service
        host = instance.address or entry.node.address
        if host and 0 < instance.port < 65536 and name:
            found.append(Target(host, instance.port, name, entry.node.datacenter, max(1, instance.weights.passing)))
    return tuple(found)


class Endpoint:
    """An endpoint and what is known of it. `session` may be resumed with contexts like `session_context`; until
    `plain_until` it is not to be asked whether its connections may be used again.
    """

    __slots__ = (
        "ejected_until",
        "ejections",
        "failures",
        "first_failure",
        "plain_until",
        "session",
        "session_context",
        "target",
    )

    def __init__(self, target: Target) -> None:
        self.target = target
        self.failures = 0
        self.first_failure = 0.0
        self.ejections = 0
        self.ejected_until = 0.0
        self.plain_until = 0.0
        self.session: ssl.SSLSession | None = None
        self.session_context: ssl.SSLContext | None = None


class Endpoints:
    """See above. `chance` gives a number from 0 up to, and not, 1."""

    def __init__(self, chance: Callable[[], float], ejection: Ejection | None = None) -> None:
        self.ejection = ejection or Ejection()
        self._chance = chance
        self._all: list[Endpoint] = []
        self._sums: list[int] = []
        self._out = 0  # how many may be ejected now: none is looked for where there are none

    def __len__(self) -> int:
        return len(self._all)

    @property
    def all(self) -> Sequence[Endpoint]:
        """Every endpoint."""
        return self._all

    def update(self, targets: Sequence[Target]) -> None:
        """Take over what the agent says; what is known of an endpoint that stays is kept."""
        before = {(e.target.host, e.target.port, e.target.service): e for e in self._all}
        found = []
        for target in targets:
            endpoint = before.pop((target.host, target.port, target.service), None)
            if endpoint is None:
                endpoint = Endpoint(target)
            endpoint.target = target
            found.append(endpoint)
        self._all = found
        self._sums = list(accumulate(e.target.weight for e in found))
        self._out = sum(1 for e in found if e.ejected_until)

    def choose(self, now: float, tried: Sequence[Endpoint] = ()) -> Endpoint | None:
        """The next endpoint, none of those that were tried; None where there is no other."""
        if not self._all:
            return None
        if not tried and not self._out:
            return self._pick(self._all, self._sums)
        left = [e for e in self._all if e not in tried]
        good = [e for e in left if e.ejected_until <= now]
        among = good or left
        return self._pick(among, list(accumulate(e.target.weight for e in among))) if among else None

    def _pick(self, among: list[Endpoint], sums: list[int]) -> Endpoint:
        if len(among) == 1:
            return among[0]
        return among[bisect.bisect_right(sums, int(self._chance() * sums[-1]), 0, len(sums) - 1)]

    def succeeded(self, endpoint: Endpoint) -> None:
        """A connection to it was made."""
        if endpoint.failures:
            endpoint.failures = 0
        if endpoint.ejected_until:
            endpoint.ejected_until = 0.0
            endpoint.ejections = 0
            self._out = max(0, self._out - 1)

    def failed(self, endpoint: Endpoint, now: float) -> bool:
        """A connection to it could not be made. Returns whether it is left out from now on."""
        rules = self.ejection
        if not endpoint.failures or now - endpoint.first_failure > rules.interval:
            endpoint.failures = 0
            endpoint.first_failure = now
        endpoint.failures += 1
        if not rules.max_failures or endpoint.failures < rules.max_failures or endpoint.ejected_until > now:
            return False
        out = sum(1 for e in self._all if e.ejected_until > now)
        if out >= max(1, len(self._all) * rules.max_percent // 100):
            return False
        if not endpoint.ejected_until:
            self._out += 1
        endpoint.failures = 0
        endpoint.ejections += 1
        endpoint.ejected_until = now + min(LONGEST, rules.base_time * endpoint.ejections)
        return True
