"""The agent's own measurements: counters, gauges and samples, and their two published forms.

Counting must cost nothing that matters, so whoever counts holds a handle and adds to plain attributes:

    requests = metrics.counter("http.requests")     # once
    requests.add(1)                                 # on every request

Names, labels and text are put together only when somebody asks. Intervals are as in go-metrics' in-memory sink, which
Consul publishes: ten seconds each, kept for a minute, and `/v1/agent/metrics` shows the last finished one. The clock is
handed in: `tick(now)` closes an interval when its time is over, and every reading ticks first.

The prefix of every name is `telemetry.metrics_prefix`. Its default is "consul" although this is Lictor, because
dashboards and alerts that people have are written for those names.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

INTERVAL_SECONDS = 10.0
KEPT_INTERVALS = 6
MAX_HANDLES = 50_000
"""Names and label sets beyond which new ones are counted together and not shown: a label that grows without end must
not take the agent's memory."""

MAX_SAMPLED = 1024
"""Values of one sample and interval that quantiles are computed from; the sums are of all values."""

Labels = tuple[tuple[str, str], ...]


class Aggregate(msgspec.Struct, frozen=True):
    """What one handle counted in one interval."""

    count: int
    sum: float
    sum_of_squares: float
    min: float
    max: float
    values: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """The arithmetic mean; 0 when nothing was counted."""
        return self.sum / self.count if self.count else 0

    @property
    def deviation(self) -> float:
        """The sample standard deviation; 0 for fewer than two values."""
        if self.count < 2:
            return 0
        spread = self.count * self.sum_of_squares - self.sum * self.sum
        return math.sqrt(max(spread, 0) / (self.count * (self.count - 1)))


class Identity(msgspec.Struct, frozen=True):
    """The name of a metric below the prefix ("raft.apply"), and its labels."""

    name: str
    labels: Labels = ()


class Counter:
    """A sum of increments: messages sent, requests served."""

    __slots__ = ("count", "identity", "max", "min", "squares", "sum", "total", "total_count", "touched")
    kind = "counter"

    count: int
    sum: float
    squares: float
    min: float
    max: float

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.total: float = 0
        self.total_count = 0
        self.touched = 0.0
        self._clear()

    def add(self, value: float = 1) -> None:
        """Count one event of this size."""
        self.count += 1
        self.sum += value
        self.squares += value * value
        if value < self.min:
            self.min = value
        if value > self.max:
            self.max = value

    def _clear(self) -> None:
        self.count = 0
        self.sum = 0
        self.squares = 0
        self.min = math.inf
        self.max = -math.inf

    def peek(self) -> Aggregate | None:
        """What was counted since the interval began, None when nothing was."""
        if not self.count:
            return None
        return Aggregate(self.count, self.sum, self.squares, self.min, self.max)

    def close_interval(self, now: float) -> Aggregate | None:
        """What was counted in the interval that ends now, None when nothing was; begins the next."""
        closed = self.peek()
        if closed is not None:
            self.total += self.sum
            self.total_count += self.count
            self.touched = now
            self._clear()
        return closed


class Sample(Counter):
    """A distribution of values: how long something took (milliseconds), how big it was.

    Taking a value is an append; many are counted together.
    """

    __slots__ = ("_fresh", "values")
    _fresh: list[float]
    values: list[float]
    kind = "sample"

    def add(self, value: float = 1) -> None:
        """Take one value."""
        self._fresh.append(value)
        if len(self._fresh) >= MAX_SAMPLED:
            self._count()

    def _count(self) -> None:
        fresh, self._fresh = self._fresh, []
        if fresh:
            self.count += len(fresh)
            self.sum += sum(fresh)
            self.squares += sum([value * value for value in fresh])
            self.min = min(self.min, *fresh)
            self.max = max(self.max, *fresh)
            self.values = [*self.values, *fresh][-MAX_SAMPLED:]

    def _clear(self) -> None:
        super()._clear()
        self.values = []
        self._fresh = []

    def peek(self) -> Aggregate | None:
        """What was taken since the interval began, None when nothing was."""
        self._count()
        if not self.count:
            return None
        return Aggregate(self.count, self.sum, self.squares, self.min, self.max, tuple(self.values))


