"""The metrics' intervals are closed in time, and statsd, DogStatsD and statsite are told of each."""

import asyncio
import socket

from lictor.agent.config.sections import Telemetry
from lictor.agent.metrics import Metrics
from lictor.agent.metrics_sinks import MetricsSinks
from tests.patience import PATIENCE


def receiver() -> tuple[socket.socket, str]:
    """A socket for datagrams, and its address."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.bind(("127.0.0.1", 0))
    channel.settimeout(PATIENCE)
    return channel, f"127.0.0.1:{channel.getsockname()[1]}"


async def test_datagrams_tell_of_each_interval() -> None:
    statsd, statsd_address = receiver()
    dogstatsd, dogstatsd_address = receiver()
    with statsd, dogstatsd:
        metrics = Metrics(1000.0)
        metrics.counter("requests", path="a").add(2)
        config = Telemetry(statsd_address=statsd_address, dogstatsd_addr=dogstatsd_address, dogstatsd_tags=("env:x",))
        sinks = MetricsSinks(metrics, config)
        await sinks.tick(1005.0)
        await sinks.tick(1010.0)
        assert await asyncio.to_thread(statsd.recv, 2000) == b"consul.requests.a:2|c\n"
        assert await asyncio.to_thread(dogstatsd.recv, 2000) == b"consul.requests:2|c|#env:x,path:a\n"


async def test_statsite_gets_a_stream() -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.put_nowait(await reader.read())
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        metrics = Metrics(1000.0)
        metrics.counter("requests").add()
        port = server.sockets[0].getsockname()[1]
        await MetricsSinks(metrics, Telemetry(statsite_address=f"127.0.0.1:{port}")).tick(1010.0)
        async with asyncio.timeout(PATIENCE):
            assert await received.get() == b"consul.requests:1|c\n"


async def test_a_sink_that_is_away_or_misspelled_does_no_harm() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{taken.getsockname()[1]}"
        config = Telemetry(statsite_address=away, statsd_address="no port")
        sinks = MetricsSinks(Metrics(1000.0), config)
        await sinks.tick(1010.0)
        await sinks.tick(1020.0)
    await sinks.start()
    await sinks.close()
