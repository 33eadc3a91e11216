"""UDP check: critical when the system reports the port closed or the network unreachable, else passing.

UDP does not say whether anybody listens, so silence for the timeout counts as passing, as in Consul. Any answer counts.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import msgspec

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import (
    DEFAULT_TIMEOUT,
    ConnectError,
    explain_errno,
    join_address,
    resolve,
    split_address,
)
from lictor.agent.checks.result import Lane, Result, critical, passing


class UdpCheck(msgspec.Struct, frozen=True):
    """A datagram holding `message` goes to `address` (host:port); `timeout` is the seconds of silence waited for."""

    lane: ClassVar[Lane] = Lane.NETWORK

    address: str
    message: str = ""
    timeout: float = DEFAULT_TIMEOUT

    async def probe(self, clients: Clients) -> Result:
        """Send, and wait for an answer, an error or the timeout."""
        try:
            host, port = split_address(self.address, "udp")
            async with asyncio.timeout(self.timeout):
                ip = (await resolve(host, "udp"))[0]
        except ConnectError as error:
            return critical(str(error))
        except TimeoutError:
            return critical(f"dial udp: lookup {host}: i/o timeout")
        return await self._exchange(ip, port)

    async def _exchange(self, ip: str, port: int) -> Result:
        loop = asyncio.get_running_loop()
        try:
            transport, answer = await loop.create_datagram_endpoint(_Answer, remote_addr=(ip, port))
        except OSError as error:
            return critical(f"dial udp {join_address(ip, port)}: connect: {explain_errno(error)}")
        try:
            transport.sendto(self.message.encode())
            async with asyncio.timeout(self.timeout):
                await answer.received
        except TimeoutError:
            pass
        except OSError as error:
            return critical(f"read udp {join_address(ip, port)}: read: {explain_errno(error)}")
        finally:
            transport.abort()
        return passing(f"UDP connect {self.address}: Success")


class _Answer(asyncio.DatagramProtocol):
    """Whether anything came back: `received` resolves with the first datagram, fails with the first error."""

    def __init__(self) -> None:
        self.received: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if not self.received.done():
            self.received.set_result(None)

    def error_received(self, exc: Exception) -> None:
        if not self.received.done():
            self.received.set_exception(exc)
