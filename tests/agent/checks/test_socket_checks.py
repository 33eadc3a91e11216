"""TCP and UDP checks, and the connections that other types share."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import ConnectError, TlsSettings, split_address
from lictor.agent.checks.result import Result
from lictor.agent.checks.tcp import TcpCheck
from lictor.agent.checks.udp import UdpCheck
from tests.agent.checks.conftest import Certificates
from tests.agent.checks.listening import closed_port, in_time, listening, says_nothing
from tests.patience import PATIENCE


async def test_tcp_passes_when_somebody_listens(clients: Clients) -> None:
    async with listening(says_nothing) as address:
        assert await TcpCheck(address, timeout=PATIENCE).probe(clients) == Result(
            "passing", f"TCP connect {address}: Success"
        )


async def test_tcp_by_name(clients: Clients) -> None:
    async with listening(says_nothing) as address:
        named = address.replace("127.0.0.1", "localhost")
        assert await TcpCheck(named, timeout=PATIENCE).probe(clients) == Result(
            "passing", f"TCP connect {named}: Success"
        )


async def test_tcp_fails_when_nobody_listens(clients: Clients) -> None:
    async with closed_port() as address:
        expected = Result("critical", f"dial tcp {address}: connect: connection refused")
        assert await TcpCheck(address, timeout=PATIENCE).probe(clients) == expected


async def test_tcp_with_tls(clients: Clients, certificates: Certificates) -> None:
    async with listening(says_nothing, certificates.server_context()) as address:
        trusting = TlsSettings(ca_file=certificates.ca_file)
        assert await TcpCheck(address, trusting, timeout=PATIENCE).probe(clients) == Result(
            "passing", f"TCP+TLS connect {address}: Success"
        )
        distrusting = await TcpCheck(address, TlsSettings(), timeout=PATIENCE).probe(clients)
        assert distrusting == Result("critical", "x509: certificate signed by unknown authority")


async def test_tcp_with_tls_where_the_handshake_never_ends(clients: Clients) -> None:
    async with listening(says_nothing) as address:
        wanted = Result("critical", f"dial tcp {address}: i/o timeout")

        async def probe(seconds: float) -> Result:
            return await TcpCheck(address, TlsSettings(), timeout=seconds).probe(clients)

        assert await in_time(probe, 0.3, wanted.__eq__) == wanted


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("127.0.0.1", "dial tcp: address 127.0.0.1: missing port in address"),
        ("[::1]", "dial tcp: address [::1]: missing port in address"),
        ("::1:80", "dial tcp: address ::1:80: too many colons in address"),
        ("127.0.0.1:abc", "dial tcp: address tcp/abc: unknown port"),
        ("127.0.0.1:99999", "dial tcp: address 99999: invalid port"),
        ("name.invalid:80", "dial tcp: lookup name.invalid: no such host"),
        ("a" * 70 + ".test:80", f"dial tcp: lookup {'a' * 70}.test: no such host"),
    ],
)
async def test_an_address_that_cannot_be_dialled(clients: Clients, address: str, text: str) -> None:
    assert await TcpCheck(address, timeout=PATIENCE).probe(clients) == Result("critical", text)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    try:
        host, port = split_address(text, "tcp")
    except ConnectError as error:
        assert str(error).startswith("dial tcp: ")
    else:
        assert host and 0 <= port <= 65535


def test_addresses_of_version_6() -> None:
    assert split_address("[::1]:80", "tcp") == ("::1", 80)
    with pytest.raises(ConnectError):
        split_address("[::1]:", "tcp")


class _Datagrams(asyncio.DatagramProtocol):
    """Collects datagrams, and answers them when told to."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.received: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.append(data)
        if self.reply:
            self.transport.sendto(self.reply, addr)


@pytest.mark.parametrize(("reply", "timeout"), [(b"pong", PATIENCE), (b"", 0.2)], ids=["answered", "silent"])
async def test_udp_passes_with_an_answer_and_with_silence(clients: Clients, reply: bytes, timeout: float) -> None:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: _Datagrams(reply), ("127.0.0.1", 0))
    try:
        address = "{}:{}".format(*transport.get_extra_info("sockname"))
        result = await UdpCheck(address, "ping", timeout).probe(clients)
    finally:
        transport.close()
    assert result == Result("passing", f"UDP connect {address}: Success")
    assert server.received == [b"ping"]


async def test_udp_fails_when_the_port_is_closed(clients: Clients) -> None:
    async with closed_port(socket.SOCK_DGRAM) as address:
        result = await UdpCheck(address, "ping", PATIENCE).probe(clients)
    assert result == Result("critical", f"read udp {address}: read: connection refused")


async def test_udp_to_a_name_that_does_not_exist(clients: Clients) -> None:
    result = await UdpCheck("name.invalid:53", timeout=PATIENCE).probe(clients)
    assert result == Result("critical", "dial udp: lookup name.invalid: no such host")
