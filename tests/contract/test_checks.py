"""Checks that run: against real listeners, in time, and what their results do."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.contract.client import Api
from tests.contract.covers import covers
from tests.contract.servers import Server
from tests.patience import eventually, settles


@dataclass
class Target:
    """A web server whose answer the case sets, and the requests that it saw."""

    port: int = 0
    status: int = 200
    body: str = "fine"
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def target() -> Iterator[Target]:
    """A web server on a port of its own."""
    state = Target()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            # In this order: who counts what was seen and then sets another status has not counted one with that.
            status = state.status
            state.seen.append((self.command, self.path, headers, body))
            self.send_response(status)
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body.encode())

        do_GET = do_PUT = do_POST = answer

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the cases look at `seen`."""

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    state.port = web.server_address[1]
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield state
    web.shutdown()
    web.server_close()
    thread.join()


def check(api: Api, check_id: str) -> dict[str, Any]:
    """The agent's check."""
    found: dict[str, Any] = api.get("/v1/agent/checks").json()[check_id]
    return found


def becomes(api: Api, check_id: str, status: str) -> dict[str, Any]:
    """The check, once it has a status."""
    found: dict[str, Any] = eventually(
        lambda: (now := check(api, check_id))["Status"] == status and now, f"{check_id} is {status}"
    )
    return found


@covers("PUT /v1/agent/check/register", "HTTP")
@pytest.mark.parametrize(
    ("code", "status"), [(200, "passing"), (299, "passing"), (429, "warning"), (404, "critical"), (500, "critical")]
)
def test_an_http_check_goes_by_the_status_code(api: Api, name: str, target: Target, code: int, status: str) -> None:
    """2xx passes, 429 warns, the rest is critical; the output tells request, code and body."""
    target.status = code
    start = "critical" if status == "passing" else "passing"
    url = f"http://127.0.0.1:{target.port}/health"
    api.put("/v1/agent/check/register", {"Name": name, "HTTP": url, "Interval": "100ms", "Status": start})
    reason = {200: "OK", 299: "", 429: "Too Many Requests", 404: "Not Found", 500: "Internal Server Error"}[code]
    wanted = status, f"HTTP GET {url}: {code} {reason} Output: fine"
    settles(lambda: ((found := check(api, name))["Status"], found["Output"]), wanted, "the check's result")


@covers("PUT /v1/agent/check/register", "Method", "Header", "Body")
def test_an_http_check_sends_what_it_is_told(api: Api, name: str, target: Target) -> None:
    """Method, headers (also Host) and body; a User-Agent and an Accept of its own otherwise."""
    definition = {
        "Name": name,
        "HTTP": f"http://127.0.0.1:{target.port}/a?b=c",
        "Method": "PUT",
        "Header": {"X-One": ["1"], "Host": ["example.com"]},
        "Body": "hello",
        "Interval": "100ms",
    }
    api.put("/v1/agent/check/register", definition)
    becomes(api, name, "passing")
    method, path, headers, body = target.seen[0]
    assert (method, path, body) == ("PUT", "/a?b=c", b"hello")
    assert headers["x-one"] == "1"
    assert headers["host"] == "example.com"
    assert headers["user-agent"] == "Consul Health Check"
    assert headers["accept"] == "text/plain, text/*, */*"


@covers("PUT /v1/agent/check/register", "HTTP", "OutputMaxSize")
def test_the_output_is_cut_to_its_limit(api: Api, name: str, target: Target) -> None:
    """4 KiB, or what the check says."""
    target.body = "x" * 10000
    url = f"http://127.0.0.1:{target.port}/"
    api.put("/v1/agent/check/register", {"Name": name, "HTTP": url, "Interval": "100ms"})
    api.put("/v1/agent/check/register", {"Name": f"{name}-s", "HTTP": url, "Interval": "100ms", "OutputMaxSize": 10})
    assert becomes(api, name, "passing")["Output"].endswith("Output: " + "x" * 4096)
    assert becomes(api, f"{name}-s", "passing")["Output"].endswith("Output: " + "x" * 10)


@covers("PUT /v1/agent/check/register", "HTTP")
def test_nobody_listens(api: Api, name: str) -> None:
    """A refused connection is critical and says so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        api.put("/v1/agent/check/register", {"Name": name, "HTTP": url, "Interval": "100ms", "Status": "passing"})
        assert "connection refused" in becomes(api, name, "critical")["Output"].lower()


@covers("PUT /v1/agent/check/register", "Timeout")
def test_a_silent_server_is_critical_after_the_timeout(api: Api, name: str) -> None:
    """Nothing is waited for longer than the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        definition = {"Name": name, "HTTP": url, "Interval": "100ms", "Timeout": "200ms", "Status": "passing"}
        api.put("/v1/agent/check/register", definition)
        becomes(api, name, "critical")


