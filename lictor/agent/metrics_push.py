"""Sending the metrics of each finished interval to statsd, DogStatsD and statsite.

Counts reach these servers once an interval instead of one by one: the sums are the same, and counting stays as cheap as
it is without them. A server that cannot be reached costs a line in the log, when that begins and when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable

from lictor.agent.logs import logger
from lictor.agent.metrics import INTERVAL_SECONDS, Interval, Metrics, Telemetry
from lictor.agent.metrics_format import datagrams, statsd_lines

SEND_SECONDS = 5.0

log = logger("agent.metrics")


class MetricsPush:
    """Sends one agent's metrics. Lifecycle: `start` once, `close` once; does nothing where no server is configured."""

    def __init__(self, metrics: Metrics, config: Telemetry, clock: Callable[[], float] = time.time) -> None:
        self._metrics = metrics
        self._config = config
        self._clock = clock
        self._sent_until = 0.0
        self._failing: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send, at the end of each interval."""
        if self._config.statsd_address or self._config.dogstatsd_addr or self._config.statsite_address:
            self._sent_until = self._clock()
            self._task = asyncio.create_task(self._run(), name="metrics push")

    async def close(self) -> None:
        """Send nothing more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            now = self._clock()
            await asyncio.sleep(INTERVAL_SECONDS - now % INTERVAL_SECONDS + 0.01)
            await self.push()

    async def push(self) -> None:
        """Send the intervals that have finished since the last time."""
        # Whoever reads the metrics closes intervals too, so look at what is kept, not at what closes now.
        for interval in self._metrics.intervals(self._clock()):
            if interval.start + INTERVAL_SECONDS > self._sent_until:
                await self._send(interval)
                self._sent_until = interval.start + INTERVAL_SECONDS

    async def _send(self, interval: Interval) -> None:
        config = self._config
        if config.statsd_address:
            packets = list(datagrams(statsd_lines(self._metrics, interval)))
            await self._attempt(config.statsd_address, self._udp, packets)
        if config.dogstatsd_addr:
            packets = list(datagrams(statsd_lines(self._metrics, interval, config.dogstatsd_tags)))
            await self._attempt(config.dogstatsd_addr, self._udp, packets)
        if config.statsite_address:
            packets = list(datagrams(statsd_lines(self._metrics, interval)))
            await self._attempt(config.statsite_address, self._tcp, packets)

    async def _attempt(
        self, address: str, send: Callable[[str, int, list[bytes]], Awaitable[None]], packets: list[bytes]
    ) -> None:
        try:
            host, _, port = address.rpartition(":")
            async with asyncio.timeout(SEND_SECONDS):
                await send(host.strip("[]") or "127.0.0.1", int(port), packets)
        except (OSError, ValueError, OverflowError, TimeoutError) as error:
            if address not in self._failing:
                self._failing.add(address)
                log.warn("metrics cannot be sent", address=address, error=str(error) or "timed out")
            return
        if address in self._failing:
            self._failing.discard(address)
            log.info("metrics are sent again", address=address)

    async def _udp(self, host: str, port: int, packets: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, _, _, _, where = found[0]
        with socket.socket(family, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            for packet in packets:
                await loop.sock_sendto(channel, packet, where)

    async def _tcp(self, host: str, port: int, packets: list[bytes]) -> None:
        _, writer = await asyncio.open_connection(host, port)
        try:
            writer.writelines(packets)
            await writer.drain()
        finally:
            writer.close()
            await writer.wait_closed()
