"""HTTP checks against real servers; the texts were compared with the reference's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import TlsSettings
from lictor.agent.checks.http import HttpCheck
from lictor.agent.checks.result import Result
from tests.agent.checks.conftest import Certificates
from tests.agent.checks.listening import closed_port, in_time, listening, says_nothing
from tests.patience import PATIENCE


async def _ok(request: web.Request) -> web.Response:
    return web.Response(text="hello\n")


async def _status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["code"]), text="hello\n")


async def _echo(request: web.Request) -> web.Response:
    """What arrived, one header a line."""
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    return web.Response(text="\n".join([request.method, *lines, "", await request.text()]))


async def _redirect(request: web.Request) -> web.Response:
    raise web.HTTPFound("/ok")


async def _loop(request: web.Request) -> web.Response:
    raise web.HTTPFound("/loop")


async def _big(request: web.Request) -> web.Response:
    return web.Response(text="a" * 5000 + "END")


async def _stalls(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"so far")
    await asyncio.Event().wait()
    return response


def _application() -> web.Application:
    application = web.Application()
    application.router.add_get("/ok", _ok)
    application.router.add_get("/status/{code}", _status)
    application.router.add_route("*", "/echo", _echo)
    application.router.add_get("/redirect", _redirect)
    application.router.add_get("/loop", _loop)
    application.router.add_get("/big", _big)
    application.router.add_get("/stalls", _stalls)
    return application


@pytest.fixture
async def base() -> AsyncIterator[str]:
    """The URL of a server in the clear."""
    async with TestServer(_application()) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("200 OK", "passing"),
        ("201 Created", "passing"),
        ("429 Too Many Requests", "warning"),
        ("404 Not Found", "critical"),
        ("500 Internal Server Error", "critical"),
    ],
)
async def test_the_status_code_decides(clients: Clients, base: str, code: str, status: str) -> None:
    url = f"{base}/status/{code[:3]}"
    assert await HttpCheck(url, timeout=PATIENCE).probe(clients) == Result(
        status, f"HTTP GET {url}: {code} Output: hello\n"
    )


async def test_what_a_request_carries_by_itself(clients: Clients, base: str) -> None:
    output = (await HttpCheck(f"{base}/echo", timeout=PATIENCE).probe(clients)).output
    assert "User-Agent: Consul Health Check" in output
    assert "Accept: text/plain, text/*, */*" in output
    assert "Connection: close" in output
    assert "Content-Type" not in output


async def test_method_headers_host_and_body_are_sent(clients: Clients, base: str) -> None:
    check = HttpCheck(
        f"{base}/echo?a=%2Fb",
        method="POST",
        header=(("X-A", ("1", "2")), ("Host", ("web.test",)), ("User-Agent", ("mine",))),
        body="xyz",
        timeout=PATIENCE,
    )
    output = (await check.probe(clients)).output
    assert output.startswith(f"HTTP POST {base}/echo?a=%2Fb: 200 OK Output: POST\n")
    assert "X-A: 1\nX-A: 2\n" in output
    assert "Host: web.test\n" in output
    assert "User-Agent: mine\n" in output and "Lictor" not in output
    assert output.endswith("\n\nxyz")


async def test_redirects_are_followed_unless_disabled(clients: Clients, base: str) -> None:
    url = f"{base}/redirect"
    assert (await HttpCheck(url, timeout=PATIENCE).probe(clients)).output == f"HTTP GET {url}: 200 OK Output: hello\n"
    result = await HttpCheck(url, disable_redirects=True, timeout=PATIENCE).probe(clients)
    assert result == Result("critical", f"HTTP GET {url}: 302 Found Output: 302: Found")


async def test_a_redirect_loop_ends(clients: Clients, base: str) -> None:
    result = await HttpCheck(f"{base}/loop", timeout=PATIENCE).probe(clients)
    assert result == Result("critical", f'Get "{base}/loop": stopped after 10 redirects')


async def test_a_long_body_shows_its_end(clients: Clients, base: str) -> None:
    result = await HttpCheck(f"{base}/big", output_max_size=20, timeout=PATIENCE).probe(clients)
    assert result.output == f"HTTP GET {base}/big: 200 OK Output: " + "a" * 17 + "END"


async def test_a_body_that_stalls_does_not_take_the_status_back(clients: Clients, base: str) -> None:
    wanted = Result("passing", f"HTTP GET {base}/stalls: 200 OK Output: so far")

    async def probe(seconds: float) -> Result:
        return await HttpCheck(f"{base}/stalls", timeout=seconds).probe(clients)

    assert await in_time(probe, 1.0, wanted.__eq__) == wanted


async def test_silence_ends_with_the_timeout(clients: Clients) -> None:
    async with listening(says_nothing) as address:
        reason = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        wanted = Result("critical", f'Get "http://{address}/": {reason}')

        async def probe(seconds: float) -> Result:
            return await HttpCheck(f"http://{address}/", timeout=seconds).probe(clients)

        assert await in_time(probe, 0.2, wanted.__eq__) == wanted


async def test_a_refused_connection(clients: Clients) -> None:
    async with closed_port() as address:
        result = await HttpCheck(f"http://{address}/x", timeout=PATIENCE).probe(clients)
    assert result == Result("critical", f'Get "http://{address}/x": dial tcp {address}: connect: connection refused')


async def test_a_server_by_name(clients: Clients, base: str) -> None:
    url = base.replace("127.0.0.1", "localhost") + "/ok"
    assert await HttpCheck(url, timeout=PATIENCE).probe(clients) == Result(
        "passing", f"HTTP GET {url}: 200 OK Output: hello\n"
    )


async def test_a_name_that_does_not_exist(clients: Clients) -> None:
    result = await HttpCheck("http://name.invalid:80/x", timeout=PATIENCE).probe(clients)
    assert result == Result("critical", 'Get "http://name.invalid:80/x": dial tcp: lookup name.invalid: no such host')


async def test_an_answer_that_is_not_http(clients: Clients) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"220 mail.test SMTP\r\n")
        await says_nothing(reader, writer)

    async with listening(greet) as address:
        result = await HttpCheck(f"http://{address}/", timeout=PATIENCE).probe(clients)
    assert result.status == "critical"
    assert "malformed HTTP response" in result.output


async def test_a_connection_closed_without_an_answer(clients: Clients) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)

    async with listening(hang_up) as address:
        result = await HttpCheck(f"http://{address}/", timeout=PATIENCE).probe(clients)
    assert result == Result("critical", f'Get "http://{address}/": EOF')


@pytest.mark.parametrize(
    ("url", "output"),
    [
        ("127.0.0.1:80/x", 'parse "127.0.0.1:80/x": first path segment in URL cannot contain colon'),
        ("ftp://127.0.0.1/x", 'Get "ftp://127.0.0.1/x": unsupported protocol scheme "ftp"'),
        ("http:///x", 'Get "http:///x": http: no Host in request URL'),
    ],
)
async def test_a_url_that_cannot_be_asked(clients: Clients, url: str, output: str) -> None:
    assert await HttpCheck(url, timeout=PATIENCE).probe(clients) == Result("critical", output)


@pytest.mark.parametrize("url", ["", "http://[", "http://127.0.0.1:99999/", "http://a b/", "http://\ud800/", "\0"])
async def test_any_bad_url_is_a_critical_result(clients: Clients, url: str) -> None:
    assert (await HttpCheck(url, timeout=PATIENCE).probe(clients)).status == "critical"


@pytest.mark.parametrize(("method", "header"), [("GE T", ()), ("GET", (("X-A", ("a\r\nX-B: b",)),))])
async def test_what_would_smuggle_a_request_is_not_sent(
    clients: Clients, base: str, method: str, header: tuple[tuple[str, tuple[str, ...]], ...]
) -> None:
    assert (
        await HttpCheck(f"{base}/echo", method=method, header=header, timeout=PATIENCE).probe(clients)
    ).status == "critical"


async def test_a_password_in_the_url_is_not_shown(clients: Clients, base: str) -> None:
    result = await HttpCheck(base.replace("://", "://me:secret@") + "/ok", timeout=PATIENCE).probe(clients)
    assert result.status == "passing"
    assert "secret" not in result.output and "me:xxxxx@" in result.output


async def test_tls_is_verified(clients: Clients, certificates: Certificates) -> None:
    trusting = TlsSettings(ca_file=certificates.ca_file)
    runner = web.AppRunner(_application())
    await runner.setup()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        await web.SockSite(runner, listener, ssl_context=certificates.server_context()).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/ok"

        async def outcome(tls: TlsSettings) -> str:
            result = await HttpCheck(url, tls=tls, timeout=PATIENCE).probe(clients)
            return result.output.removeprefix(f'Get "{url}": ') if result.status == "critical" else result.status

        assert await outcome(trusting) == "passing"
        assert await outcome(TlsSettings(skip_verify=True)) == "passing"
        assert await outcome(TlsSettings(ca_file=certificates.ca_file, server_name="service.test")) == "passing"
        assert await outcome(TlsSettings()) == "x509: certificate signed by unknown authority"
        wrong = TlsSettings(ca_file=certificates.ca_file, server_name="other.test")
        assert await outcome(wrong) == "x509: certificate is not valid for other.test"
        missing = TlsSettings(ca_file="/nonexistent/ca.pem")
        assert "TLS settings of the check cannot be used" in await outcome(missing)
        await runner.cleanup()


async def test_https_to_a_server_in_the_clear(clients: Clients, base: str) -> None:
    url = base.replace("http:", "https:") + "/ok"
    result = await HttpCheck(url, timeout=PATIENCE).probe(clients)
    assert result == Result("critical", f'Get "{url}": tls: first record does not look like a TLS handshake')
