"""Programs that are services of the mesh by themselves: who answers and who connects is seen to, on both sides."""

import asyncio
import contextlib
import http.client
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lictor.ca import certificates
from lictor.client import AsyncClient, Client
from lictor.client.errors import NoInstance, NotReady, PeerRefused
from lictor.client.native_loop import peer_of
from lictor.client.tls import CheckedSocket
from lictor.model.ids import new_id
from lictor.model.spiffe import ServiceId, SigningId, trust_domain
from tests.agent.processes import Process
from tests.client.conftest import PATIENT, address
from tests.patience import PATIENCE, eventually, settles, soon

PACE = 0.02  # seconds between two connections, where many are opened: the machine is not this test's alone


class Echo:
    """A service's server with threads: sends back what it is sent. `refused` are the reasons of those who may not."""

    def __init__(self, client: Client, service: str) -> None:
        self.client = client
        self.service = service
        self.peers: list[str] = []
        self.refused: list[str] = []
        self.listener = client.connect.wrap_server(socket.create_server(("127.0.0.1", 0)), service=service)
        self.port = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,)).start()

    def _serve(self, connection: CheckedSocket) -> None:
        with connection:
            try:
                while data := connection.recv(100):
                    assert connection.peer is not None
                    self.peers.append(connection.peer.service)
                    connection.sendall(data)
            except PeerRefused as error:
                self.refused.append(str(error))
            except OSError as error:
                self.refused.append(f"{type(error).__name__}: {error}")

    def register(self, name: str = "", instance: str = "", port: int = 0) -> None:
        """Have the agent know it, as a service that speaks the mesh's TLS itself."""
        name = name or self.service
        connect = {"Native": True}
        self.client.agent.register(
            name, id=instance or name, port=port or self.port, address="127.0.0.1", Connect=connect
        )

    def close(self) -> None:
        socket.socket.shutdown(self.listener, socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(PATIENCE)


@contextlib.contextmanager
def echo(client: Client, service: str) -> Iterator[Echo]:
    """A server, registered, for the block; its name is nobody else's."""
    made = Echo(client, service)
    try:
        made.register()
        yield made
    finally:
        client.agent.deregister(service)
        made.close()


def answered(connection: CheckedSocket, text: bytes) -> bytes:
    connection.settimeout(PATIENCE)
    connection.sendall(text)
    return connection.recv(100)


def forbid(agent: Process, destination: str, source: str, action: str = "deny") -> None:
    agent.put(f"/v1/connect/intentions/exact?source={source}&destination={destination}", {"Action": action})


def rotate(agent: Process) -> None:
    """Have another root take the place of the present one."""
    body = {"Provider": "consul", "Config": {"PrivateKey": certificates.make_key(), "LeafCertTTL": "72h"}}
    agent.put("/v1/connect/ca/configuration", body)


def test_both_ends_know_who_the_other_is(client: Client) -> None:
    with echo(client, "db1") as server, client.connect.open("db1", own="web") as connection:
        assert answered(connection, b"hello") == b"hello"
        assert connection.peer is not None and connection.peer.service == "db1"
        assert server.peers == ["web"]
        assert connection.version() == "TLSv1.3"


def test_who_may_not_connect_is_refused_and_both_sides_say_so(agent: Process, client: Client) -> None:
    with echo(client, "db2") as server:
        forbid(agent, "db2", "web")
        eventually(lambda: client.connect.service("db2").trust.rules.intentions, "the intention is known")
        with client.connect.open("db2", own="web") as connection, contextlib.suppress(OSError):
            assert answered(connection, b"hello") == b""
        eventually(lambda: server.refused, "a refusal")
        assert server.refused[0].startswith("web may not connect to db2: Matched L4 intention: default/web =>")
        assert server.peers == []
        with client.connect.open("db2", own="api") as connection:
            assert answered(connection, b"hello") == b"hello"


def test_whoever_answers_for_another_service_is_not_spoken_to(client: Client) -> None:
    with echo(client, "impostor") as server:
        server.register("db3")
        with pytest.raises(NoInstance, match=r"127\.0\.0\.1:\d+: db3 was called, and spiffe://.*/svc/impostor has ans"):
            client.connect.open("db3", own="web")
        assert server.peers == []
        client.agent.deregister("db3")


def test_one_that_does_not_answer_is_passed_over(client: Client) -> None:
    with echo(client, "db4") as server, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        server.register("db4", "db4-dead", nobody.getsockname()[1])
        eventually(lambda: len(client.health.connect("db4", passing=True)) == 2, "two instances")
        client.connect.service("web").places("db4")
        eventually(lambda: len(client.connect.service("web").places("db4") or ()) == 2, "both are known")
        for _ in range(10):
            with client.connect.open("db4", own="web") as connection:
                assert answered(connection, b"x") == b"x"
        client.agent.deregister("db4-dead")
    eventually(lambda: client.connect.service("web").places("db4") == [], "none is left")
    with pytest.raises(NoInstance, match="db4 has no passing instance in the mesh"):
        client.connect.open("db4", own="web")


def strangers(client: Client, folder: Path) -> dict[str, ssl.SSLContext]:
    """Clients that are not of the mesh."""

    def bearing(uri: str, key: str, root: str) -> ssl.SSLContext:
        own = certificates.make_key()
        domain = uri.removeprefix("spiffe://").partition("/")[0]
        request = certificates.make_request(own, ServiceId(domain, "dc1", "web"))
        leaf = certificates.sign_leaf(root, key, request, ServiceId(domain, "dc1", "web"), 3600.0, time.time(), 7)
        (folder / "pem").write_text(leaf + own)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        made.load_cert_chain(folder / "pem")
        return made

    domain = client.connect.roots().trust_domain
    key = certificates.make_key()
    forged = certificates.make_root(key, SigningId(domain), "pri-x.consul", 3600.0, time.time(), 1)
    elsewhere = trust_domain(new_id())
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    return {
        "no certificate": bare,
        "another authority": bearing(f"spiffe://{domain}/", key, forged),
        "another trust domain": bearing(f"spiffe://{elsewhere}/", key, forged),
        "old TLS": old,
    }


def _more(found: list[str], than: int) -> bool:
    return len(found) > than


def test_strangers_are_refused_and_harm_nobody(client: Client, tmp_path: Path) -> None:
    with echo(client, "db5") as server:
        for name, context in strangers(client, tmp_path).items():
            count = len(server.refused)
            plain = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
            with contextlib.suppress(OSError), context.wrap_socket(plain) as secure:
                secure.sendall(b"hello")
                assert secure.recv(100) == b"", name
            plain.close()
            eventually(partial(_more, server.refused, count), f"{name} is refused")
        silent = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        garbage = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        garbage.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        with client.connect.open("db5", own="web") as connection:
            assert answered(connection, b"hello") == b"hello"
        assert set(server.peers) == {"web"}
        garbage.close()
        silent.close()


def test_a_connection_is_cut_once_an_intention_forbids_it(agent: Process, client: Client) -> None:
    with echo(client, "db6") as server:
        with client.connect.open("db6", own="web") as cut, client.connect.open("db6", own="api") as kept:
            assert answered(cut, b"x") == answered(kept, b"x") == b"x"
            forbid(agent, "db6", "web")
            with contextlib.suppress(OSError):
                assert cut.recv(100) == b""
            assert answered(kept, b"y") == b"y"
        eventually(lambda: server.refused, "a refusal")
        assert "Matched L4 intention: default/web => default/db6" in server.refused[0]


def told(agent: Process, service: str) -> dict[str, int]:
    """What programs have told the agent of those who are connected to a service."""
    found = agent.get("/v1/agent/connect/connections").get(service) or {"Inbound": []}
    return {one["SourceURI"].rpartition("/")[2]: one["Connections"] for one in found["Inbound"]}


def test_the_agent_is_told_who_is_connected_and_that_nobody_is_when_the_program_ends(
    agent: Process, client: Client
) -> None:
    program = Client(address(agent), options=PATIENT, environment={})
    with echo(client, "db8") as server, contextlib.closing(Echo(program, "db8")) as other:
        dial = client.connect.service("api").client_context("db8")
        with (
            client.connect.open("db8", own="web") as one,
            client.connect.open("db8", own="api") as two,
            dial.wrap_socket(socket.create_connection(("127.0.0.1", other.port), PATIENCE)) as three,
        ):
            for connection in (one, two, three):
                connection.sendall(b"x")
                assert connection.recv(100) == b"x"
            settles(lambda: told(agent, "db8"), {"web": 1, "api": 2}, "two programs tell of one service")
            forbid(agent, "db8", "web")
            settles(lambda: told(agent, "db8"), {"api": 2}, "what is cut is not told of any more")
            program.close()
            settles(lambda: told(agent, "db8"), {"api": 1}, "a program that ends leaves nothing")
        settles(lambda: told(agent, "db8"), {}, "nobody is connected")
        assert server.peers


def revoke(agent: Process, service: str) -> None:
    leaf = agent.get(f"/v1/agent/connect/ca/leaf/{service}")
    agent.put("/v1/connect/ca/revoked", {"CertPEM": leaf["CertPEM"]})


def test_a_connection_is_cut_once_the_certificate_of_either_side_is_revoked(agent: Process, client: Client) -> None:
    with echo(client, "db7") as server:
        with client.connect.open("db7", own="thief") as cut, client.connect.open("db7", own="api") as kept:
            assert answered(cut, b"x") == answered(kept, b"x") == b"x"
            revoke(agent, "thief")
            with contextlib.suppress(OSError):
                assert cut.recv(100) == b""
            assert answered(kept, b"y") == b"y"
            revoke(agent, "db7")
            with contextlib.suppress(OSError):
                assert kept.recv(100) == b""
        eventually(lambda: server.refused, "a refusal")
        assert "has been revoked" in server.refused[0]


def test_a_rotation_of_the_authority_loses_no_connection(agent: Process, client: Client) -> None:
    with echo(client, "db7"), client.connect.open("db7", own="web") as long:
        identity = client.connect.service("web")
        before = identity.trust.leaf.serial_number
        first = client.connect.roots().active_root_id
        opened = 0
        rotate(agent)

        def one() -> bool:
            nonlocal opened
            with client.connect.open("db7", own="web") as connection:
                assert answered(connection, b"x") == b"x"
            opened += 1
            time.sleep(PACE)
            done = client.connect.service("db7").trust.leaf.serial_number != server_before
            return done and identity.trust.leaf.serial_number != before

        server_before = client.connect.service("db7").trust.leaf.serial_number
        eventually(one, "both ends have new certificates")
        assert opened > 1
        assert identity.trust.roots.active_root_id != first
        assert answered(long, b"still") == b"still"


def test_pythons_own_http_server_and_client(client: Client) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connection = self.connection
            assert isinstance(connection, CheckedSocket)
            body = json.dumps({"caller": connection.peer and connection.peer.service}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = client.connect.wrap_server(server.socket, service="page")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        context = client.connect.service("web").client_context("page")
        connection = http.client.HTTPSConnection("127.0.0.1", server.server_port, context=context, timeout=PATIENCE)
        connection.request("GET", "/")
        assert json.loads(connection.getresponse().read()) == {"caller": "web"}
        connection.close()
        wrong = client.connect.service("web").client_context("another")
        connection = http.client.HTTPSConnection("127.0.0.1", server.server_port, context=wrong, timeout=PATIENCE)
        with pytest.raises(PeerRefused, match="another was called, and spiffe://.*/svc/page has answered"):
            connection.request("GET", "/")
        connection.close()
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


def test_without_an_agent_it_says_so() -> None:
    with (
        Client("127.0.0.1:1", environment={}) as client,
        pytest.raises(NotReady, match="no agent at http://127.0.0.1:1"),
    ):
        client.connect.service("web", timeout=1.0)


# -- event loops -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def loop_echo(client: AsyncClient, service: str, peers: list[str]) -> AsyncIterator[asyncio.Server]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(peer_of(writer).service)
        with contextlib.suppress(OSError):
            while data := await reader.read(100):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

    server = await client.connect.start_server(handle, "127.0.0.1", 0, service=service)
    port = server.sockets[0].getsockname()[1]
    await client.agent.register(service, port=port, address="127.0.0.1", Connect={"Native": True})
    try:
        yield server
    finally:
        await client.agent.deregister(service)
        server.close()
        await server.wait_closed()


async def loop_answered(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], text: bytes) -> bytes:
    reader, writer = streams
    async with asyncio.timeout(PATIENCE):
        writer.write(text)
        await writer.drain()
        return await reader.read(100)


async def closed(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    streams[1].close()
    with contextlib.suppress(OSError):
        await streams[1].wait_closed()


async def test_the_same_on_an_event_loop(
    agent: Process, loop_client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    client, peers = loop_client, list[str]()
    async with loop_echo(client, "ldb1", peers):
        streams = await client.connect.open("ldb1", own="web")
        assert await loop_answered(streams, b"hello") == b"hello"
        assert peers == ["web"] and peer_of(streams[1]).service == "ldb1"
        other = await client.connect.open("ldb1", own="api")
        assert await loop_answered(other, b"hello") == b"hello"

        await asyncio.to_thread(forbid, agent, "ldb1", "web")
        with contextlib.suppress(OSError):
            async with asyncio.timeout(PATIENCE):
                assert await streams[0].read(100) == b""
        refused = await client.connect.open("ldb1", own="web")
        with contextlib.suppress(OSError):
            assert await loop_answered(refused, b"hello") == b""
        assert await loop_answered(other, b"still") == b"still"
        assert peers == ["web", "api"]
        await asyncio.to_thread(settles, lambda: told(agent, "ldb1"), {"api": 1}, "the agent is told who is connected")
        said = [record.getMessage() for record in caplog.records if record.name == "lictor.client.connect"]
        assert any(line.startswith("a connection is cut: web may not connect to ldb1") for line in said)
        assert any(line.startswith("a connection is refused: web may not connect to ldb1") for line in said)
        for one in (streams, other, refused):
            await closed(one)


async def test_whoever_answers_for_another_is_not_spoken_to_on_an_event_loop(loop_client: AsyncClient) -> None:
    client, peers = loop_client, list[str]()
    async with loop_echo(client, "ldb2", peers) as server:
        port = server.sockets[0].getsockname()[1]
        await client.agent.register("ldb3", port=port, address="127.0.0.1", Connect={"Native": True})
        with pytest.raises(NoInstance, match="ldb3 was called, and spiffe://.*/svc/ldb2 has answered"):
            await client.connect.open("ldb3", own="web")
        await client.agent.deregister("ldb3")


async def test_a_rotation_loses_no_connection_on_an_event_loop(agent: Process, loop_client: AsyncClient) -> None:
    client, peers = loop_client, list[str]()
    async with loop_echo(client, "ldb4", peers):
        identities = [await client.connect.service(name) for name in ("web", "ldb4")]
        before = [identity.trust.leaf.serial_number for identity in identities]
        long = await client.connect.open("ldb4", own="web")
        rotating = asyncio.ensure_future(asyncio.to_thread(rotate, agent))

        async def all_new() -> bool:
            streams = await client.connect.open("ldb4", own="web")
            assert await loop_answered(streams, b"x") == b"x"
            await closed(streams)
            await asyncio.sleep(PACE)
            return all(
                identity.trust.leaf.serial_number != serial for identity, serial in zip(identities, before, strict=True)
            )

        async with asyncio.timeout(PATIENCE):
            while not await all_new():
                pass
        await rotating
        assert await loop_answered(long, b"still") == b"still"
        await closed(long)


async def test_what_is_decided_by_authorize_is_what_is_decided_here(agent: Process, loop_client: AsyncClient) -> None:
    await asyncio.to_thread(forbid, agent, "ldb5", "web")
    identity = await loop_client.connect.service("ldb5")
    await soon(lambda: identity.trust.rules.intentions, "the intention is known")
    for service, allowed in (("web", False), ("api", True)):
        caller = ServiceId(identity.id.domain, "dc1", service)
        answer = await loop_client.connect.authorize("ldb5", caller.uri)
        assert answer.authorized is allowed
        if not allowed:
            with pytest.raises(PeerRefused) as refused:
                identity.trust.admit(caller)
            assert answer.reason in str(refused.value)
