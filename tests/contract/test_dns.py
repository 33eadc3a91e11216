"""DNS where a recording cannot say it: sizes, shuffling, transports, malformed messages."""

from __future__ import annotations

import random
import socket

import pytest
from dnslib import QTYPE, DNSRecord

from tests.contract import dig
from tests.contract.servers import Server
from tests.patience import PATIENCE, eventually

# More instances than fit in 512 bytes, and than the limit of a UDP answer.
INSTANCES = 40


def register(server: Server, name: str, count: int = INSTANCES) -> None:
    """A service with `count` instances on nodes of their own."""
    for number in range(count):
        node = {"Node": f"{name}-{number}", "Address": f"10.50.{number // 200}.{number % 200 + 1}"}
        server.api.put(
            "/v1/catalog/register", {**node, "Service": {"ID": name, "Service": name, "Port": 1000 + number}}
        )


def query(server: Server, name: str, kind: str = "A", edns: int | None = None, tcp: bool = False) -> dig.DnsAnswer:
    """An answer of the server."""
    return dig.ask(server.ports["dns"], dig.question(name, kind, edns), tcp)


def test_a_udp_answer_has_three_addresses(server: Server, name: str) -> None:
    """`udp_answer_limit` without EDNS0; no truncation bit, since `enable_truncate` is off."""
    register(server, name)
    answer = query(server, f"{name}.service.consul")
    assert len(answer.records("A")) == 3
    assert answer.message.header.tc == 0
    assert answer.size <= 512


def test_a_udp_answer_with_edns_is_limited_by_its_size(server: Server, name: str) -> None:
    """A client that says it takes more gets more, and never more bytes than it said."""
    register(server, name)
    for size in (600, 1232, 4096):
        answer = query(server, f"{name}.service.consul", "SRV", edns=size)
        assert answer.size <= size
        assert 0 < len(answer.records("SRV")) <= INSTANCES
    assert any(QTYPE[record.rtype] == "OPT" for record in answer.message.ar)


def test_tcp_brings_every_instance(server: Server, name: str) -> None:
    """With an address for each in the additional section."""
    register(server, name)
    addresses = query(server, f"{name}.service.consul", tcp=True)
    assert len(set(addresses.records("A"))) == INSTANCES
    services = query(server, f"{name}.service.consul", "SRV", tcp=True)
    assert len(set(services.records("SRV"))) == INSTANCES
    assert len([record for record in services.message.ar if QTYPE[record.rtype] == "A"]) == INSTANCES


def test_truncation_is_told_where_it_is_enabled(tuned: Server, name: str) -> None:
    """`enable_truncate` sets the bit, so that resolvers ask again by TCP."""
    register(tuned, name)
    answer = query(tuned, f"{name}.service.contract.example")
    assert len(answer.records("A")) == 2
    assert answer.message.header.tc == 1
    assert query(tuned, f"{name}.service.contract.example", tcp=True).message.header.tc == 0


def test_instances_come_in_random_order(server: Server, name: str) -> None:
    """So that clients that take the first share the load."""
    register(server, name, 8)
    firsts = {query(server, f"{name}.service.consul", tcp=True).records("A")[0] for _ in range(60)}
    assert len(firsts) > 3
    shown = {address for _ in range(60) for address in query(server, f"{name}.service.consul").records("A")}
    assert len(shown) == 8


def test_the_question_comes_back_as_it_was_asked(server: Server, name: str) -> None:
    """Letters keep their case, which resolvers use against forgery."""
    register(server, name, 1)
    mixed = f"{name.upper()}.SeRvIcE.cOnSuL"
    answer = query(server, mixed)
    assert str(answer.message.q.qname) == f"{mixed}."
    assert answer.records("A") == ["10.50.0.1"]
    assert str(answer.message.rr[0].rname) == f"{mixed}."


