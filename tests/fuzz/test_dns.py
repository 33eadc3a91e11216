"""The DNS door, given packets that nobody sane sends: it answers or is silent, stays within sizes, and goes on."""

import asyncio
import contextlib
import os
import struct
import time
from collections.abc import AsyncIterator
from random import Random

import pytest

from lictor.dns.responder import Responder, Wanted
from lictor.dns.server import DnsServer
from lictor.dns.settings import MAX_TTL, DnsSettings
from lictor.model.check import Check
from lictor.model.command import QuerySet, Register
from lictor.model.errors import LictorError
from lictor.model.ids import new_id
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery, QueryDNS, ServiceQuery
from lictor.model.service import ConnectProxyConfig, NodeService, ServiceAddress, Weights
from lictor.store.commands import apply
from lictor.store.store import Store
from tests.dns.test_dns_server import servers
from tests.fuzz import nasty
from tests.patience import PATIENCE

SECONDS = float(os.environ.get("LICTOR_FUZZ_SECONDS", "0.5"))
SEED = int(os.environ.get("LICTOR_FUZZ_SEED", "1"))

NAMES = (
    "web.service.consul",
    "many.service.consul",
    "_many._tcp.service.consul",
    "a.many.service.here.consul",
    "n1.node.consul",
    "0a000001.addr.here.consul",
    "q.query.consul",
    "web.connect.consul",
    "1.0.0.10.in-addr.arpa",
    "out.service.consul",
    "www.example.com",
    "consul",
    ".",
    "x" * 63 + ".service.consul",
    ".".join(["a"] * 110) + ".consul",
)


def question(name: str, kind: int, edns: int | None = None) -> bytes:
    """A request for a name; `edns` is the size in bytes that its OPT record offers."""
    labels = [label.encode() for label in name.split(".") if label]
    packed = b"".join(bytes((len(label),)) + label for label in labels) + b"\x00" + struct.pack("!HH", kind, 1)
    header = b"\x00\x01" + struct.pack("!5H", 0x0100, 1, 0, 0, edns is not None)
    return header + packed + (b"\x00" + struct.pack("!HHIH", 41, edns, 0, 0) if edns is not None else b"")


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    """A server with thirty instances of a service and no recursors."""
    async with servers() as start:
        yield await start()


def spoiled(rng: Random) -> bytes:
    """A packet: a good one, with some of its bytes, counts or length changed; or anything at all."""
    kind = rng.randrange(12)
    if kind == 0:
        return rng.randbytes(rng.choice((0, 1, 2, 11, 12, 13, 17, 30, 600, 4096)))
    name = rng.choice(NAMES)
    size = rng.choice((None, None, 0, 100, 512, 1232, 4096, 65535))
    kinds = (1, 2, 5, 6, 12, 16, 28, 33, 41, 251, 252, 255, 0, 65535)
    packet = bytearray(question(name, rng.choice(kinds), size))
    if kind < 4:
        return bytes(packet)
    for _ in range(rng.choice((1, 1, 2, 5))):
        how = rng.randrange(6)
        if how == 0 and len(packet) > 2:
            packet[rng.randrange(2, len(packet))] = rng.choice((0, 1, 0x3F, 0x40, 0x80, 0xC0, 0xFF, rng.randrange(256)))
        elif how == 1:
            del packet[rng.randrange(len(packet) + 1) :]
        elif how == 2:
            packet += rng.randbytes(rng.choice((1, 5, 300)))
        elif how == 3 and len(packet) >= 12:
            struct.pack_into("!H", packet, rng.choice((2, 4, 6, 8, 10)), rng.choice((0, 1, 2, 255, 65535)))
        elif how == 4 and len(packet) > 14:
            at = rng.randrange(12, len(packet) - 1)
            packet[at : at + 2] = struct.pack("!H", 0xC000 | rng.randrange(0, 64))
        else:
            packet += b"\x00" + struct.pack("!HHIH", 41, 1232, 0, 8) + rng.randbytes(8)
    return bytes(packet)


