"""TCP check: passing when a connection (with TLS, when asked for: a handshake) can be made."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import DEFAULT_TIMEOUT, ConnectError, TlsSettings, connection
from lictor.agent.checks.result import Lane, Result, critical, passing


class TcpCheck(msgspec.Struct, frozen=True):
    """`address` is host:port; `tls` None connects in the clear; `timeout` is seconds for the whole attempt."""

    lane: ClassVar[Lane] = Lane.NETWORK

    address: str
    tls: TlsSettings | None = None
    timeout: float = DEFAULT_TIMEOUT

    async def probe(self, clients: Clients) -> Result:
        """Connect, and close."""
        try:
            async with connection(self.address, self.timeout, self.tls):
                kind = "TCP" if self.tls is None else "TCP+TLS"
                return passing(f"{kind} connect {self.address}: Success")
        except ConnectError as error:
            return critical(str(error))
