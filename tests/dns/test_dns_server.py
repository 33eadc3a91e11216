"""The DNS door on real sockets: UDP, TCP, recursors, and what a client that misbehaves gets."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from dnslib import RR, DNSRecord

from lictor.dns.recursors import answers, read_records
from lictor.dns.server import DnsServer
from lictor.dns.settings import DnsSettings
from lictor.model.command import Register
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.store.commands import apply
from lictor.store.store import Store
from tests.contract.dig import question
from tests.patience import PATIENCE
from tests.ports import free_port

Start = Callable[..., Any]


def make_store() -> Store:
    store = Store()
    for i in range(30):
        service = NodeService(id="many", service="many", port=80)
        apply(store, Register(Node(node=f"n{i}", address=f"10.0.0.{i + 1}"), service), 0)
    for i in range(3):
        apply(store, Register(Node(node=f"n{i}", address=f"10.0.0.{i + 1}"), NodeService(id="w", service="web")), 0)
    outside = NodeService(id="out", service="out", port=1, address="www.example.com")
    apply(store, Register(Node(node="n0", address="10.0.0.1"), outside), 0)
    store.flush()
    return store


@contextlib.asynccontextmanager
async def servers() -> AsyncIterator[Start]:
    """Starts servers on free ports of 127.0.0.1, and closes them."""
    started = []

    async def start(hosts: tuple[str, ...] = ("127.0.0.1",), **settings: Any) -> DnsServer:
        server = DnsServer(make_store(), DnsSettings("here", **settings))
        started.append(server)
        await server.start([(host, 0) for host in hosts])
        return server

    yield start
    for server in started:
        await server.close()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with servers() as start:
        yield start


class _Client(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        self.received.put_nowait(data)


async def over_udp(address: tuple[str, int], *packets: bytes) -> list[bytes]:
    """Sends packets and waits for as many answers."""
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(_Client, remote_addr=address)
    try:
        for packet in packets:
            transport.sendto(packet)
        async with asyncio.timeout(PATIENCE):
            return [await client.received.get() for _ in packets]
    finally:
        transport.close()


async def over_tcp(address: tuple[str, int], data: bytes, count: int) -> list[bytes]:
    """Sends framed packets and reads `count` framed answers."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(data)
            return [await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")) for _ in range(count)]
        finally:
            writer.close()


def pack(name: str, kind: str = "A", number: int = 1, edns: int | None = None) -> bytes:
    message = question(name, kind, edns)
    message.header.id = number
    return bytes(message.pack())


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2, "big") + packet


def found(data: bytes) -> list[str]:
    return sorted(str(rr.rdata) for rr in DNSRecord.parse(data).rr)


WEB = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


async def test_udp_and_tcp_share_a_port(start: Start) -> None:
    server = await start()
    address = server.bound[0]
    for i in range(1, 5):
        data = pack("web.service.consul", number=i)
        for answer in (*await over_udp(address, data), *await over_tcp(address, framed(data), 1)):
            assert DNSRecord.parse(answer).header.id == i
            assert found(answer) == WEB
    counted = server.counters
    assert (counted["queries_udp"], counted["queries_tcp"], counted["noerror"]) == (4, 4, 8)
    assert counted["hits"] >= 4


async def test_an_answer_that_udp_truncates_is_whole_over_tcp(start: Start) -> None:
    server = await start(enable_truncate=True)
    packet = pack("many.service.consul")
    (cut,) = await over_udp(server.bound[0], packet)
    assert DNSRecord.parse(cut).header.tc == 1
    assert len(found(cut)) == 3
    (whole,) = await over_tcp(server.bound[0], framed(packet), 1)
    assert DNSRecord.parse(whole).header.tc == 0
    assert len(found(whole)) == 30


async def test_several_addresses_are_served(start: Start) -> None:
    server = await start(("127.0.0.1", "127.0.0.2"))
    for address in server.bound:
        assert found((await over_udp(address, pack("web.service.consul")))[0]) == WEB


async def test_a_server_on_every_address_answers_from_the_one_that_was_asked(start: Start) -> None:
    server = await start(("0.0.0.0",))
    port = server.bound[0][1]
    for host in ("127.0.0.1", "127.0.0.3"):
        for number in range(1, 5):
            # A connected socket takes answers from the address it is connected to alone.
            (answer,) = await over_udp((host, port), pack("web.service.consul", number=number))
            assert found(answer) == WEB


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
async def test_ipv6_addresses_are_served_and_all_of_them_include_ipv4(start: Start) -> None:
    server = await start(("::1",))
    assert found((await over_udp(("::1", server.bound[0][1]), pack("web.service.consul")))[0]) == WEB
    server = await start(("::",))
    for host in ("::1", "127.0.0.1", "127.0.0.2"):
        for number in range(1, 4):
            packet = pack("web.service.consul", number=number)
            assert found((await over_udp((host, server.bound[0][1]), packet))[0]) == WEB
            assert found((await over_tcp((host, server.bound[0][1]), framed(packet), 1))[0]) == WEB