def test_names_in_the_answer_are_compressed(server: Server, name: str) -> None:
    """A long name costs two bytes when it comes again."""
    register(server, name, 3)
    answer = query(server, f"{name}.service.consul")
    bare = sum(len(f"{name}.service.consul") + 2 + 14 for _ in range(3))
    assert answer.size < bare + 40


def test_several_questions_over_one_connection(server: Server, name: str) -> None:
    """A TCP connection serves more than one."""
    register(server, name, 1)
    with socket.create_connection(("127.0.0.1", server.ports["dns"]), PATIENCE) as tcp:
        for _ in range(3):
            message = dig.question(f"{name}.service.consul")
            packed = message.pack()
            tcp.sendall(len(packed).to_bytes(2, "big") + packed)
            size = int.from_bytes(receive(tcp, 2), "big")
            answer = DNSRecord.parse(receive(tcp, size))
            assert answer.header.id == message.header.id
            assert [str(record.rdata) for record in answer.rr] == ["10.50.0.1"]


def receive(tcp: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes."""
    data = b""
    while len(data) < size:
        piece = tcp.recv(size - len(data))
        assert piece, "the connection was closed"
        data += piece
    return data


@pytest.mark.parametrize("seed", range(4))
def test_malformed_packets_do_not_stop_it(server: Server, seed: int) -> None:
    """Whatever comes, the next question is answered."""
    source = random.Random(seed)
    valid = dig.question("consul.service.consul", "SRV", edns=4096).pack()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(("127.0.0.1", server.ports["dns"]))
        for _ in range(100):
            changed = bytearray(valid)
            for _ in range(source.randint(1, 8)):
                changed[source.randrange(len(changed))] = source.randrange(256)
            udp.send(bytes(changed[: source.randint(0, len(changed))]))
    with socket.create_connection(("127.0.0.1", server.ports["dns"]), PATIENCE) as tcp:
        tcp.sendall(b"\xff\xff" + source.randbytes(50))
    assert query(server, "consul.service.consul").records("A") == ["127.0.0.1"]
    assert query(server, "consul.service.consul", tcp=True).records("A") == ["127.0.0.1"]


def test_recursion_is_refused_without_recursors(server: Server) -> None:
    """A name outside of the zone is not for this server."""
    answer = query(server, "example.com")
    assert answer.rcode == "REFUSED"
    assert answer.message.header.ra == 0


def test_a_change_is_visible_at_once(server: Server, name: str) -> None:
    """Registered is found, deregistered is gone: nothing is kept too long."""
    for _ in range(5):
        register(server, name, 1)
        assert query(server, f"{name}.service.consul").records("A") == ["10.50.0.1"]
        server.api.put("/v1/catalog/deregister", {"Node": f"{name}-0"})
        assert query(server, f"{name}.service.consul").rcode == "NXDOMAIN"


def test_an_agents_service_is_found(server: Server, name: str) -> None:
    """Registered with the agent, health and all."""
    definition = {"Name": name, "Port": 5, "Tags": ["t"], "Check": {"CheckID": name, "TTL": "1h"}}
    server.api.put("/v1/agent/service/register", definition)
    assert query(server, f"{name}.service.consul").rcode == "NXDOMAIN"
    server.api.put(f"/v1/agent/check/pass/{name}")
    found = eventually(lambda: query(server, f"t.{name}.service.consul", "SRV").records("SRV"), "the service is found")
    assert found == ["1 1 5 contract.node.dc1.consul."]


def test_a_prepared_query_answers(server: Server, name: str) -> None:
    """By its name and by its id, with its own TTL."""
    register(server, name, 2)
    body = {"Name": f"{name}-q", "Service": {"Service": name}, "DNS": {"TTL": "17s"}}
    query_id = server.api.post("/v1/query", body).json()["ID"]
    for asked in (f"{name}-q.query.consul", f"{query_id}.query.consul", f"{name}-q.query.dc1.consul"):
        answer = query(server, asked)
        assert len(answer.records("A")) == 2
        assert {record.ttl for record in answer.message.rr} == {17}
