"""Closes the metrics' intervals in time, and tells statsd, DogStatsD and statsite of each.

A sink that is not there costs a datagram or a connection attempt an interval, and nothing else: metrics never keep the
agent from its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable

from lictor.agent.config.sections import Telemetry
from lictor.agent.logs import logger
from lictor.agent.metrics import INTERVAL_SECONDS, Metrics
from lictor.agent.metrics_format import datagrams, statsd_lines

CONNECT_SECONDS = 5.0

log = logger("agent.metrics")


class MetricsSinks:
    """The task that ticks. `start` it on the loop, `close` it once."""

    def __init__(self, metrics: Metrics, config: Telemetry) -> None:
        self._metrics = metrics
        self._config = config
        self._task: asyncio.Task[None] | None = None
        self._complained: set[str] = set()

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            now = time.time()
            await asyncio.sleep(INTERVAL_SECONDS - now % INTERVAL_SECONDS)
            await self.tick(time.time())

    async def tick(self, now: float) -> None:
        """Close the interval if its time is over, and send it on."""
        closed = self._metrics.tick(now)
        if closed is None:
            return
        config = self._config
        for address, tags in (
            (config.statsd_address, None),
            (config.dogstatsd_addr, tuple(config.dogstatsd_tags)),
        ):
            if address:
                await self._attempt(address, self._datagrams(address, list(statsd_lines(self._metrics, closed, tags))))
        if config.statsite_address:
            lines = list(statsd_lines(self._metrics, closed))
            await self._attempt(config.statsite_address, self._stream(config.statsite_address, lines))

    async def _attempt(self, address: str, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await sending
        except (OSError, ValueError) as error:
            if address not in self._complained:
                self._complained.add(address)
                log.warn("cannot send metrics; this is said once", address=address, error=str(error))
        else:
            self._complained.discard(address)

    async def _datagrams(self, address: str, lines: list[str]) -> None:
        host, port = _address(address)
        loop = asyncio.get_running_loop()
        family, kind, protocol, _, where = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
        with socket.socket(family, kind, protocol) as channel:
            channel.setblocking(False)
            channel.connect(where)
            for datagram in datagrams(iter(lines)):
                await loop.sock_sendall(channel, datagram)

    async def _stream(self, address: str, lines: list[str]) -> None:
        host, port = _address(address)
        _, writer = await asyncio.open_connection(host, port)
        writer.write("".join(f"{line}\n" for line in lines).encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "127.0.0.1", int(port)
