"""The admin listener: `/metrics` for Prometheus, `/ready` for whoever waits until the proxy serves. Loopback only.

It answers one request a connection, and reads no more than its head.
"""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import cast

LONGEST = 8192  # bytes of a request's head
PATIENCE = 10.0  # seconds for it to come

Answer = Callable[[], tuple[int, str]]
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


def loopback(host: str) -> bool:
    """Whether an address is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Admin(asyncio.Protocol):
    """One connection. `pages` are what there is to be seen, by path."""

    def __init__(self, pages: dict[str, Answer], loop: asyncio.AbstractEventLoop) -> None:
        self._pages = pages
        self._loop = loop
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._late = self._loop.call_later(PATIENCE, self._transport.abort)

    def connection_lost(self, error: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._head += data
        if len(self._head) > LONGEST:
            self._answer(400, "the request's head is too long\n")
        elif b"\r\n\r\n" in self._head:
            words = self._head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            if len(words) != 3:
                self._answer(400, "this is no request of HTTP\n")
            elif words[0] != "GET":
                self._answer(405, "only GET\n")
            else:
                page = self._pages.get(words[1].partition("?")[0])
                self._answer(*(page() if page is not None else (404, "there are /metrics and /ready\n")))

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        head = (
            f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        assert self._transport is not None
        self._transport.write(head.encode() + body)
        self._transport.close()
