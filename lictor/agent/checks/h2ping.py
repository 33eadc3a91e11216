"""HTTP/2 ping check: passing when a PING frame (RFC 9113, section 6.7) is acknowledged."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h2.events
import msgspec

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import DEFAULT_TIMEOUT, ConnectError, TlsSettings, connection
from lictor.agent.checks.http2 import Http2Connection, Http2Error
from lictor.agent.checks.result import Lane, Result, critical, passing

PAYLOAD = b"lictor\0\0"
"""The eight bytes that the acknowledgement must bring back."""


class H2PingCheck(msgspec.Struct, frozen=True):
    """`address` is host:port; `tls` None connects in the clear with prior knowledge; `timeout` in seconds."""

    lane: ClassVar[Lane] = Lane.NETWORK

    address: str
    tls: TlsSettings | None = TlsSettings()
    timeout: float = DEFAULT_TIMEOUT

    async def probe(self, clients: Clients) -> Result:
        """Connect, ping, wait for the acknowledgement."""
        try:
            async with (
                asyncio.timeout(self.timeout),
                connection(self.address, self.timeout, self.tls, ("h2",)) as (reader, writer),
            ):
                http2 = Http2Connection(reader, writer)
                http2.protocol.ping(PAYLOAD)
                await http2.flush()
                async for event in http2.events():
                    if isinstance(event, h2.events.PingAckReceived) and event.ping_data == PAYLOAD:
                        http2.protocol.close_connection()
                        await http2.flush()
                        return passing("HTTP2 ping was successful")
        except ConnectError as error:
            return critical(f"Failed to dial to {self.address}: {error}")
        except Http2Error as error:
            return critical(f"HTTP2 ping failed: {error}")
        except TimeoutError:
            pass
        return critical("HTTP2 ping failed: context deadline exceeded")
