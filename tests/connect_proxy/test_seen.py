"""What operators see: the access log, and the admin listener with its metrics."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from lictor.connect_proxy.access_log import AccessLog
from lictor.connect_proxy.admin import LONGEST, Admin, loopback
from lictor.connect_proxy.metrics import render
from lictor.model.service import AccessLogs
from tests.connect_proxy.authority import service_uri
from tests.connect_proxy.loops import on_uvloop
from tests.connect_proxy.mesh import Mesh, intention, is_refused, port, say, target
from tests.patience import soon


@on_uvloop
async def test_a_connection_has_a_line_when_it_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with Mesh() as mesh:
        access = AccessLog(AccessLogs(enabled=True, type="file", path=str(path)))
        inbound = await mesh.inbound(await mesh.service(), [intention("client", "allow")], access=access)
        outbound = await mesh.outbound(target(inbound), access=access)
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        streams[1].close()
        await soon(lambda: len(path.read_text().splitlines()) == 2, "each side has written a line")
        stranger = await mesh.outbound(target(inbound), service="stranger")
        assert await is_refused(await mesh.connect(stranger))
        await soon(lambda: len(path.read_text().splitlines()) == 3, "one that was refused has a line too")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        inner = next(line for line in lines if line["direction"] == "inbound" and line["bytes_received"])
        assert inner["downstream_peer_uri_san"] == service_uri("client")
        assert (inner["bytes_received"], inner["bytes_sent"]) == (5, 5)
        assert inner["upstream_host"] == str(inbound.settings.target)
        outer = next(line for line in lines if line["direction"] == "outbound")
        assert outer["upstream_cluster"] == "web"
        refused = next(line for line in lines if line["response_flags"] == "intention")
        assert "Default intention policy" in refused["connection_termination_details"]
        access.close()
    assert path.stat().st_mode & 0o777 == 0o640


@on_uvloop
async def test_a_line_may_have_a_format_of_its_own(tmp_path: Path) -> None:
    text, shown = tmp_path / "text", tmp_path / "json"
    form = '{"got": "%BYTES_RECEIVED%", "path": "%REQ(:PATH)%", "level": 1}'
    async with Mesh() as mesh:
        one = AccessLog(
            AccessLogs(enabled=True, type="file", path=str(text), text_format="%UPSTREAM_CLUSTER% %BYTES_SENT%\n")
        )
        two = AccessLog(AccessLogs(enabled=True, type="file", path=str(shown), json_format=form))
        inbound = await mesh.inbound(await mesh.service(), access=one)
        outbound = await mesh.outbound(target(inbound), access=two)
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        streams[1].close()
        await soon(lambda: text.read_text() and shown.read_text(), "both have written")
        assert text.read_text() == "web 5\n"
        assert json.loads(shown.read_text()) == {"got": "5", "path": "-", "level": 1}
        one.close()
        two.close()


@pytest.mark.parametrize("form", ["{", "[]"])
def test_a_format_that_cannot_be_read_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match="access_logs"):
        AccessLog(AccessLogs(enabled=True, json_format=form))


@on_uvloop
async def test_metrics_count_what_happened() -> None:
    async with Mesh() as mesh:
        inbound, outbound = await mesh.pair()
        streams = await mesh.connect(outbound)
        assert await say(streams, b"hello") == b"hello"
        text = render([inbound, outbound], mesh.loop.time())
        labels = f'direction="outbound",service="client",upstream="web",address="{outbound.address}"'
        assert 'lictor_proxy_connections{direction="inbound",service="web"} 1\n' in text
        assert f'lictor_proxy_bytes_total{{{labels},side="local"}} 5\n' in text
        assert f'lictor_proxy_endpoints{{{labels},state="passing"}} 1\n' in text
        inbound.authorize([intention("client", "deny")], False)
        await soon(lambda: not inbound.passages, "it is cut")
        text = render([inbound], mesh.loop.time())
        assert 'lictor_proxy_connections_ended_total{direction="inbound",service="web",reason="forbidden"} 1\n' in text


def test_what_is_this_machines_alone() -> None:
    assert [loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "example.com")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 2 * LONGEST, b"400"),
    ],
)
@on_uvloop
async def test_the_admin_listener_answers_one_plain_request(request_: bytes, status: bytes) -> None:
    loop = asyncio.get_running_loop()
    pages = {"/metrics": lambda: (200, "one 1\n")}
    server = await loop.create_server(lambda: Admin(pages, loop), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    writer.write(request_)
    answer = await reader.read(-1)
    assert answer.split(b" ")[1] == status
    writer.close()
    server.close()


@on_uvloop
async def test_a_health_check_that_only_connects_is_no_stranger() -> None:
    async with Mesh() as mesh:
        inbound = await mesh.inbound(await mesh.service())
        reader, writer = await asyncio.open_connection("127.0.0.1", port(inbound))
        writer.write_eof()
        assert await reader.read(-1) == b""
        writer.close()
        await soon(lambda: not inbound.passages, "it is forgotten")
        assert dict(inbound.ends) == {"probe": 1}
