"""The published forms of the metrics: the JSON of `/v1/agent/metrics`, Prometheus' text, statsd's lines.

Pure: takes a `Metrics` and the time, returns text. The JSON form and its field names are those that Consul publishes;
the text form is the Prometheus exposition format 0.0.4; the lines are those of statsd, with DogStatsD's tags.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator

import msgspec

from lictor.agent.metrics import INTERVAL_SECONDS, Aggregate, Identity, Interval, Labels, Metrics

PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS_DISABLED = "Prometheus is not enabled since its retention time is not positive"
"""The text (with status 415) for `format=prometheus` while telemetry.prometheus_retention_time is 0."""

QUANTILES = (0.5, 0.9, 0.99)
DATAGRAM_BYTES = 1400


class GaugeValue(msgspec.Struct, frozen=True, rename="pascal"):
    """A gauge in the JSON form."""

    name: str
    value: float
    labels: dict[str, str]


class SampledValue(msgspec.Struct, frozen=True, rename="pascal"):
    """A counter or a sample in the JSON form. `rate` is the sum by second."""

    name: str
    count: int
    rate: float
    sum: float
    min: float
    max: float
    mean: float
    stddev: float
    labels: dict[str, str]


class Summary(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer of `/v1/agent/metrics`: one interval. `points` is always empty; nothing here is a point."""

    timestamp: str
    gauges: list[GaugeValue]
    points: list[dict[str, str]]
    counters: list[SampledValue]
    samples: list[SampledValue]


def summary(metrics: Metrics, now: float) -> Summary:
    """The last finished interval, each list in the order of names and labels."""
    shown = metrics.shown(now)
    gauges = [
        GaugeValue(metrics.gauge_name(identity), value, dict(identity.labels))
        for identity, value in sorted(metrics.gauges(), key=lambda pair: _order(pair[0]))
        if metrics.allowed(identity)
    ]
    stamp = time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(shown.start))
    return Summary(stamp, gauges, [], _sampled(metrics, shown.counters), _sampled(metrics, shown.samples))


def _sampled(metrics: Metrics, pairs: tuple[tuple[Identity, Aggregate], ...]) -> list[SampledValue]:
    return [
        SampledValue(
            metrics.full_name(identity),
            what.count,
            what.sum / INTERVAL_SECONDS,
            what.sum,
            what.min,
            what.max,
            what.mean,
            what.deviation,
            dict(identity.labels),
        )
        for identity, what in sorted(pairs, key=lambda pair: _order(pair[0]))
        if metrics.allowed(identity)
    ]


def _order(identity: Identity) -> tuple[str, Labels]:
    return identity.name, identity.labels


# -- Prometheus ----------------------------------------------------------------------------------------------------

_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_IN_LABEL = re.compile(r"[^a-zA-Z0-9_]")


def prometheus(metrics: Metrics, now: float, retention: float) -> str:
    """Every metric that was touched within `retention` seconds, one family after the other in the order of names."""
    metrics.tick(now)
    families: dict[str, tuple[str, list[str]]] = {}

    def add(name: str, kind: str, lines: list[str]) -> None:
        # Two metrics whose names differ only in punctuation would make a family of two kinds, which no scraper
        # accepts; the first stays.
        if families.setdefault(name, (kind, []))[0] == kind:
            families[name][1].extend(lines)

    for counter, current in metrics.counters():
        if metrics.allowed(counter.identity) and (current or now - counter.touched <= retention):
            name = prometheus_name(metrics.full_name(counter.identity))
            total = counter.total + (current.sum if current else 0)
            add(name, "counter", [f"{name}{_labels(counter.identity.labels)} {number(total)}"])
    recent = metrics.intervals(now)[-1:]
    values = {identity: what.values for interval in recent for identity, what in interval.samples}
    for sample, current in metrics.samples():
        if metrics.allowed(sample.identity) and (current or now - sample.touched <= retention):
            name = prometheus_name(metrics.full_name(sample.identity))
            window = sorted((*values.get(sample.identity, ()), *(current.values if current else ())))
            count = sample.total_count + (current.count if current else 0)
            total = sample.total + (current.sum if current else 0)
            add(name, "summary", _summary_lines(name, sample.identity.labels, window, total, count))
    for identity, value in metrics.gauges():
        if metrics.allowed(identity):
            name = prometheus_name(metrics.gauge_name(identity))
            add(name, "gauge", [f"{name}{_labels(identity.labels)} {number(value)}"])
    parts = []
    for name, (kind, lines) in sorted(families.items()):
        parts.append(f"# HELP {name} {name}\n# TYPE {name} {kind}\n" + "\n".join(lines) + "\n")
    return "".join(parts)


def _summary_lines(name: str, labels: Labels, window: list[float], total: float, count: int) -> list[str]:
    lines = []
    for quantile in QUANTILES:
        shown = _labels((*labels, ("quantile", str(quantile))))
        value = window[max(math.ceil(quantile * len(window)) - 1, 0)] if window else math.nan
        lines.append(f"{name}{shown} {number(value)}")
    return [*lines, f"{name}_sum{_labels(labels)} {number(total)}", f"{name}_count{_labels(labels)} {count}"]


def prometheus_name(name: str) -> str:
    """A metric's name with everything that Prometheus does not allow replaced by an underscore."""
    clean = _NOT_IN_NAME.sub("_", name)
    return "_" + clean if clean[:1].isdigit() else clean


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = []
    for name, value in labels:
        escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
        pairs.append(f'{_NOT_IN_LABEL.sub("_", name)}="{escaped}"')
    return "{" + ",".join(pairs) + "}"


def number(value: float) -> str:
    """A number in the exposition format."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


# -- statsd --------------------------------------------------------------------------------------------------------


def statsd_lines(metrics: Metrics, closed: Interval, tags: tuple[str, ...] | None = None) -> Iterator[str]:
    """The lines that tell a statsd of one closed interval; with `tags` (maybe empty) in DogStatsD's form.

    Plain statsd has no labels, so they become part of the name, as Consul's sink writes them.
    """

    def line(name: str, labels: Labels, rest: str) -> str:
        if tags is None:
            parts = [name, *(value for _, value in labels)]
            return re.sub(r"[:\s|@]", "_", ".".join(parts)) + ":" + rest
        marks = [*tags, *(f"{key}:{value}" for key, value in labels)]
        suffix = "|#" + re.sub(r"[\s|]", "_", ",".join(marks)) if marks else ""
        return re.sub(r"[:\s|@]", "_", name) + ":" + rest + suffix

    for identity, what in closed.counters:
        if metrics.allowed(identity):
            yield line(metrics.full_name(identity), identity.labels, f"{number(what.sum)}|c")
    for identity, value in metrics.gauges():
        if metrics.allowed(identity):
            yield line(metrics.gauge_name(identity), identity.labels, f"{number(value)}|g")
    for identity, what in closed.samples:
        if metrics.allowed(identity):
            rate = len(what.values) / what.count
            rest = "|ms" if rate == 1 else f"|ms|@{rate:.6f}"
            for value in what.values:
                yield line(metrics.full_name(identity), identity.labels, number(value) + rest)


def datagrams(lines: Iterator[str]) -> Iterator[bytes]:
    """Lines packed into datagrams that fit an Ethernet frame."""
    packed = b""
    for text in lines:
        line = text.encode() + b"\n"
        if packed and len(packed) + len(line) > DATAGRAM_BYTES:
            yield packed
            packed = b""
        packed += line
    if packed:
        yield packed
