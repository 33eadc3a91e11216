"""A TCP connection of the DNS door: requests with their length before them, any number, answered as they are ready
(RFC 7766).
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol, cast

from lictor.dns.message import HEADER
from lictor.dns.responder import Turns
from lictor.dns.udp import Handle

MAX_WAITING = 32  # requests of one connection that may wait for recursors before no more are read


class TcpDoor(Protocol):
    """What connections share: their limits, the answers that are ready, and where other requests go."""

    finished: Mapping[bytes, Turns]
    handle: Handle
    idle_timeout: float
    max_connections: int
    connections: set["TcpConnection"]
    closed: bool
    queries: int
    hits: int
    refused: int


class TcpConnection(asyncio.Protocol):
    """One client. It is closed when it is silent for `idle_timeout` seconds, and at once when there are too many."""

    def __init__(self, door: TcpDoor) -> None:
        self._door = door
        self._buffer = b""
        self._sender = ""
        self._waiting = 0
        self._choked = False
        self._ready: list[bytes] | None = None
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if self._door.closed:  # it was on its way when the server was closed
            transport.abort()
            return
        if len(self._door.connections) >= self._door.max_connections:
            self._door.refused += 1
            transport.abort()
            return
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._sender = peer[0] if isinstance(peer, tuple) else ""
        self._door.connections.add(self)
        self._last = asyncio.get_running_loop().time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._last = asyncio.get_running_loop().time()
        buffer = self._buffer + data if self._buffer else data
        at = 0
        ready: list[bytes] = []
        self._ready = ready
        while len(buffer) - at >= 2:
            size = buffer[at] << 8 | buffer[at + 1]
            if size < HEADER:
                self._transport.abort()  # no request, so the places of all that follow are lost
                return
            if len(buffer) - at - 2 < size:
                break
            self._request(buffer[at + 2 : at + 2 + size])
            at += 2 + size
        self._buffer = buffer[at:]
        self._ready = None
        if ready:
            self._transport.write(b"".join(ready))
        self._pace()

    def eof_received(self) -> bool:
        return self._waiting > 0  # what was asked before the end is still answered

    def pause_writing(self) -> None:
        self._choked = True
        self._pace()

    def resume_writing(self) -> None:
        self._choked = False
        self._pace()

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _request(self, data: bytes) -> None:
        door = self._door
        door.queries += 1
        answer = door.finished.get(data[2:])
        if answer is not None:
            door.hits += 1
            self._send(data[:2] + answer.take())
            return
        self._waiting += 1
        if not door.handle(data, self._sender, self._answered):
            self._waiting -= 1

    def _answered(self, answer: bytes) -> None:
        self._waiting -= 1
        self._send(answer)
        if self._ready is None:
            self._pace()

    def _send(self, answer: bytes) -> None:
        framed = len(answer).to_bytes(2, "big") + answer
        if self._ready is not None:
            self._ready.append(framed)
        elif self._transport is not None:
            self._transport.write(framed)

    def _pace(self) -> None:
        """Read on only while answers are taken and not too many are awaited."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._choked or self._waiting >= MAX_WAITING:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._last + self._door.idle_timeout - loop.time()
        if left <= 0 and self._transport is not None:
            self._transport.abort()
        else:
            self._timer = loop.call_later(max(left, 0.01), self._watch)
