"""Gossip's figures among the agent's metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lictor.agent.metrics import Counter, Metrics, Sample
    from lictor.gossip.messages import State

QUEUES = {"intent_queue": "serf.queue.Intent", "event_queue": "serf.queue.Event", "query_queue": "serf.queue.Query"}


class GossipMetrics:
    """The meter of all pools of an agent. Handles are kept, since every datagram is counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._counters: dict[str, Counter] = {}
        self._samples: dict[str, Sample] = {}

    def count(self, name: str, value: float = 1) -> None:
        """Something happened, or so many bytes went by."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = self._metrics.counter(name)
        counter.add(value)

    def sample(self, name: str, value: float) -> None:
        """Something was that large, or took that long."""
        sample = self._samples.get(name)
        if sample is None:
            sample = self._samples[name] = self._metrics.sample(name)
        sample.add(value)

    def publish(
        self,
        network: str,
        figures: Callable[[], dict[str, int]],
        members: Callable[[State], int],
        queued: Callable[[], int],
    ) -> None:
        """Publish the gauges of a pool: its health score, how many messages wait, here and for being gossiped, and how
        many members are in which state.
        """
        from lictor.gossip.messages import State  # takes a while to import, and is there once a pool is

        gauge = self._metrics.gauge_of
        gauge("memberlist.health.score", lambda: figures().get("health_score", 0), network=network)
        gauge("memberlist.queue.broadcasts", queued, network=network)
        for state in State:
            told = state.name.lower()
            gauge("memberlist.node.instances", lambda state=state: members(state), network=network, node_state=told)  # type: ignore[misc]
        for figure, name in QUEUES.items():
            gauge(name, lambda figure=figure: figures().get(figure, 0), network=network)  # type: ignore[misc]
