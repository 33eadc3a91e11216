"""Gauges of the mesh's authority, on servers: how long its certificates last, and whether it can do its work; and of
the config entries that a secondary datacenter has from the primary one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lictor.model.connect_ca import CARoot

if TYPE_CHECKING:
    from lictor.agent.agent import Agent
    from lictor.server.from_primary_entries import EntriesFromPrimary


def publish(agent: Agent) -> None:
    """Publish them. Of the authority the first two are Consul's, in seconds, and not a number before there is one; the
    third is 0 on a leader whose authority is in trouble, and 1 otherwise. Of the copied entries both are Consul's, and
    not a number on servers that do not lead: 1 where the primary is followed, and the index of its state so far.
    """
    if agent.server is None:
        return
    gauge = agent.metrics.gauge_of
    if agent.config.primary_datacenter not in ("", agent.datacenter):
        gauge("leader.replication.config-entries.status", lambda: _copying(agent, lambda copied: not copied.failure))
        gauge("leader.replication.config-entries.index", lambda: _copying(agent, lambda copied: copied.position.index))
    if not agent.config.connect.enabled:
        return
    gauge("mesh.active-root-ca.expiry", _left(agent, lambda root: root.not_after))
    gauge("mesh.active-signing-ca.expiry", _left(agent, lambda root: root.issuer_not_after))
    gauge("connect.ca.healthy", lambda: float(not (agent.leadership and agent.leadership.connect_ca.trouble)))


def _copying(agent: Agent, figure: Callable[[EntriesFromPrimary], float]) -> float:
    copied = agent.leadership.entries_from_primary if agent.leadership is not None else None
    leads = agent.server is not None and agent.server.consensus.is_leader
    return float(figure(copied)) if copied is not None and leads else math.nan


def _left(agent: Agent, end: Callable[[CARoot], float]) -> Callable[[], float]:
    def left() -> float:
        active = next((root for root in agent.store.ca_roots if root.active), None)
        return end(active) - time.time() if active is not None else math.nan

    return left
