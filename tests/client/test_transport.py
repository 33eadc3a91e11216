"""How requests reach the agent: what is sent again and what is not, sockets, TLS, tokens, the environment."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lictor.client import AsyncClient, Client
from lictor.client.calls import Call, put
from lictor.client.errors import BadAnswer, NoAgent, NoLeader, TooMany
from lictor.client.requests import Tries
from lictor.client.settings import Options, Retry, Settings
from tests.patience import PATIENCE
from tests.rpc.certificates import authority

SILENCE = b"silence"
QUICK = Options(timeout=PATIENCE, connect_timeout=PATIENCE, retry=Retry(tries=3, first=0.001))


class Server:
    """A server in a thread of its own that answers as it is told, and keeps the requests. `answers` are used up one by
    one, the last for ever; an empty one closes the connection without an answer, SILENCE gives none.
    """

    def __init__(self, *answers: bytes, tls: ssl.SSLContext | None = None, path: str = "") -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self._tls = tls
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        if self._path:
            server = await asyncio.start_unix_server(self._answer, self._path)
        else:
            server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self._tls)
            self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0
                )
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if not answer:
                    break
                if answer == SILENCE:
                    await self._ended.wait()
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(PATIENCE)


def answer(status: int, body: bytes = b"true") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def make(*answers: bytes, tls: ssl.SSLContext | None = None, path: str = "") -> Server:
        servers.append(Server(*answers, tls=tls, path=path))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def client_of(server: Server, **environment: str) -> Client:
    return Client(f"127.0.0.1:{server.port}", options=QUICK, environment=environment)


def test_a_write_that_may_have_been_carried_out_is_not_sent_again(serve: Serve) -> None:
    server = serve(b"")
    with client_of(server) as client, pytest.raises(NoAgent, match="was asked and did not answer") as caught:
        client.kv.put("a", b"1")
    assert caught.value.begun
    assert len(server.requests) == 1


def test_one_with_cas_neither_since_its_answer_would_be_another(serve: Serve) -> None:
    server = serve(b"", answer(200, b"false"))
    with client_of(server) as client, pytest.raises(NoAgent):
        client.kv.put("a", b"1", cas=7)
    assert len(server.requests) == 1


def test_a_read_and_what_does_the_same_twice_as_once_are(serve: Serve) -> None:
    server = serve(b"", b"", answer(200, b"[]"))
    with client_of(server) as client:
        assert client.health.service("web") == []
    assert len(server.requests) == 3
    server = serve(b"", answer(200, b""))
    with client_of(server) as client:
        client.agent.register("web", port=1)
    assert len(server.requests) == 2


def test_a_read_is_tried_again_while_nobody_leads(serve: Serve) -> None:
    server = serve(answer(500, b"No cluster leader"), answer(503), answer(200, b"[]"))
    with client_of(server) as client:
        assert client.catalog.nodes() == []
    server = serve(answer(500, b"No cluster leader"))
    with client_of(server) as client:
        with pytest.raises(NoLeader):
            client.catalog.nodes()
        assert len(server.requests) == 3
        with pytest.raises(NoLeader):
            client.kv.put("a", b"1")
        assert len(server.requests) == 4, "a write may have been taken all the same"


def test_what_was_refused_for_its_number_is_sent_again(serve: Serve) -> None:
    server = serve(answer(429), answer(200))
    with client_of(server) as client:
        assert client.kv.put("a", b"1")


def test_the_last_error_is_told_when_all_tries_failed(serve: Serve) -> None:
    server = serve(answer(429, b"Your IP is issuing too many concurrent connections"))
    with client_of(server) as client, pytest.raises(TooMany, match="too many concurrent connections"):
        client.kv.put("a", b"1")
    assert len(server.requests) == 3


def test_pauses_grow_and_are_bounded() -> None:
    tries = Tries(put("/v1/x", lambda reply: None), Options(retry=Retry(tries=6, first=1.0, longest=5.0)), lambda: 0.0)
    error = TooMany(429, "")
    assert [tries.pause(error) for _ in range(5)] == [1, 2, 4, 5, 5]
    with pytest.raises(TooMany):
        tries.pause(error)
    assert Retry(first=1.0).pause(1, 1.0) == 0.5


def test_connections_are_used_again_and_closed_ones_are_not(serve: Serve) -> None:
    server = serve(answer(200, b'"leader"'))
    with client_of(server) as client:
        for _ in range(5):
            assert client.status.leader() == "leader"
        assert len(client._opened[0]._idle) == 1
        (kept,) = client._opened[0]._idle
        kept.sock.shutdown(2)
        with pytest.raises(BadAnswer):
            client.kv.put("a", b"1")  # on a new connection, or it would be lost without a trace
    assert len(server.requests) == 6


def test_an_answer_that_is_no_json_is_told(serve: Serve) -> None:
    server = serve(answer(200, b"<html>"))
    with client_of(server) as client, pytest.raises(BadAnswer, match="not what it should be"):
        client.catalog.nodes()


def test_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    path = str(tmp_path / "http.sock")
    server = serve(answer(200, b'"leader"'), path=path)
    with Client(f"unix://{path}", environment={}) as client:
        assert client.status.leader() == "leader"
    assert b"Host: localhost" in server.requests[0]


async def test_a_unix_socket_on_an_event_loop(serve: Serve, tmp_path: Path) -> None:
    path = str(tmp_path / "http.sock")
    serve(answer(200, b'"leader"'), path=path)
    async with AsyncClient(f"unix://{path}", environment={}) as client:
        assert await client.status.leader() == "leader"


async def test_tls_with_certificates_on_both_sides(serve: Serve, tmp_path: Path) -> None:
    ca = authority(tmp_path / "ca")
    own, shown = ca.settings("-server"), ca.settings("-client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert_file, own.key_file)
    context.load_verify_locations(ca.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    server = serve(answer(200, b'"leader"'), tls=context)
    environment = {
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_HTTP_ADDR": f"127.0.0.1:{server.port}",
        "CONSUL_CACERT": ca.ca_file,
        "LICTOR_CLIENT_CERT": shown.cert_file,
        "LICTOR_CLIENT_KEY": shown.key_file,
        "LICTOR_TLS_SERVER_NAME": "localhost",
    }
    with Client(environment=environment, options=QUICK) as client:
        assert await asyncio.to_thread(client.status.leader) == "leader"
    async with AsyncClient(environment=environment, options=QUICK) as loop_client:
        assert await loop_client.status.leader() == "leader"
    strange = {k: v for k, v in environment.items() if k != "CONSUL_CACERT"}
    with Client(environment=strange, options=QUICK) as client, pytest.raises(NoAgent, match="(?i)certificate"):
        await asyncio.to_thread(client.status.leader)
    async with AsyncClient(environment=strange, options=QUICK) as loop_client:
        with pytest.raises(NoAgent, match="(?i)certificate"):
            await loop_client.status.leader()


def test_the_token_comes_from_where_consuls_clients_have_it(serve: Serve, tmp_path: Path) -> None:
    server = serve(answer(200, b'"leader"'))
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    for environment, token in (
        ({"CONSUL_HTTP_TOKEN": "plain"}, b"plain"),
        ({"CONSUL_HTTP_TOKEN": "plain", "LICTOR_HTTP_TOKEN": "own"}, b"own"),
        ({"CONSUL_HTTP_TOKEN_FILE": str(file)}, b"from-a-file"),
    ):
        with client_of(server, **environment) as client:
            client.status.leader()
            client.using(token="other").status.leader()
        assert b"X-Consul-Token: " + token in server.requests[-2]
        assert b"X-Consul-Token: other" in server.requests[-1]


def test_parameters_are_written_as_the_api_has_them(serve: Serve) -> None:
    server = serve(answer(200, b"[]"))
    with client_of(server) as client:
        client.using(consistency="stale", datacenter="dc2").health.service("a/b c", passing=True, tag=["x", "y&z"])
    (line, _) = server.requests[0].split(b"\r\n", 1)
    assert line == b"GET /v1/health/service/a/b%20c?passing&stale&tag=x&tag=y%26z&dc=dc2 HTTP/1.1"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"address": "ftp://x"}, "Unknown protocol scheme: ftp"),
        ({"address": "x:port"}, "invalid port"),
        ({"address": "https://x", "ca_file": "/none"}, "open /none: no such file"),
        ({"environment": {"LICTOR_HTTP_TOKEN_FILE": "/none"}}, "cannot read the token in /none: No such file"),
    ],
)
def test_settings_that_cannot_be_used_are_told_at_once(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(**{"environment": {}, **settings})  # type: ignore[arg-type]


async def test_an_event_loop_retries_alike(serve: Serve) -> None:
    server = serve(b"", answer(200, b"[]"))
    async with AsyncClient(f"127.0.0.1:{server.port}", options=QUICK, environment={}) as client:
        assert await client.catalog.nodes() == []
    silent = serve(b"")
    async with AsyncClient(f"127.0.0.1:{silent.port}", options=QUICK, environment={}) as client:
        with pytest.raises(NoAgent, match="was asked and did not answer") as caught:
            await client.kv.put("a", b"1")
    assert caught.value.begun
    assert len(silent.requests) == 1


async def test_a_call_of_ones_own(serve: Serve) -> None:
    server = serve(answer(200, b"own"))
    made: Call[bytes] = Call("GET", "/v1/own", lambda reply: reply.body)
    async with AsyncClient(f"127.0.0.1:{server.port}", options=QUICK, environment={}) as client:
        assert await client.make(made) == b"own"


def test_an_agent_that_says_nothing_is_given_up(serve: Serve) -> None:
    server = serve(SILENCE)
    impatient = Options(timeout=0.05, connect_timeout=PATIENCE, retry=Retry(tries=1))
    told = "was asked and did not answer: nothing within 0 s"
    client = Client(f"127.0.0.1:{server.port}", options=impatient, environment={})
    with client, pytest.raises(NoAgent, match=told):
        client.status.leader()


async def test_nor_does_an_event_loop_wait_for_ever(serve: Serve) -> None:
    server = serve(SILENCE)
    impatient = Options(timeout=0.05, connect_timeout=PATIENCE, retry=Retry(tries=1))
    async with AsyncClient(f"127.0.0.1:{server.port}", options=impatient, environment={}) as client:
        with pytest.raises(NoAgent, match="was asked and did not answer"):
            await client.status.leader()
