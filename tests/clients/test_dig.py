"""The lookups that Consul's documentation shows, made with `dig`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.clients.programs import needed
from tests.contract.servers import NODE, Server
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def services(agent: Server) -> Iterator[Server]:
    """The agent with services on it, and on another node."""
    needed("dig", "Debian's package bind9-dnsutils")
    for body in (
        {"Node": "six", "Address": "2001:db8:1:2:cafe::1337", "Service": {"Service": "six", "Port": 6}},
        {"Node": "foobar", "Address": "10.1.10.12", "Service": {"Service": "redis", "Tags": ["primary"], "Port": 8000}},
        {
            "Node": "foobar",
            "Address": "10.1.10.12",
            "Service": {"Service": "rabbitmq", "Tags": ["amqp"], "Port": 5672, "Address": "198.18.0.7"},
        },
        {"Node": "legacy", "Address": "example.com", "Service": {"Service": "elsewhere", "Port": 443}},
    ):
        assert agent.api.put("/v1/catalog/register", body).status == 200
    for number in range(40):
        service = {"Service": "many", "ID": f"many-{number}", "Address": f"10.7.0.{number + 1}", "Port": 7000 + number}
        agent.api.put("/v1/catalog/register", {"Node": "foobar", "Address": "10.1.10.12", "Service": service})
    meta = {"instance_type": "t2", "rfc1035-x": "as it is"}
    proxy = {"Service": "web-proxy", "Kind": "connect-proxy", "Port": 21000, "Proxy": {"DestinationServiceName": "web"}}
    body = {"Node": "foobar", "Address": "10.1.10.12", "NodeMeta": meta, "Service": proxy}
    assert agent.api.put("/v1/catalog/register", body).status == 200
    query = {"Name": "find-redis", "Service": {"Service": "redis"}, "DNS": {"TTL": "9s"}}
    assert agent.api.post("/v1/query", query).status == 200
    yield agent


def dig(server: Server, *arguments: str) -> str:
    """What dig prints."""
    command = ["dig", "@127.0.0.1", "-p", str(server.ports["dns"]), "+time=30", "+tries=4", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "malformed" not in done.stdout.lower(), done.stdout
    return done.stdout


def short(server: Server, *arguments: str) -> list[str]:
    """The answers alone, sorted."""
    return sorted(dig(server, "+short", *arguments).split("\n"))[1:]


def status(server: Server, *arguments: str) -> str:
    """The answer's status and section sizes, as dig tells them."""
    lines = dig(server, *arguments).splitlines()
    header = next(line for line in lines if "status:" in line)
    return header.split("status: ")[1].split(",")[0]


def test_node_lookups(services: Server) -> None:
    assert short(services, "foobar.node.consul") == ["10.1.10.12"]
    assert short(services, "foobar.node.dc1.consul", "A") == ["10.1.10.12"]
    assert short(services, "FooBar.Node.Consul", "A") == ["10.1.10.12"]
    assert short(services, "six.node.consul", "AAAA") == ["2001:db8:1:2:cafe::1337"]
    assert short(services, f"{NODE}.node.consul") == ["127.0.0.1"]
    assert short(services, "foobar.node.consul", "TXT") == ['"as it is"', '"instance_type=t2"']
    assert "instance_type=t2" in dig(services, "foobar.node.consul", "ANY")
    assert status(services, "nobody.node.consul") == "NXDOMAIN"
    assert status(services, "six.node.consul", "A") == "NOERROR"


def test_service_lookups(services: Server) -> None:
    assert short(services, "redis.service.consul") == ["10.1.10.12"]
    assert short(services, "primary.redis.service.dc1.consul") == ["10.1.10.12"]
    assert status(services, "secondary.redis.service.consul") == "NXDOMAIN"
    assert short(services, "redis.service.consul", "SRV") == ["1 1 8000 foobar.node.dc1.consul."]
    answer = dig(services, "redis.service.consul", "SRV")
    assert "ADDITIONAL SECTION" in answer and "foobar.node.dc1.consul.\t0\tIN\tA\t10.1.10.12" in answer
    assert short(services, "_rabbitmq._amqp.service.consul", "SRV") == ["1 1 5672 c6120007.addr.dc1.consul."]
    assert short(services, "_redis._tcp.service.consul", "SRV") == ["1 1 8000 foobar.node.dc1.consul."]
    assert short(services, "c6120007.addr.dc1.consul") == ["198.18.0.7"]
    assert short(services, "rabbitmq.service.consul") == ["198.18.0.7"]
    assert short(services, "consul.service.consul") == ["127.0.0.1"]
    assert short(services, "six.service.consul", "AAAA") == ["2001:db8:1:2:cafe::1337"]
    assert short(services, "elsewhere.service.consul", "CNAME") == ["example.com."]


def test_connect_prepared_query_and_reverse_lookups(services: Server) -> None:
    assert short(services, "web.connect.consul") == ["10.1.10.12"]
    assert short(services, "web.connect.consul", "SRV") == ["1 1 21000 foobar.node.dc1.consul."]
    assert short(services, "find-redis.query.consul") == ["10.1.10.12"]
    assert " 9 IN A 10.1.10.12" in " ".join(dig(services, "find-redis.query.consul").split())
    assert short(services, "-x", "10.1.10.12") == ["foobar.node.dc1.consul."]
    assert short(services, "-x", "2001:db8:1:2:cafe::1337") == ["six.node.dc1.consul."]


def test_authority(services: Server) -> None:
    (soa,) = short(services, "consul", "SOA")
    assert soa.startswith("ns.consul. hostmaster.consul. ")
    assert short(services, "consul", "NS") == [f"{NODE}.node.dc1.consul."]
    assert "AUTHORITY SECTION" in dig(services, "nobody.service.consul")
    assert status(services, "www.example.com") == "REFUSED"


def test_long_answers_are_cut_and_whole_over_tcp(services: Server) -> None:
    cut = dig(services, "+notcp", "+ignore", "+noedns", "many.service.consul", "SRV")
    assert " tc" in cut.split("flags:")[1].split(";")[0] or cut.count("IN\tSRV") < 40
    assert len(short(services, "+tcp", "many.service.consul")) == 40
    assert len(short(services, "+tcp", "many.service.consul", "SRV")) == 40
    assert 0 < len(short(services, "+notcp", "+ignore", "+bufsize=4096", "many.service.consul")) <= 40
    assert "CLIENT-SUBNET: 198.51.100.0/24" in dig(services, "+subnet=198.51.100.0/24", "redis.service.consul")