@covers("PUT /v1/agent/check/register", "TCP")
def test_a_tcp_check_connects(api: Api, name: str) -> None:
    """Connected is passing, refused is critical."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        api.put("/v1/agent/check/register", {"Name": name, "TCP": address, "Interval": "100ms"})
        assert becomes(api, name, "passing")["Output"] == f"TCP connect {address}: Success"
    assert address in becomes(api, name, "critical")["Output"]


@covers("PUT /v1/agent/check/register", "Args")
@pytest.mark.parametrize(
    ("code", "status", "output"),
    [
        (0, "passing", "out\nerr\n"),
        (1, "warning", "out\nerr\n"),
        (2, "critical", "out\nerr\n"),
        (7, "critical", "out\nerr\n"),
    ],
)
def test_a_script_goes_by_its_exit_code(tuned: Server, name: str, code: int, status: str, output: str) -> None:
    """0 passes, 1 warns, the rest is critical; both its streams are the output."""
    api = tuned.api
    arguments = ["sh", "-c", f"echo out; echo err >&2; exit {code}"]
    start = "critical" if status == "passing" else "passing"
    definition = {"Name": name, "Args": arguments, "Interval": "100ms", "Status": start}
    assert api.put("/v1/agent/check/register", definition).status == 200
    assert becomes(api, name, status)["Output"] == output


@covers("PUT /v1/agent/check/register", "Args", "Timeout")
def test_a_script_that_hangs_is_ended(tuned: Server, name: str) -> None:
    """After its timeout it is critical, and the output says what happened."""
    definition = {"Name": name, "Args": ["sleep", "30"], "Interval": "100ms", "Timeout": "200ms", "Status": "passing"}
    tuned.api.put("/v1/agent/check/register", definition)
    assert "timed out" in becomes(tuned.api, name, "critical")["Output"].lower()


@covers("PUT /v1/agent/check/register", "TTL")
def test_a_ttl_check_expires(api: Api, name: str) -> None:
    """Without a word in time it is critical; a word brings it back."""
    api.put("/v1/agent/check/register", {"Name": name, "TTL": "300ms"})
    assert check(api, name)["Status"] == "critical"

    def told(word: str) -> str:
        """The status after a word. On a machine that stands still it may have expired again."""
        api.put(f"/v1/agent/check/{word}/{name}?note=alive")
        return str(check(api, name)["Status"])

    settles(lambda: told("pass"), "passing", "a word makes it passing")
    expired = becomes(api, name, "critical")
    assert expired["Output"] == "TTL expired (last output before timeout follows): alive"
    settles(lambda: told("warn"), "warning", "a word makes it warning")


@covers("PUT /v1/agent/check/register", "AliasService")
def test_an_alias_follows_its_service(api: Api, name: str) -> None:
    """It has the worst status of the service's checks."""
    api.put("/v1/agent/service/register", {"Name": name, "Check": {"CheckID": f"{name}-c", "TTL": "1h"}})
    api.put("/v1/agent/service/register", {"Name": f"{name}-w"})
    alias = {"Name": f"{name}-alias", "AliasService": name, "ServiceID": f"{name}-w"}
    assert api.put("/v1/agent/check/register", alias).status == 200
    becomes(api, f"{name}-alias", "critical")
    api.put(f"/v1/agent/check/pass/{name}-c")
    assert becomes(api, f"{name}-alias", "passing")["Output"] == "All checks passing."
    api.put(f"/v1/agent/check/warn/{name}-c")
    becomes(api, f"{name}-alias", "warning")


@covers("PUT /v1/agent/check/register", "SuccessBeforePassing", "FailuresBeforeCritical")
def test_a_check_can_ask_for_several_results_in_a_row(api: Api, name: str, target: Target) -> None:
    """One bad result does not make it critical where two are asked for, nor one good one passing.

    The first result after registration counts at once, so the case begins after some.
    """
    definition = {
        "Name": name,
        "HTTP": f"http://127.0.0.1:{target.port}/",
        "Interval": "100ms",
        "SuccessBeforePassing": 2,
        "FailuresBeforeCritical": 2,
        "Status": "passing",
    }
    assert api.put("/v1/agent/check/register", definition).status == 200
    eventually(lambda: len(target.seen) >= 2, "the check has run twice")
    for code, status in ((500, "critical"), (200, "passing")):
        before = len(target.seen)
        target.status = code
        becomes(api, name, status)
        assert len(target.seen) - before >= 2


@covers("PUT /v1/agent/service/register", "Check")
def test_a_check_reaches_the_catalog(api: Api, name: str, target: Target) -> None:
    """What the agent sees, everybody sees."""
    url = f"http://127.0.0.1:{target.port}/"
    definition = {"Name": name, "Check": {"HTTP": url, "Interval": "100ms"}}
    api.put("/v1/agent/service/register", definition)
    eventually(lambda: api.get(f"/v1/health/service/{name}?passing").json(), "the service is passing")
    target.status = 500
    eventually(lambda: not api.get(f"/v1/health/service/{name}?passing").json(), "the service is not passing")
    eventually(
        lambda: api.get(f"/v1/health/checks/{name}").json()[0]["Output"].startswith(f"HTTP GET {url}: 500"),
        "the output is in the catalog",
    )