async def test_a_fault_of_ours_costs_one_answer(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await start()
    # A store that cannot be read stands for whatever nobody has thought of.
    with monkeypatch.context() as patch:
        patch.setattr(server.responder, "_store", None)
        (answer,) = await over_udp(server.bound[0], pack("web.service.consul"))
        assert DNSRecord.parse(answer).header.rcode == 2
    assert server.counters["unexpected"] == 1
    assert found((await over_udp(server.bound[0], pack("web.service.consul")))[0]) == WEB


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        server = DnsServer(make_store(), DnsSettings("here"))
        with pytest.raises(OSError, match=f"DNS cannot listen on 127.0.0.1 port {port}"):
            await server.start([("127.0.0.1", port)])
        assert server.bound == []


async def test_a_connection_takes_many_requests_in_any_pieces(start: Start) -> None:
    server = await start()
    packets = [pack(name, number=i + 1) for i, name in enumerate(("web.service.consul", "n1.node.consul") * 40)]
    stream = b"".join(framed(packet) for packet in packets)
    reader, writer = await asyncio.open_connection(*server.bound[0])
    for at in range(0, len(stream), 17):
        writer.write(stream[at : at + 17])
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        for i in range(len(packets)):
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            assert DNSRecord.parse(answer).header.id == i + 1
    writer.close()


async def test_a_silent_connection_is_closed(start: Start) -> None:
    server = await start(tcp_idle_timeout=0.05)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(*server.bound[0])
        assert await _end(reader) == b""
        writer.close()


async def test_a_connection_that_sends_no_request_is_closed(start: Start) -> None:
    server = await start()
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(*server.bound[0])
        writer.write(b"\x00\x03abc")
        assert await _end(reader) == b""
        writer.close()
    assert found((await over_udp(server.bound[0], pack("web.service.consul")))[0]) == WEB


async def test_connections_past_the_limit_are_refused(start: Start) -> None:
    server = await start(tcp_max_connections=2)
    async with asyncio.timeout(PATIENCE):
        kept = [await asyncio.open_connection(*server.bound[0]) for _ in range(2)]
        while len(server.connections) < 2:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.bound[0])
        assert await _end(reader) == b""
        for _, other in (*kept, (reader, writer)):
            other.close()
    assert server.counters["refused_connections"] == 1


async def _end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_settings_are_reloaded_while_serving(start: Start) -> None:
    server = await start()
    packet = pack("web.service.consul")
    for _ in range(3):
        await over_udp(server.bound[0], packet)
    server.reload(DnsSettings("here", service_ttl={"web": 44}))
    (answer,) = await over_udp(server.bound[0], packet)
    assert DNSRecord.parse(answer).rr[0].ttl == 44