class Client(asyncio.DatagramProtocol):
    """Gathers what comes back."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        self.answers.append(data)


def skip_name(data: bytes, at: int) -> int:
    """Where the name at `at` ends; fails where a label or a pointer leads nowhere."""
    start = at
    while data[at]:
        if data[at] >= 0xC0:
            target = (data[at] & 0x3F) << 8 | data[at + 1]
            assert 12 <= target < start, "a pointer must lead back"
            skip_name(data, target)
            return at + 2
        assert data[at] < 64
        at += data[at] + 1
    return at + 1


def walk(data: bytes) -> list[tuple[int, int]]:
    """Type and class of every record after the question; fails unless they fill the message to its last byte."""
    questions, *counts = struct.unpack_from("!4H", data, 4)
    at = 12
    for _ in range(questions):
        at = skip_name(data, at) + 4
    found = []
    for _ in range(sum(counts)):
        at = skip_name(data, at)
        kind, klass, _, size = struct.unpack_from("!HHIH", data, at)
        at += 10 + size
        found.append((kind, klass))
    assert at == len(data), "records do not end where the message ends"
    return found


def offered(packet: bytes) -> int:
    """Bytes that an answer to a packet over UDP may have: 512, or what its OPT record offers."""
    try:
        sizes = [klass for kind, klass in walk(packet) if kind == 41]
    except (AssertionError, IndexError, struct.error):
        return 65535
    return max([512, *sizes])


async def test_packets_of_any_kind_over_udp(server: DnsServer) -> None:
    rng = Random(SEED)
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(Client, remote_addr=server.bound[0])
    end = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < end:
        sent: dict[bytes, bytes] = {}
        for _ in range(20):
            number = (number + 1) % 65536
            mark = struct.pack("!H", number)
            packet = spoiled(rng)
            if len(packet) >= 2:
                packet = mark + packet[2:]
                sent[mark] = packet
            transport.sendto(packet)
        last = struct.pack("!H", 0) + question("web.service.consul", 1)[2:]
        transport.sendto(last)
        async with asyncio.timeout(PATIENCE):
            while not any(answer[:2] == last[:2] for answer in client.answers):
                await asyncio.sleep(0.0005)
        for answer in client.answers:
            if answer[:2] in sent:
                packet = sent[answer[:2]]
                assert len(answer) >= 12 and answer[2] & 0x80, f"{answer!r} to {packet!r}"
                assert len(answer) <= offered(packet), f"{len(answer)} bytes to {packet!r}"
                walk(answer)
        client.answers.clear()
    transport.close()
    assert server.unexpected == 0


async def test_streams_of_any_kind_over_tcp(server: DnsServer) -> None:
    rng = Random(SEED)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        packets = [spoiled(rng) for _ in range(rng.randrange(1, 12))]
        stream = b"".join(len(p).to_bytes(2, "big") + p for p in packets)
        if rng.random() < 0.3:
            stream = stream[: rng.randrange(len(stream) + 1)] + rng.randbytes(rng.choice((0, 3, 50)))
        reader, writer = await asyncio.open_connection(*server.bound[0])
        while stream:
            size = rng.choice((1, 2, 13, 100, len(stream)))
            writer.write(stream[:size])
            stream = stream[size:]
            await asyncio.sleep(0)
        with contextlib.suppress(OSError):  # the server may have ended it already
            writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            try:
                answered = await reader.read()
            except ConnectionError:
                answered = b""
        writer.close()
        while answered:
            size = answered[0] << 8 | answered[1]
            walk(answered[2 : 2 + size])
            answered = answered[2 + size :]
    assert server.unexpected == 0
    async with asyncio.timeout(PATIENCE):
        while server.connections:
            await asyncio.sleep(0.005)


async def test_names_that_nobody_asked_before_fill_nothing(server: DnsServer) -> None:
    """Random names are how resolvers are flooded: what is kept of them has a bound."""
    rng = Random(SEED)
    responder = server.responder
    for _ in range(12_000):
        label = "".join(rng.choices("abcdefghij", k=20))
        packet = question(f"{label}.{rng.choice(('service', 'node', 'query'))}.consul", rng.choice((1, 28, 33)))
        for _ in range(2):
            responder.respond(packet, "127.0.0.1", False)
    assert sum(cache.size for cache in responder.caches) <= server.settings.cache_size
    assert len(responder.missing.answers) * 400 <= server.settings.cache_size
    assert len(responder._once) + len(responder._once_before) <= 20_000


async def test_who_is_no_client_of_ours_is_refused(server: DnsServer) -> None:
    """Without recursors nothing outside the domain is answered, and a refusal is no longer than its question."""
    for name in ("example.com", "www.google.com", "isc.org", "consul.example.com"):
        for kind in (1, 16, 255):
            packet = question(name, kind, edns=4096)
            answer = server.responder.respond(packet, "192.0.2.1", False)
            assert isinstance(answer, bytes)
            assert answer[3] & 0x0F == 5
            assert len(answer) <= len(packet)


async def test_whatever_is_registered_can_be_asked_for() -> None:
    """The catalog takes what it is given; an answer about it may be empty, but it is an answer."""
    rng = Random(SEED)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        store = Store()
        texts = ("web", "db", "n1", "10.0.0.1", "2001:db8::1", "www.example.com", "a.b", *nasty.TEXTS)
        numbers = (0, 80, 65535, *nasty.NUMBERS)
        names = []
        for _ in range(8):
            node, service = rng.choice(texts)[:400], rng.choice(texts)[:400]
            names += [node + ".node", service + ".service", f"_{service}._tcp.service", service + ".connect", service]
            names += [f"{service}.query", f"tag.{service}.service", service + ".ingress", service + ".virtual"]
            row = NodeService(
                kind=rng.choice(("", "connect-proxy", "ingress-gateway")),
                id=rng.choice(texts)[:400],
                service=service,
                tags=("tag", rng.choice(texts)[:300]),
                address=rng.choice(texts)[:400],
                tagged_addresses={"lan": ServiceAddress(rng.choice(texts)[:300], rng.choice(numbers))},
                port=rng.choice(numbers),
                weights=Weights(rng.choice(numbers), rng.choice(numbers)),
                proxy=ConnectProxyConfig(destination_service_name=rng.choice(texts)[:300]),
            )
            meta = {rng.choice(texts)[:300]: rng.choice(texts)[:900] for _ in range(3)}
            address = rng.choice(texts)[:400]
            check = Check(node=node, check_id="c", status=rng.choice(("passing", "critical", "?")))
            with contextlib.suppress(LictorError):
                apply(store, Register(Node(node=node, address=address, meta=meta), row, (check,)), 0)
            ttl = rng.choice(("", "10s", "2000000h"))
            query = PreparedQuery(id=new_id(), name=service, service=ServiceQuery(service), dns=QueryDNS(ttl))
            with contextlib.suppress(LictorError):
                apply(store, QuerySet(query), 0)
        store.flush()
        ttl_set = rng.choice((0, 5, MAX_TTL))
        settings = DnsSettings("n1", node_ttl=ttl_set, service_ttl={"*": ttl_set})
        responder = Responder(store, settings, time.time, rng)
        for name in names:
            if any(len(label.encode()) > 63 for label in name.split(".")):
                continue
            packet = question(name + ".consul", rng.choice((1, 16, 28, 33, 255)), rng.choice((None, 1232)))
            if len(packet) > 300:
                continue
            answer = responder.respond(packet, "127.0.0.1", rng.random() < 0.3)
            if isinstance(answer, Wanted):
                answer = answer.give_up({}, {})
            assert isinstance(answer, bytes)
            walk(answer)
