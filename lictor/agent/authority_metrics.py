"""Gauges of the mesh's authority, on servers: how long its certificates last, and whether it can do its work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lictor.model.connect_ca import CARoot

if TYPE_CHECKING:
    from lictor.agent.agent import Agent


def publish(agent: Agent) -> None:
    """Publish them. The first two are Consul's, in seconds, and not a number before there is an authority; the third is
    0 on a leader whose authority is in trouble, and 1 otherwise.
    """
    if agent.server is None or not agent.config.connect.enabled:
        return
    gauge = agent.metrics.gauge_of
    gauge("mesh.active-root-ca.expiry", _left(agent, lambda root: root.not_after))
    gauge("mesh.active-signing-ca.expiry", _left(agent, lambda root: root.issuer_not_after))
    gauge("connect.ca.healthy", lambda: float(not (agent.leadership and agent.leadership.connect_ca.trouble)))


def _left(agent: Agent, end: Callable[[CARoot], float]) -> Callable[[], float]:
    def left() -> float:
        active = next((root for root in agent.store.ca_roots if root.active), None)
        return end(active) - time.time() if active is not None else math.nan

    return left
