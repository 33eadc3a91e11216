"""What a lookup gives: one instance of a service, and where that is known from."""

from typing import Protocol

import msgspec


class Source(Protocol):
    """Where an endpoint is known from."""

    def age(self) -> float:
        """Seconds since which something may have changed that was not heard of here; infinite for not known."""
        ...


class Answered:
    """An answer over HTTP. `at` is when it came, by `clock`; `age` how old the agent said it was then, in seconds."""

    __slots__ = ("_age", "_at", "_clock")

    def __init__(self, age: float, clock: "Clock") -> None:
        self._age = age
        self._clock = clock
        self._at = clock()

    def age(self) -> float:
        """Seconds since the agent knew it."""
        return self._age + self._clock() - self._at


class Clock(Protocol):
    """Seconds from any beginning."""

    def __call__(self) -> float: ...


class Endpoint(msgspec.Struct, frozen=True, eq=False):
    """An instance. `address` is the service's own or else its node's; `status` that of its checks together (passing,
    warning, critical, maintenance); `weight` the one for that status; `rtt` the estimated round trip time from this
    node in seconds, infinite for not known.

    Endpoints are equal where they are the same instance at the same place, whatever its health.
    """

    service: str
    id: str
    node: str
    address: str
    port: int
    status: str
    weight: int
    rtt: float
    tags: tuple[str, ...]
    meta: dict[str, str]
    datacenter: str
    source: Source

    @property
    def age(self) -> float:
        """How old this knowledge may be, in seconds, as of now."""
        return self.source.age()

    @property
    def authority(self) -> str:
        """`10.0.0.1:80`, `[::1]:80`, as URLs have it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def key(self) -> tuple[str, str]:
        """Node and id, in lower case: what makes it this instance."""
        return self.node.lower(), self.id.lower()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Endpoint):
            return NotImplemented
        return (self.key, self.address, self.port) == (other.key, other.address, other.port)

    def __hash__(self) -> int:
        return hash((self.key, self.address, self.port))
