"""Which of the agent's numbers are published, under the names that Consul's dashboards and alerts ask for.

Gauges are read when somebody asks and cost nothing until then. Writes are timed one by one; reads are not, for most of
them are answered from the cache.
"""

from __future__ import annotations

import gc
import math
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lictor.agent.leaves_book import EXPIRED
from lictor.agent.metrics import Metrics, Telemetry, from_config
from lictor.agent.metrics_runtime import publish_runtime
from lictor.model.check import CRITICAL, PASSING, WARNING
from lictor.model.command import (
    Command,
    ConfigWrite,
    CoordinateUpdate,
    Deregister,
    IntentionWrite,
    KVWrite,
    QueryDelete,
    QuerySet,
    Register,
    SessionCreate,
    SessionDestroy,
    Txn,
)
from lictor.model.version import API_VERSION

if TYPE_CHECKING:
    from lictor.agent.agent import Agent
    from lictor.agent.config.keys import RuntimeConfig
    from lictor.agent.leaves import Leaves
    from lictor.agent.metrics import Sample
    from lictor.agent.replica import PartialReplica

_NAMES: dict[type, str] = {
    KVWrite: "kvs.apply",
    Register: "catalog.register",
    Deregister: "catalog.deregister",
    SessionCreate: "session.apply",
    SessionDestroy: "session.apply",
    Txn: "txn.apply",
    QuerySet: "prepared-query.apply",
    QueryDelete: "prepared-query.apply",
    ConfigWrite: "config_entry.apply",
    IntentionWrite: "intention.apply",
    CoordinateUpdate: "coordinate.apply",
}


class Writes:
    """Times the commands that this agent has applied."""

    def __init__(self, metrics: Metrics) -> None:
        self._commits = metrics.sample("raft.commitTime")
        self._applied = metrics.counter("raft.apply")
        self._samples: dict[type, Sample] = {kind: metrics.sample(name) for kind, name in _NAMES.items()}

    def applied(self, command: Command, milliseconds: float) -> None:
        """A command was applied, after this long."""
        self._applied.add(1)
        self._commits.add(milliseconds)
        sample = self._samples.get(type(command))
        if sample is not None:
            sample.add(milliseconds)


