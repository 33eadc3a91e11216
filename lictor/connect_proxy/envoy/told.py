"""What Envoys have told of who is connected to their services and who makes requests there (see `telling`), summed up.

Each of an Envoy's threads has a stream of its own: a `Worker` here, whose connections are forgotten when it ends. Pure:
entries and the time go in, and what `LiveConnections` is to be told comes out.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from envoy.data.accesslog.v3 import accesslog_pb2

from lictor.agent.live_connections import MAX_SOURCES, Inbound, Seen
from lictor.model.spiffe import LONGEST

LATELY = 3600.0  # seconds for which it is known who made requests
MOST = 50_000  # connections that are known, of all Envoys of an agent
MOST_OF_ONE = 20_000  # of one: it does not keep others' from being known
LONGEST_KEY = 128  # characters by which Envoy tells connections apart

_TYPES = accesslog_pb2.AccessLogType


class Told:
    """What one proxy's Envoy has told. `known` is how many connections are known of its streams, `changed` whether
    anything is new since it was last passed on, `passed` when that was.
    """

    def __init__(self) -> None:
        self.workers: set[Worker] = set()
        self.requests: dict[str, float] = {}  # when each source made one last, the latest at the end
        self.known = 0
        self.changed = False
        self.passed = -1e9

    def inbound(self) -> list[Inbound]:
        """The sources that are connected, those with most connections first."""
        counts: dict[str, int] = {}
        for worker in self.workers:
            for source, count in worker.counts.items():
                counts[source] = counts.get(source, 0) + count
        most = sorted(counts.items(), key=lambda pair: -pair[1])
        return [Inbound(source, count) for source, count in most[:MAX_SOURCES]]

    def seen(self, now: float) -> list[Seen]:
        """The sources that have made requests lately."""
        self.requests = {source: when for source, when in self.requests.items() if now - when <= LATELY}
        return [Seen(source, when) for source, when in self.requests.items()]

    def asked(self, source: str, now: float) -> None:
        """A source has made a request."""
        self.requests.pop(source, None)
        self.requests[source] = now
        while len(self.requests) > MAX_SOURCES:
            del self.requests[next(iter(self.requests))]
        self.changed = True


class Worker:
    """One stream. `envoys` counts its connections together with those of all others."""

    def __init__(self, told: Told, envoys: Envoys) -> None:
        self._told = told
        self._envoys = envoys
        self._open: dict[str, str] = {}
        self.counts: dict[str, int] = {}

    def forget(self) -> None:
        """The stream has ended."""
        self._count(-len(self._open))
        self._open.clear()
        self.counts.clear()

    def take(self, message: Any, now: float) -> None:
        """Take a `StreamAccessLogsMessage`."""
        for entry in message.tcp_logs.log_entry:
            self._connection(entry.common_properties, now)
        for entry in message.http_logs.log_entry:
            source = _source(entry.common_properties)
            if source:
                self._told.asked(source, now)

    def _connection(self, common: Any, now: float) -> None:
        kind = common.access_log_type
        if kind == _TYPES.NotSet:  # of the listener: requests came on it, unless its handshake failed
            source = "" if common.downstream_transport_failure_reason else _source(common)
            if source:
                self._told.asked(source, now)
            return
        key = _key(common)
        if kind == _TYPES.TcpConnectionEnd:
            self._end(key)
        elif kind in (_TYPES.TcpUpstreamConnected, _TYPES.TcpPeriodic) and key not in self._open:
            source = _source(common)
            room = self._told.known < MOST_OF_ONE and self._envoys.known < MOST
            if source and len(key) <= LONGEST_KEY and room:
                self._open[key] = source
                self._count(1)
                self.counts[source] = self.counts.get(source, 0) + 1
                self._told.changed = True

    def _end(self, key: str) -> None:
        source = self._open.pop(key, None)
        if source is None:
            return
        self._count(-1)
        self.counts[source] -= 1
        if not self.counts[source]:
            del self.counts[source]
        self._told.changed = True

    def _count(self, more: int) -> None:
        self._told.known += more
        self._envoys.known += more


class Envoys:
    """All of an agent's, by the ids of their proxies. `known` is how many connections are known of all streams."""

    def __init__(self) -> None:
        self.by_proxy: dict[str, Told] = {}
        self.known = 0

    def begin(self, proxy: str) -> Worker:
        """A stream has begun."""
        told = self.by_proxy.setdefault(proxy, Told())
        worker = Worker(told, self)
        told.workers.add(worker)
        return worker

    def end(self, proxy: str, worker: Worker) -> None:
        """A stream has ended, and with it what is known of its connections: those that go on are told of again."""
        worker.forget()
        told = self.by_proxy.get(proxy)
        if told is not None and worker in told.workers:
            told.workers.discard(worker)
            told.changed = True

    def due(self, now: float, every: float, there: Container[str]) -> Iterable[tuple[str, Told]]:
        """What is to be passed on: what has changed, and what was not passed on for `every` seconds. Of proxies that
        are not `there`, or have told nothing for long, nothing is kept.
        """
        for proxy, told in list(self.by_proxy.items()):
            if proxy not in there or not (told.workers or told.changed or told.seen(now)):
                del self.by_proxy[proxy]
            elif told.changed or now - told.passed >= every:
                told.changed, told.passed = False, now
                yield proxy, told


def _key(common: Any) -> str:
    """What tells a connection from an Envoy's others, for as long as it lives."""
    if common.stream_id:
        return str(common.stream_id)
    remote, local = common.downstream_direct_remote_address, common.downstream_local_address
    return f"{_place(remote)} {_place(local)}"


def _place(address: Any) -> str:
    socket = address.socket_address
    return f"{socket.address}:{socket.port_value}"


def _source(common: Any) -> str:
    """Who has connected, by the certificate; empty where nobody has proved to be anybody."""
    for name in common.tls_properties.peer_certificate_properties.subject_alt_name:
        uri = str(name.uri)
        if uri and len(uri) <= LONGEST:
            return uri
    return ""
