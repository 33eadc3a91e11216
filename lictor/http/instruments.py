"""The HTTP door's published numbers.

Requests answered from the cache are counted by one integer each; only those that ran an endpoint are timed, under the
names that Consul has for them: `http.GET.v1.kv._`, and `api.http` with the labels `method` and `path`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lictor.agent.metrics import Metrics, Sample
from lictor.http.routes import Endpoint

if TYPE_CHECKING:
    from lictor.http.server import HttpServer


class Timings:
    """How long each endpoint takes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # By method and pattern; an endpoint's handles are made with its first request.
        self._samples: dict[tuple[str, str], tuple[Sample, Sample]] = {}

    def add(self, endpoint: Endpoint, seconds: float) -> None:
        """A request was answered by an endpoint, after this long."""
        key = (endpoint.method, endpoint.pattern)
        found = self._samples.get(key)
        if found is None:
            path = metric_path(endpoint.pattern)
            found = self._samples[key] = (
                self._metrics.sample(f"http.{endpoint.method}.{path}"),
                self._metrics.sample("api.http", method=endpoint.method, path=path),
            )
        for sample in found:
            sample.add(seconds * 1000)


def metric_path(pattern: str) -> str:
    """A pattern as part of a metric's name: `/v1/kv/*key` is `v1.kv._`."""
    return ".".join("_" if part[:1] in (":", "*") else part for part in pattern.strip("/").split("/"))


def publish(server: "HttpServer") -> None:
    """Publish the gauges of a door."""
    api = server.api
    answers = api.answers
    gauges: dict[str, Callable[[], float]] = {
        "http.connections": lambda: server.open_connections,
        "http.connections_refused": lambda: server.refused,
        "http.requests": lambda: server.requests + api.hits,
        "http.answers.hits": lambda: api.hits,
        "http.answers.misses": lambda: api.misses,
        "http.answers.entries": lambda: len(answers.answers),
        "http.answers.size_bytes": lambda: answers.size,
        "http.answers.limit_bytes": lambda: answers.limit,
        "http.answers.dropped": lambda: answers.dropped,
        "http.answers.evicted": lambda: answers.evicted,
        "rpc.queries_blocking": lambda: sum(len(waiting) for waiting, _ in api.waiting.values()),
    }
    for name, read in gauges.items():
        api.agent.metrics.gauge_of(name, read)