class Gauge:
    """A value that is what it is now: open connections, the applied index."""

    __slots__ = ("identity", "read", "value")

    def __init__(self, identity: Identity, read: Callable[[], float] | None = None) -> None:
        self.identity = identity
        self.value: float | None = None
        self.read = read

    def set(self, value: float) -> None:
        """The value from now on."""
        self.value = value

    def current(self) -> float | None:
        """The value now, None when it never had one."""
        return self.read() if self.read is not None else self.value


class PrefixFilter:
    """Which names are published: `+prefix` allows, `-prefix` blocks, the longest prefix that fits decides.

    Names are matched with the metrics prefix ("consul.raft"). Raises ValueError for a rule without a sign.
    """

    def __init__(self, rules: tuple[str, ...] = (), default: bool = True) -> None:
        self._default = default
        self._rules: list[tuple[str, bool]] = []
        for rule in rules:
            if rule[:1] not in ("+", "-"):
                raise ValueError(f"Filter rule must begin with either '+' or '-': {rule!r}")
            if rule[1:]:
                self._rules.append((rule[1:], rule[0] == "+"))
        # Of two rules for one prefix the blocking one wins, as in Consul, so it comes first.
        self._rules.sort(key=lambda rule: (-len(rule[0]), rule[1]))

    def allows(self, name: str) -> bool:
        """Whether the full name is published."""
        for prefix, allowed in self._rules:
            if name.startswith(prefix):
                return allowed
        return self._default


class Interval(msgspec.Struct, frozen=True):
    """What was counted in one interval that began at `start` (Unix seconds), by handle."""

    start: float
    counters: tuple[tuple[Identity, Aggregate], ...]
    samples: tuple[tuple[Identity, Aggregate], ...]