class _Collections:
    """The garbage collector's pauses, in nanoseconds."""

    def __init__(self) -> None:
        self.total = 0
        self._began = 0
        gc.callbacks.append(self._told)

    def _told(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter_ns()
        else:
            self.total += time.perf_counter_ns() - self._began


_collections: _Collections | None = None


def _pauses() -> float:
    """Nanoseconds spent in collections since this was first asked for."""
    global _collections
    if _collections is None:
        _collections = _Collections()
    return float(_collections.total)


def publish(agent: Agent) -> None:
    """Publish the gauges of an agent."""
    _runtime(agent)
    gauge, dc = agent.metrics.gauge_of, agent.datacenter
    gauge("version", lambda: 1, version=API_VERSION, pre_release="")
    gauge("agent.services", lambda: len(agent.local.services))
    for status in (PASSING, WARNING, CRITICAL):
        gauge("agent.checks", _checks_with(agent, status), status=status)
    _leaves(agent.metrics, agent.leaves)
    if agent.client is not None:
        _replica(agent.metrics, agent.client.replica)
    if agent.server is None:
        return
    if agent.serving is not None:
        subscriptions = agent.serving.subscriptions
        gauge("replica.sessions", lambda: subscriptions.sessions)
        gauge("replica.followed_topics", lambda: subscriptions.topics)
        gauge("replica.pieces", lambda: subscriptions.pieces)
        gauge("replica.overflows", lambda: subscriptions.overflows)
    store, consensus = agent.store, agent.server.consensus
    gauge("server.isLeader", lambda: float(consensus.is_leader))
    gauge("raft.applied_index", lambda: _integer(consensus.stats().get("applied_index", "")))
    gauge("raft.last_index", lambda: _integer(consensus.stats().get("last_log_index", "")))
    gauge("raft.commitNumLogs", lambda: _integer(consensus.stats().get("commit_index", "")))
    gauge("raft.peers", lambda: len(consensus.peers()))
    gauge("autopilot.healthy", lambda: _autopilot(agent)[0])
    gauge("autopilot.failure_tolerance", lambda: _autopilot(agent)[1])
    gauge("session_ttl.active", lambda: sum(1 for session in store.sessions if session.ttl))
    gauge("state.nodes", lambda: len(store.nodes), datacenter=dc)
    gauge("state.services", lambda: sum(1 for _ in store.services.indexes["name"].values()), datacenter=dc)
    gauge("state.service_instances", lambda: len(store.services), datacenter=dc)
    gauge("state.kv_entries", lambda: len(store.kv), datacenter=dc)
    gauge("state.config_entries", lambda: len(store.config), datacenter=dc)
    gauge("state.sessions", lambda: len(store.sessions), datacenter=dc)
    for role, name in (("consul", "members.servers"), ("node", "members.clients")):
        gauge(name, _members_with(agent, role), datacenter=dc)


def _leaves(metrics: Metrics, leaves: Leaves) -> None:
    """The identities that an agent holds; Lictor's own names."""
    gauge = metrics.gauge_of
    gauge("leaf_certs.held", lambda: len(leaves.states()))
    gauge("leaf_certs.expired", lambda: sum(1 for state, _ in leaves.states().values() if state == EXPIRED))
    gauge("leaf_certs.signed", lambda: leaves.signed)
    gauge("leaf_certs.failed", lambda: leaves.failed)
    gauge("leaf_certs.failing", lambda: float(bool(leaves.trouble)))


def _replica(metrics: Metrics, replica: PartialReplica) -> None:
    """What a client agent holds of the servers' state; Lictor's own names."""
    gauge = metrics.gauge_of
    gauge("replica.topics", lambda: replica.topics)
    gauge("replica.rows", lambda: replica.rows)
    gauge("replica.age", lambda: replica.age if math.isfinite(replica.age) else -1.0)
    gauge("replica.following", lambda: float(replica.ready))
    gauge("replica.changes", lambda: replica.changes)
    gauge("replica.streams", lambda: replica.streams)
    gauge("replica.misses", lambda: replica.misses)
    gauge("replica.dropped", lambda: replica.dropped)


def _runtime(agent: Agent) -> None:
    publish_runtime(agent.metrics)
    gauge = agent.metrics.gauge_of
    gauge("runtime.num_threads", threading.active_count)
    gauge("runtime.total_gc_pause_ns", _pauses)
    gauge("runtime.uptime", lambda: time.time() - agent.started_at)


def _autopilot(agent: Agent) -> tuple[float, float]:
    """Whether all servers are well, and how many may fail: as the leader knows it, else as far as it can be told."""
    state = agent.leadership.autopilot.latest if agent.leadership is not None else None
    if state is not None:
        return float(state.healthy), state.failure_tolerance
    consensus = agent.server.consensus if agent.server is not None else None
    voters = sum(1 for peer in consensus.peers() if peer.voter) if consensus is not None else 0
    return float(consensus is not None and bool(consensus.leader)), max(0, (voters - 1) // 2)


def _checks_with(agent: Agent, status: str) -> Callable[[], float]:
    return lambda: sum(1 for check in agent.local.checks.values() if check.status == status)


def _members_with(agent: Agent, role: str) -> Callable[[], float]:
    return lambda: sum(1 for member in agent.members() if member.tags.get("role") == role)


def _integer(text: str) -> float:
    return int(text) if text.isdigit() else 0


def metrics_of(config: RuntimeConfig) -> Metrics:
    """The metrics that a configuration describes."""
    telemetry = config.telemetry
    return from_config(
        Telemetry(
            metrics_prefix=telemetry.metrics_prefix,
            prefix_filter=tuple(telemetry.prefix_filter),
            filter_default=telemetry.filter_default,
            prometheus_retention=telemetry.prometheus_retention_time,
            disable_hostname=telemetry.disable_hostname,
            statsd_address=telemetry.statsd_address,
            dogstatsd_addr=telemetry.dogstatsd_addr,
            dogstatsd_tags=tuple(telemetry.dogstatsd_tags),
            statsite_address=telemetry.statsite_address,
        ),
        time.time(),
        socket.gethostname(),
    )
