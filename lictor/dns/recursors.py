"""Questions of other domains: asked of the configured recursors, one after the other until one has an answer.

A client's request goes on as it came, under an id of its own. What comes back is believed only from the address that
was asked, under that id and with that question (RFC 5452 section 9.1); each UDP exchange has a socket, and so a random
port, of its own. An answer with any code but NOERROR and NXDOMAIN passes the turn to the next.
"""

import asyncio
import contextlib
import secrets
import struct
from collections.abc import Sequence
from random import Random
from typing import cast

from dnslib import DNSRecord

from lictor.dns.message import AAAA, CNAME, HEADER, IN, NOERROR, NXDOMAIN, RD, TC, TXT, A, Record, fold, labels_of

MAX_RECORDS = 16
_MAX_ANSWER = 65535


class _Exchange(asyncio.DatagramProtocol):
    """One question over UDP; `answer` is done with what comes back for it."""

    def __init__(self, query: bytes) -> None:
        self.query = query
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.DatagramTransport, transport).sendto(self.query)  # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        if not self.answer.done() and answers(self.query, data):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionError("the socket was closed"))


def answers(query: bytes, data: bytes) -> bool:
    """Whether `data` is an answer to `query`, a packet with one question: the same id, the same question."""
    end = _question_end(query)
    return (
        len(data) >= end
        and data[:2] == query[:2]
        and data[2] & 0x80 != 0
        and data[4:6] == b"\x00\x01"
        and fold(data[HEADER:end]) == fold(query[HEADER:end])
    )


def _question_end(query: bytes) -> int:
    at = HEADER
    while query[at]:
        at += query[at] + 1
    return at + 5


class Recursors:
    """The recursors of a configuration. `addresses` are hosts and ports, `strategy` is `sequential` or `random`,
    `timeout` is in seconds for each of them.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], strategy: str, timeout: float, rng: Random) -> None:
        self._addresses = list(addresses)
        self._random = strategy == "random"
        self._timeout = timeout
        self._rng = rng
        self.asked = 0
        self.failed = 0

    async def ask(self, request: bytes, tcp: bool) -> bytes | None:
        """The first usable answer to a request, under the request's id; None where nobody has one. Over UDP it may be
        truncated, and says so.
        """
        addresses = list(self._addresses)
        if self._random:
            self._rng.shuffle(addresses)
        exchange = self._over_tcp if tcp else self._over_udp
        for address in addresses:
            query = secrets.token_bytes(2) + request[2:]
            self.asked += 1
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await exchange(query, address)
            except (OSError, EOFError):
                self.failed += 1
                continue
            if answers(query, answer) and answer[3] & 0x0F in (NOERROR, NXDOMAIN):
                return request[:2] + answer[2:]
            self.failed += 1
        return None

    async def records(self, host: str) -> tuple[Record, ...]:
        """What a host name stands for: its A records and the CNAMEs on the way; nothing where that is not to be had."""
        labels = labels_of(host)
        if labels is None:
            return ()
        name = b"".join([bytes((len(label),)) + label for label in labels])
        query = struct.pack("!6H", 0, RD, 1, 0, 0, 0) + name + struct.pack("!xHH", A, IN)
        answer = await self.ask(query, tcp=False)
        if answer is not None and answer[2] << 8 & TC:
            answer = await self.ask(query, tcp=True)
        return read_records(answer) if answer is not None else ()

    async def _over_udp(self, query: bytes, address: tuple[str, int]) -> bytes:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(lambda: _Exchange(query), remote_addr=address)
        try:
            return await protocol.answer
        finally:
            transport.close()

    async def _over_tcp(self, query: bytes, address: tuple[str, int]) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(len(query).to_bytes(2, "big") + query)
            size = int.from_bytes(await reader.readexactly(2), "big")
            return await reader.readexactly(min(size, _MAX_ANSWER))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def read_records(message: bytes) -> tuple[Record, ...]:
    """The records of another server's answer that may stand in ours; none where it cannot be read."""
    records: list[Record] = []
    try:
        for rr in DNSRecord.parse(message).rr[:MAX_RECORDS]:
            name = tuple(bytes(label) for label in rr.rname.label)
            if rr.rtype in (A, AAAA):
                records.append(Record(name, rr.rtype, rr.ttl, bytes(rr.rdata.data)))
            elif rr.rtype == CNAME:
                records.append(Record(name, CNAME, rr.ttl, b"", tuple(bytes(label) for label in rr.rdata.label.label)))
            elif rr.rtype == TXT:
                data = b"".join(bytes((len(text),)) + bytes(text) for text in rr.rdata.data)
                records.append(Record(name, TXT, rr.ttl, data))
    except Exception:  # whatever the library makes of a message that is not one
        return ()
    return tuple(records)
