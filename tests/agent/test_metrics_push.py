"""Metrics that are sent: to real sockets, once an interval, whoever else reads them."""

from __future__ import annotations

import asyncio
import socket

import pytest

from lictor.agent.metrics import Metrics, Telemetry
from lictor.agent.metrics_format import summary
from lictor.agent.metrics_push import MetricsPush
from lictor.agent.metrics_runtime import publish_runtime
from tests.patience import PATIENCE

START = 1_700_000_000.0


class Clock:
    """A time that is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        """The time."""
        return self.now


def udp() -> tuple[socket.socket, str]:
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.bind(("127.0.0.1", 0))
    channel.settimeout(PATIENCE)
    return channel, f"127.0.0.1:{channel.getsockname()[1]}"


async def test_each_interval_is_sent_once_to_statsd_and_dogstatsd() -> None:
    clock = Clock()
    metrics = Metrics(clock.now)
    statsd, statsd_address = udp()
    dogstatsd, dogstatsd_address = udp()
    with statsd, dogstatsd:
        config = Telemetry(statsd_address=statsd_address, dogstatsd_addr=dogstatsd_address, dogstatsd_tags=("a:b",))
        push = MetricsPush(metrics, config, clock)
        metrics.counter("c").add(2)
        clock.now += 5
        await push.push()
        clock.now += 5
        summary(metrics, clock.now)  # another reader closes the interval first
        await push.push()
        await push.push()
        assert statsd.recv(2000) == b"consul.c:2|c\n"
        assert dogstatsd.recv(2000) == b"consul.c:2|c|#a:b\n"
        metrics.counter("c").add(3)
        clock.now += 10
        await push.push()
        assert statsd.recv(2000) == b"consul.c:3|c\n"


async def test_statsite_gets_lines_over_tcp() -> None:
    received = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        clock = Clock()
        metrics = Metrics(clock.now)
        push = MetricsPush(metrics, Telemetry(statsite_address=f"127.0.0.1:{port}"), clock)
        metrics.sample("s").add(1.5)
        clock.now += 10
        await push.push()
        assert await asyncio.wait_for(received, PATIENCE) == b"consul.s:1.5|ms\n"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:99999", "no-such-host.invalid:8125"])
async def test_a_server_that_is_not_there_is_no_error(address: str) -> None:
    clock = Clock()
    metrics = Metrics(clock.now)
    push = MetricsPush(metrics, Telemetry(statsite_address=address, statsd_address=address), clock)
    metrics.counter("c").add()
    clock.now += 10
    await push.push()


async def test_it_starts_only_where_a_server_is_configured() -> None:
    before = asyncio.all_tasks()
    silent = MetricsPush(Metrics(START), Telemetry())
    silent.start()
    assert asyncio.all_tasks() == before
    sending = MetricsPush(Metrics(START), Telemetry(statsd_address="127.0.0.1:1"))
    sending.start()
    assert len(asyncio.all_tasks() - before) == 1
    await sending.close()
    await silent.close()
    assert asyncio.all_tasks() == before


async def test_the_gauges_of_the_process() -> None:
    metrics = Metrics(START)
    publish_runtime(metrics)
    values = {gauge.name: gauge.value for gauge in summary(metrics, START).gauges}
    assert values["consul.runtime.alloc_bytes"] > 1_000_000
    assert values["consul.runtime.sys_bytes"] >= values["consul.runtime.alloc_bytes"]
    assert values["consul.runtime.num_goroutines"] >= 1
    assert values["consul.runtime.cpu_seconds"] > 0
