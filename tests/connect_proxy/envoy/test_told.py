"""What Envoys tell of connections and requests, summed up."""

from __future__ import annotations

from typing import Any, cast

import pytest

accesslog = pytest.importorskip("envoy.data.accesslog.v3.accesslog_pb2")
als = pytest.importorskip("envoy.service.accesslog.v3.als_pb2")

from lictor.agent.live_connections import MAX_SOURCES, Inbound, Seen  # noqa: E402
from lictor.connect_proxy.envoy import told  # noqa: E402
from lictor.connect_proxy.envoy.hearing import PAUSE, Hearing  # noqa: E402
from lictor.connect_proxy.envoy.told import LATELY, Envoys  # noqa: E402
from tests.connect_proxy.loops import on_uvloop  # noqa: E402

KINDS = accesslog.AccessLogType
THERE = {"db-proxy"}


def common(kind: Any, source: str, port: int = 1, **more: Any) -> Any:
    """What is the same in the entries of connections and requests."""
    made = accesslog.AccessLogCommon(access_log_type=kind, **more)
    made.downstream_direct_remote_address.socket_address.port_value = port
    if source:
        made.tls_properties.peer_certificate_properties.subject_alt_name.add(uri=source)
    return made


def connection(kind: Any, source: str = "web", port: int = 1, **more: Any) -> Any:
    message = als.StreamAccessLogsMessage()
    message.tcp_logs.log_entry.add(common_properties=common(kind, source, port, **more))
    return message


def request(source: str) -> Any:
    message = als.StreamAccessLogsMessage()
    message.http_logs.log_entry.add(common_properties=common(KINDS.DownstreamStart, source))
    return message


def test_connections_are_counted_from_when_they_are_made_until_they_end() -> None:
    envoys = Envoys()
    worker = envoys.begin("db-proxy")
    for port, source in ((1, "web"), (2, "web"), (3, "api"), (4, "")):
        worker.take(connection(KINDS.TcpUpstreamConnected, source, port), 0.0)
    worker.take(connection(KINDS.TcpPeriodic, "web", 1), 0.0)
    worker.take(connection(KINDS.TcpPeriodic, "late", 9), 0.0)
    [(proxy, found)] = envoys.due(0.0, 30.0, THERE)
    assert proxy == "db-proxy"
    assert found.inbound() == [Inbound("web", 2), Inbound("api", 1), Inbound("late", 1)]
    assert list(envoys.due(1.0, 30.0, THERE)) == [], "nothing is new"
    for port in (1, 1, 8):
        worker.take(connection(KINDS.TcpConnectionEnd, "web", port), 1.0)
    [(_, found)] = envoys.due(1.0, 30.0, THERE)
    assert found.inbound()[0] == Inbound("web", 1)
    other = envoys.begin("db-proxy")
    other.take(connection(KINDS.TcpUpstreamConnected, "web", 1), 1.0)
    envoys.end("db-proxy", worker)
    assert found.inbound() == [Inbound("web", 1)], "a thread that is gone takes its connections along"
    assert [proxy for proxy, _ in envoys.due(40.0, 30.0, THERE)] == ["db-proxy"]
    assert list(envoys.due(90.0, 30.0, set())) == []
    assert envoys.by_proxy == {}


def test_who_made_requests_is_known_for_a_while() -> None:
    envoys = Envoys()
    worker = envoys.begin("db-proxy")
    worker.take(request("web"), 0.0)
    worker.take(connection(KINDS.NotSet, "api"), 1.0)
    worker.take(connection(KINDS.NotSet, "stranger", downstream_transport_failure_reason="verify failed"), 1.0)
    worker.take(request("web"), 2.0)
    [(_, found)] = envoys.due(2.0, 30.0, THERE)
    assert found.seen(2.0) == [Seen("api", 1.0), Seen("web", 2.0)]
    assert found.inbound() == []
    assert found.seen(LATELY + 1.5) == [Seen("web", 2.0)]
    envoys.end("db-proxy", worker)
    assert len(list(envoys.due(LATELY, 30.0, THERE))) == 1, "it is known without a stream"
    assert list(envoys.due(3 * LATELY, 30.0, THERE)) == []
    assert envoys.by_proxy == {}


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "MOST", 3)
    envoys = Envoys()
    workers = [envoys.begin("db-proxy"), envoys.begin("db-proxy")]
    for number in range(10):
        workers[number % 2].take(connection(KINDS.TcpUpstreamConnected, "web", number), 0.0)
    assert envoys.known == 3
    for number in range(MAX_SOURCES + 5):
        workers[0].take(request(f"s{number}"), float(number))
    [(_, found)] = envoys.due(0.0, 30.0, THERE)
    assert len(found.requests) == MAX_SOURCES
    monkeypatch.setattr(told, "MOST", 9)
    monkeypatch.setattr(told, "MOST_OF_ONE", 3)
    for number in range(10, 20):
        workers[0].take(connection(KINDS.TcpUpstreamConnected, "web", number), 0.0)
    other = envoys.begin("api-proxy")
    other.take(connection(KINDS.TcpUpstreamConnected, "web", 0), 0.0)
    assert envoys.known == 4, "one proxy's do not keep another's from being known"
    envoys.end("api-proxy", other)
    assert "s4" not in found.requests and f"s{MAX_SOURCES + 4}" in found.requests
    workers[0].take(request("x" * 5000), 0.0)
    assert len(max(found.requests, key=len)) < 10


def test_what_a_stream_knows_ends_with_it_also_where_its_proxy_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "MOST", 3)
    envoys = Envoys()
    worker = envoys.begin("db-proxy")
    worker.take(connection(KINDS.TcpUpstreamConnected, "web", 0), 0.0)
    assert list(envoys.due(0.0, 30.0, set())) == [] and envoys.by_proxy == {}
    for number in range(10):
        worker.take(connection(KINDS.TcpUpstreamConnected, "web", number), 0.0)
    assert envoys.known == 3, "it counts among all others still"
    worker.take(connection(KINDS.TcpConnectionEnd, "web", 0), 0.0)
    assert envoys.known == 2
    envoys.end("db-proxy", worker)
    assert envoys.known == 0


@on_uvloop
async def test_a_report_that_is_due_now_is_made_earlier_by_nothing() -> None:
    """Nothing is reported before the loop has its turn, so no agent is looked at."""
    hearing = Hearing(cast(Any, None))
    for passed in (0.0, -PAUSE, -2 * PAUSE):
        hearing._passed = passed
        hearing._soon()
    hearing.close()