class Metrics:
    """Every measurement of one agent."""

    def __init__(self, now: float, prefix: str = "consul", filter: PrefixFilter | None = None) -> None:
        """`now` is Unix seconds, like every time that is handed in later."""
        self.prefix = prefix
        self.filter = filter or PrefixFilter()
        self.hostname = ""
        self._start = now - now % INTERVAL_SECONDS
        self._closed: deque[Interval] = deque(maxlen=KEPT_INTERVALS)
        self._counters: dict[Identity, Counter] = {}
        self._samples: dict[Identity, Sample] = {}
        self._gauges: dict[Identity, Gauge] = {}
        self._overflow = (Counter(Identity("")), Sample(Identity("")), Gauge(Identity("")))

    # -- counting --------------------------------------------------------------------------------------------------

    def counter(self, name: str, **labels: str) -> Counter:
        """The counter of this name and these labels; the same one for every caller."""
        identity = Identity(name, tuple(labels.items()))
        found = self._counters.get(identity)
        if found is None:
            if self._full():
                return self._overflow[0]
            found = self._counters[identity] = Counter(identity)
        return found

    def sample(self, name: str, **labels: str) -> Sample:
        """The sample of this name and these labels; times are in milliseconds."""
        identity = Identity(name, tuple(labels.items()))
        found = self._samples.get(identity)
        if found is None:
            if self._full():
                return self._overflow[1]
            found = self._samples[identity] = Sample(identity)
        return found

    def gauge(self, name: str, **labels: str) -> Gauge:
        """The gauge of this name and these labels."""
        return self._gauge(Identity(name, tuple(labels.items())), None)

    def gauge_of(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Publish a gauge whose value is computed when somebody asks."""
        self._gauge(Identity(name, tuple(labels.items())), read).read = read

    def _gauge(self, identity: Identity, read: Callable[[], float] | None) -> Gauge:
        found = self._gauges.get(identity)
        if found is None:
            if self._full():
                return Gauge(identity, read)
            found = self._gauges[identity] = Gauge(identity, read)
        return found

    def _full(self) -> bool:
        return len(self._counters) + len(self._samples) + len(self._gauges) >= MAX_HANDLES

    def tick(self, now: float) -> Interval | None:
        """Close the interval when its time is over, and return it; None while it lasts.

        When several intervals have passed unnoticed, what was counted belongs to the first, and the rest were empty.
        """
        if now - self._start < INTERVAL_SECONDS:
            return None
        counters = ((counter.identity, counter.close_interval(now)) for counter in self._counters.values())
        samples = ((sample.identity, sample.close_interval(now)) for sample in self._samples.values())
        closed = Interval(
            self._start,
            tuple((identity, what) for identity, what in counters if what is not None),
            tuple((identity, what) for identity, what in samples if what is not None),
        )
        self._closed.append(closed)
        self._start = now - now % INTERVAL_SECONDS
        return closed

    # -- reading ---------------------------------------------------------------------------------------------------

    def intervals(self, now: float) -> tuple[Interval, ...]:
        """The finished intervals that are kept, oldest first."""
        self.tick(now)
        return tuple(self._closed)

    def shown(self, now: float) -> Interval:
        """The interval that is published: the last finished one, or the first while it lasts."""
        self.tick(now)
        if self._closed:
            return self._closed[-1]
        counters = ((counter.identity, counter.peek()) for counter in self._counters.values())
        samples = ((sample.identity, sample.peek()) for sample in self._samples.values())
        return Interval(
            self._start,
            tuple((identity, what) for identity, what in counters if what is not None),
            tuple((identity, what) for identity, what in samples if what is not None),
        )

    def counters(self) -> Iterator[tuple[Counter, Aggregate | None]]:
        """Every counter, with what it counted since the interval began."""
        for counter in self._counters.values():
            yield counter, counter.peek()

    def samples(self) -> Iterator[tuple[Sample, Aggregate | None]]:
        """Every sample, with what it took since the interval began."""
        for sample in self._samples.values():
            yield sample, sample.peek()

    def gauges(self) -> Iterator[tuple[Identity, float]]:
        """Every gauge that has a value."""
        for gauge in list(self._gauges.values()):
            value = gauge.current()
            if value is not None:
                yield gauge.identity, value

    def full_name(self, identity: Identity) -> str:
        """The published name of a counter or a sample."""
        return f"{self.prefix}.{identity.name}" if self.prefix else identity.name

    def gauge_name(self, identity: Identity) -> str:
        """The published name of a gauge, with the host's name in it when that is wanted."""
        name = f"{self.hostname}.{identity.name}" if self.hostname else identity.name
        return f"{self.prefix}.{name}" if self.prefix else name

    def allowed(self, identity: Identity) -> bool:
        """Whether the filter lets this metric be published."""
        return self.filter.allows(self.full_name(identity))


class Telemetry(msgspec.Struct, frozen=True):
    """The configuration keys of `telemetry` that concern the metrics themselves. Durations in seconds."""

    metrics_prefix: str = "consul"
    prefix_filter: tuple[str, ...] = ()
    filter_default: bool = True
    prometheus_retention: float = 0.0
    disable_hostname: bool = False
    statsd_address: str = ""
    dogstatsd_addr: str = ""
    dogstatsd_tags: tuple[str, ...] = ()
    statsite_address: str = ""

    def has_sinks(self) -> bool:
        """Whether metrics go anywhere besides the agent's own memory."""
        addresses = (self.statsd_address, self.dogstatsd_addr, self.statsite_address)
        return any(addresses) or self.prometheus_retention > 0


def from_config(config: Telemetry, now: float, hostname: str) -> Metrics:
    """The Metrics that a configuration describes. Raises ValueError for a bad filter rule.

    As in Consul, gauges carry the host's name unless it is disabled, and only when there is a sink to tell hosts apart.
    """
    metrics = Metrics(now, config.metrics_prefix, PrefixFilter(config.prefix_filter, config.filter_default))
    if config.has_sinks() and not config.disable_hostname:
        metrics.hostname = hostname
    return metrics
