"""A load of etcd puts over gRPC, the interface that its own clients use, in place of the JSON gateway's.

One request at a time on each connection, as with the HTTP loads. It speaks just as much of HTTP/2 (RFC 9113) and gRPC
as a put needs; header fields are literals, which need no table.
"""

import asyncio
import time
from functools import partial
from typing import cast

import uvloop

from bench.harness import Visit

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_HEADER = 9  # bytes of a frame's header
_SETTLE_AT = 16384  # bytes received, after which the other side may send as many more


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def _literal(name: bytes, value: bytes) -> bytes:
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


_FIELDS = b"\x83\x86" + b"".join(
    [
        _literal(b":path", b"/etcdserverpb.KV/Put"),
        _literal(b":authority", b"127.0.0.1"),
        _literal(b"content-type", b"application/grpc"),
        _literal(b"te", b"trailers"),
    ]
)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _put(stream: int, key: bytes, value: bytes) -> bytes:
    message = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value
    data = b"\0" + len(message).to_bytes(4, "big") + message
    return _frame(_HEADERS, _END_HEADERS, stream, _FIELDS) + _frame(_DATA, _END_STREAM, stream, data)


class _Client(asyncio.Protocol):
    """One connection, which puts a new key as soon as the last was acknowledged, until `until`."""

    def __init__(self, prefix: bytes, value: bytes, until: float) -> None:
        self._prefix = prefix
        self._value = value
        self._until = until
        self._stream = 1
        self._number = 0
        self._buffer = b""
        self._unsettled = 0
        self._answered = False
        self._sent = 0.0
        self.times: list[float] = []
        self.bad = 0
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """The put that was under way has failed, unless all are done."""
        if not self.over.done():
            self.bad += 1
            self.over.set_result(None)

    def _next(self) -> None:
        self._sent = time.perf_counter()
        if self._sent >= self._until:
            self.over.set_result(None)
            self._transport.close()
            return
        self._number += 1
        self._transport.write(_put(self._stream, self._prefix + b"%08d" % self._number, self._value))

    def data_received(self, data: bytes) -> None:
        """Take the frames that are whole."""
        data = self._buffer + data
        at = 0
        while len(data) - at >= _HEADER:
            end = at + _HEADER + int.from_bytes(data[at : at + 3], "big")
            if len(data) < end:
                break
            stream = int.from_bytes(data[at + 5 : at + _HEADER], "big")
            self._take(data[at + 3], data[at + 4], stream, data[at + _HEADER : end])
            at = end
        self._buffer = data[at:]

    def _take(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._transport.write(_frame(kind, _ACK, 0, body if kind == _PING else b""))
        elif kind == _GOAWAY:
            self._transport.close()
        elif stream == self._stream:
            if kind == _DATA:
                self._answered = True
                self._unsettled += len(body)
                if self._unsettled >= _SETTLE_AT:
                    self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, self._unsettled.to_bytes(4, "big")))
                    self._unsettled = 0
            if kind == _RESET or flags & _END_STREAM and kind in (_DATA, _HEADERS):
                self._end()

    def _end(self) -> None:
        # What failed is answered with header fields alone.
        if self._answered:
            self.times.append(time.perf_counter() - self._sent)
        else:
            self.bad += 1
        self._answered = False
        self._stream += 2
        self._next()


def _itself(client: _Client) -> _Client:
    return client


async def _load(ports: list[int], value: bytes, seconds: float, connections: int) -> Visit:
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients: list[_Client] = []
    for number in range(connections):
        client = _Client(b"%d/%d/" % (time.time_ns(), number), value, started + seconds)
        clients.append(client)
        await loop.create_connection(partial(_itself, client), "127.0.0.1", ports[number % len(ports)])
    await asyncio.gather(*(client.over for client in clients))
    took = time.perf_counter() - started
    times = sorted(t for client in clients for t in client.times)
    bad = sum(client.bad for client in clients)
    if not times:
        return Visit(0, 0.0, bad)
    p50, p99 = times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3
    return Visit(len(times), len(times) / took, bad, p50, p99)


def load(ports: list[int], value: bytes, seconds: float, connections: int) -> Visit:
    """Put new keys for some seconds, over connections spread evenly over the servers at these ports."""
    return uvloop.run(_load(ports, value, seconds, connections))