class Upstream:
    """Another DNS server: UDP and TCP on one port, with an answer made by a function; None: it stays silent."""

    def __init__(self, answer: Callable[[bytes, bool], bytes | None]) -> None:
        self.answer = answer
        self.asked: list[tuple[bytes, bool]] = []
        self.address = ("127.0.0.1", 0)

    async def __aenter__(self) -> "Upstream":
        self.address = ("127.0.0.1", free_port())
        self.tcp = await asyncio.start_server(self._serve, *self.address)
        upstream = self

        class Udp(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: Any) -> None:
                upstream.asked.append((data, False))
                answer = upstream.answer(data, False)
                if answer is not None:
                    self.transport.sendto(answer, addr)  # type: ignore[attr-defined]

        loop = asyncio.get_running_loop()
        self.udp, _ = await loop.create_datagram_endpoint(Udp, local_addr=self.address)
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            self.asked.append((data, True))
            answer = self.answer(data, True)
            if answer is not None:
                writer.write(framed(answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def __aexit__(self, *_: object) -> None:
        self.udp.close()
        self.tcp.close()
        await self.tcp.wait_closed()


def zone_answer(query: bytes, zone: str, rcode: int = 0, tc: int = 0) -> bytes:
    reply = DNSRecord.parse(query).reply()
    for rr in RR.fromZone(zone):
        reply.add_answer(rr)
    reply.header.rcode = rcode
    reply.header.tc = tc
    return bytes(reply.pack())


EXAMPLE = "www.example.com. 60 IN CNAME real.example.com.\nreal.example.com. 60 IN A 192.0.2.7"


async def test_other_domains_are_asked_of_the_recursors_in_turn(start: Start) -> None:
    async with (
        Upstream(lambda query, tcp: None) as silent,
        Upstream(lambda query, tcp: zone_answer(query, "", rcode=5)) as refusing,
        Upstream(lambda query, tcp: zone_answer(query, EXAMPLE)) as working,
    ):
        addresses = (silent.address, refusing.address, working.address)
        for seconds in (0.2, 5.0, 30.0):  # where the machine stands still, also who answers seems to be silent
            for each in (silent, refusing, working):
                each.asked.clear()
            server = await start(recursors=addresses, recursor_timeout=seconds)
            (answer,) = await over_udp(server.bound[0], pack("www.example.com", number=77))
            if found(answer):
                break
        assert DNSRecord.parse(answer).header.id == 77
        assert found(answer) == ["192.0.2.7", "real.example.com."]
        assert [len(each.asked) for each in (silent, refusing, working)] == [1, 1, 1]
        (answer,) = await over_tcp(server.bound[0], framed(pack("www.example.com")), 1)
        assert found(answer) == ["192.0.2.7", "real.example.com."]
        assert working.asked[-1][1]


async def test_without_an_answer_from_any_recursor_the_question_fails(start: Start) -> None:
    def forged(query: bytes, tcp: bool) -> bytes:
        return zone_answer(pack("other.example.com"), EXAMPLE)  # another id, another question

    async with Upstream(forged) as upstream:
        server = await start(recursors=(upstream.address,), recursor_timeout=0.1)
        (answer,) = await over_udp(server.bound[0], pack("www.example.com"))
        assert DNSRecord.parse(answer).header.rcode == 2
        assert DNSRecord.parse(answer).header.ra == 1


async def test_a_host_name_is_followed_over_tcp_when_the_answer_is_truncated(start: Start) -> None:
    def answer(query: bytes, tcp: bool) -> bytes:
        return zone_answer(query, EXAMPLE) if tcp else zone_answer(query, "", tc=1)

    async with Upstream(answer) as upstream:
        server = await start(recursors=(upstream.address,), recursor_timeout=PATIENCE)
        for _ in range(3):
            (data,) = await over_udp(server.bound[0], pack("out.service.consul"))
            assert found(data) == ["192.0.2.7", "real.example.com.", "www.example.com."]
        assert [tcp for _, tcp in upstream.asked[:2]] == [False, True]


async def test_a_reverse_lookup_that_is_not_ours_is_asked_of_the_recursors(start: Start) -> None:
    def answer(query: bytes, tcp: bool) -> bytes:
        return zone_answer(query, "9.9.9.10.in-addr.arpa. 60 IN PTR nine.example.com.")

    async with Upstream(answer) as upstream:
        server = await start(recursors=(upstream.address,), recursor_timeout=PATIENCE)
        (data,) = await over_udp(server.bound[0], pack("9.9.9.10.in-addr.arpa", "PTR"))
        assert found(data) == ["nine.example.com."]
        (data,) = await over_udp(server.bound[0], pack("1.0.0.10.in-addr.arpa", "PTR"))
        assert found(data) == ["n0.node.dc1.consul."]


def test_only_an_answer_to_the_question_is_one() -> None:
    query = pack("www.example.com")
    right = zone_answer(query, EXAMPLE)
    assert answers(query, right)
    assert answers(query, right.replace(b"www", b"WwW", 1))
    assert not answers(query, b"\x00\x09" + right[2:])
    assert not answers(query, query)
    assert not answers(query, right[:20])
    assert not answers(query, zone_answer(pack("xxx.example.com"), EXAMPLE))


def test_records_of_a_damaged_message_are_none() -> None:
    right = zone_answer(pack("www.example.com"), EXAMPLE)
    assert len(read_records(right)) == 2
    for at in range(len(right)):
        read_records(right[:at])
        read_records(right[:at] + b"\xc0\x0c" + right[at + 2 :])
    assert read_records(b"") == ()


@pytest.mark.skipif(shutil.which("dig") is None, reason="dig is not installed")
async def test_dig_reads_the_answers(start: Start) -> None:
    server = await start(enable_truncate=True)
    host, port = server.bound[0]

    async def dig(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "dig", f"@{host}", "-p", str(port), *arguments, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0
        return output.decode()

    assert sorted((await dig("+short", "web.service.consul")).split()) == WEB
    # Without EDNS the answer is truncated, and dig asks again over TCP.
    assert len((await dig("+short", "+noedns", "many.service.consul")).split()) == 30
    assert "status: NXDOMAIN" in await dig("nope.service.consul")
    assert "status: REFUSED" in await dig("example.com")
    assert "malformed" not in await dig("many.service.consul", "SRV", "+bufsize=4096")
    assert "CLIENT-SUBNET: 192.0.2.0/24/0" in await dig("web.service.consul", "+subnet=192.0.2.0/24")
    assert "n2.node.dc1.consul." in await dig("-x", "10.0.0.3")


@pytest.mark.parametrize(
    "test",
    [
        test_udp_and_tcp_share_a_port,
        test_a_server_on_every_address_answers_from_the_one_that_was_asked,
        test_a_connection_takes_many_requests_in_any_pieces,
        test_a_silent_connection_is_closed,
        test_a_connection_that_sends_no_request_is_closed,
        test_connections_past_the_limit_are_refused,
        test_other_domains_are_asked_of_the_recursors_in_turn,
        test_a_host_name_is_followed_over_tcp_when_the_answer_is_truncated,
    ],
)
def test_it_is_the_same_on_the_loop_that_agents_run_on(test: Callable[[Start], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with servers() as start:
            await test(start)

    pytest.importorskip("uvloop").run(run())
