"""gRPC health checks against grpcio's server, HTTP/2 pings against a small h2 server, and both against bytes that
are neither."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lictor.agent.checks import grpc as grpc_check
from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import TlsSettings
from lictor.agent.checks.grpc import GrpcCheck
from lictor.agent.checks.h2ping import H2PingCheck
from lictor.agent.checks.result import Result
from tests.agent.checks.conftest import Certificates
from tests.agent.checks.listening import closed_port, in_time, listening, says_nothing
from tests.patience import PATIENCE


async def _health(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    """grpc.health.v1.Health/Check for services named after what they answer."""
    service = request[2:].decode()
    if service == "unheard-of":
        await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service, 100% sure")
    if service == "slow":
        await asyncio.Event().wait()
    return b"\x08" + bytes([{"": 1, "up": 1, "down": 2, "odd": 3}[service]])


@asynccontextmanager
async def _grpc_server(certificates: Certificates | None, method: str = "Check") -> AsyncIterator[str]:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(_health)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {method: handler}),))
    if certificates is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        key, cert = Path(certificates.key_file).read_bytes(), Path(certificates.cert_file).read_bytes()
        credentials = grpc.ssl_server_credentials([(key, cert)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("service", "status", "output"),
    [
        ("", "passing", "gRPC check {}: success"),
        ("/up", "passing", "gRPC check {}: success"),
        ("/down", "critical", "gRPC {} serving status: NOT_SERVING"),
        ("/odd", "critical", "gRPC {} serving status: SERVICE_UNKNOWN"),
        ("/unheard-of", "critical", "rpc error: code = NotFound desc = unknown service, 100% sure"),
    ],
)
async def test_grpc_health(clients: Clients, service: str, status: str, output: str) -> None:
    async with _grpc_server(None) as address:
        target = address + service
        assert await GrpcCheck(target, timeout=PATIENCE).probe(clients) == Result(status, output.format(target))


async def test_grpc_timeout(clients: Clients) -> None:
    async with _grpc_server(None) as address:
        wanted = Result("critical", "rpc error: code = DeadlineExceeded desc = context deadline exceeded")

        async def probe(seconds: float) -> Result:
            return await GrpcCheck(address + "/slow", timeout=seconds).probe(clients)

        assert await in_time(probe, 0.5, wanted.__eq__) == wanted


async def test_grpc_without_a_health_service(clients: Clients) -> None:
    async with _grpc_server(None, method="Watch") as address:
        result = await GrpcCheck(address, timeout=PATIENCE).probe(clients)
    assert result == Result("critical", "rpc error: code = Unimplemented desc = Method not found!")


async def test_grpc_with_tls(clients: Clients, certificates: Certificates) -> None:
    async with _grpc_server(certificates) as address:
        good = await GrpcCheck(address + "/up", TlsSettings(ca_file=certificates.ca_file), timeout=PATIENCE).probe(
            clients
        )
        bad = await GrpcCheck(address + "/up", TlsSettings(), timeout=PATIENCE).probe(clients)
    assert good == Result("passing", f"gRPC check {address}/up: success")
    assert bad.output == (
        "rpc error: code = Unavailable desc = connection error: desc = "
        '"transport: authentication handshake failed: x509: certificate signed by unknown authority"'
    )


async def test_grpc_refused(clients: Clients) -> None:
    async with closed_port() as address:
        result = await GrpcCheck(address, timeout=PATIENCE).probe(clients)
    assert result.output == (
        "rpc error: code = Unavailable desc = connection error: desc = "
        f'"transport: Error while dialing dial tcp {address}: connect: connection refused"'
    )


async def _speaks_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await says_nothing(reader, writer)


@pytest.mark.parametrize("kind", ["grpc", "h2ping"])
async def test_a_server_of_another_protocol(clients: Clients, kind: str) -> None:
    async with listening(_speaks_http1) as address:
        check = GrpcCheck(address, timeout=PATIENCE) if kind == "grpc" else H2PingCheck(address, None, PATIENCE)
        result = await check.probe(clients)
    assert result.status == "critical"
    assert "malformed HTTP/2 response" in result.output


@pytest.mark.parametrize("kind", ["grpc", "h2ping"])
async def test_random_bytes_end_in_a_critical_result(clients: Clients, kind: str) -> None:
    rng = random.Random(kind)

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        server.initiate_connection()
        writer.write(server.data_to_send())  # so that some noise gets past the first frame
        for _ in range(rng.randrange(1, 10)):
            length = rng.randrange(0, 40)
            frame = length.to_bytes(3, "big") + bytes([rng.randrange(11), rng.randrange(256)])
            writer.write(frame + rng.choice([0, 1, 2]).to_bytes(4, "big") + rng.randbytes(length))

    async with listening(babble) as address:
        for _ in range(200):
            check = GrpcCheck(address, timeout=PATIENCE) if kind == "grpc" else H2PingCheck(address, None, PATIENCE)
            assert (await check.probe(clients)).status == "critical"


@given(st.binary(max_size=40))
def test_any_response_body_is_a_status_or_a_failed_call(data: bytes) -> None:
    framed = b"\0" + len(data).to_bytes(4, "big") + data
    for body in (data, framed):
        try:
            assert grpc_check.decode_response(body) >= 0
        except grpc_check.CallError as error:
            assert str(error) == "rpc error: code = Internal desc = malformed health response"


async def _answers_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    writer.write(server.data_to_send())
    while data := await reader.read(65536):
        server.receive_data(data)
        writer.write(server.data_to_send())


async def test_h2ping_in_the_clear(clients: Clients) -> None:
    async with listening(_answers_pings) as address:
        assert await H2PingCheck(address, None, timeout=PATIENCE).probe(clients) == Result(
            "passing", "HTTP2 ping was successful"
        )


async def test_h2ping_speaks_tls_unless_told_otherwise(clients: Clients, certificates: Certificates) -> None:
    async with listening(_answers_pings, certificates.server_context("h2")) as address:
        trusting = TlsSettings(ca_file=certificates.ca_file)
        assert await H2PingCheck(address, trusting, timeout=PATIENCE).probe(clients) == Result(
            "passing", "HTTP2 ping was successful"
        )
        assert await H2PingCheck(address, timeout=PATIENCE).probe(clients) == Result(
            "critical", f"Failed to dial to {address}: x509: certificate signed by unknown authority"
        )


async def test_h2ping_without_an_answer(clients: Clients) -> None:
    async with listening(says_nothing) as address:
        wanted = Result("critical", "HTTP2 ping failed: context deadline exceeded")

        async def probe(seconds: float) -> Result:
            return await H2PingCheck(address, None, seconds).probe(clients)

        assert await in_time(probe, 0.2, wanted.__eq__) == wanted


async def test_h2ping_refused(clients: Clients) -> None:
    async with closed_port() as address:
        result = await H2PingCheck(address, None, timeout=PATIENCE).probe(clients)
    expected = f"Failed to dial to {address}: dial tcp {address}: connect: connection refused"
    assert result == Result("critical", expected)
