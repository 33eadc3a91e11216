"""How the command reaches an agent: addresses, sockets, TLS, tokens, and what it says when it cannot."""

from __future__ import annotations

import http.server
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lictor.cli.api import Address, parse_address
from tests.cli.command_line import here


class Asked(NamedTuple):
    """A request that the echo server got."""

    method: str
    target: str
    headers: dict[str, str]


class _Echo(http.server.BaseHTTPRequestHandler):
    asked: list[Asked]
    status = 200
    body = b"[]"

    def do_GET(self) -> None:
        self.asked.append(Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_PUT = do_GET

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests look at what was asked."""


class _UnixServer(socketserver.UnixStreamServer):
    """HTTP on a unix socket."""


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """A server that answers until the end."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def echo() -> type[_Echo]:
    """A handler that remembers what it was asked."""
    return type("Handler", (_Echo,), {"asked": []})


@pytest.fixture
def address(echo: type[_Echo]) -> Iterator[str]:
    """host:port of a server with that handler."""
    server = http.server.HTTPServer(("127.0.0.1", 0), echo)
    with serving(server):
        yield f"127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8500", Address("http", "127.0.0.1", 8500, "", "")),
        ("http://example.com", Address("http", "example.com", 0, "", "")),
        ("https://example.com:8501/consul/", Address("https", "example.com", 8501, "", "/consul")),
        ("[::1]:8500", Address("http", "::1", 8500, "", "")),
        ("[::1]", Address("http", "::1", 0, "", "")),
        (":8500", Address("http", "127.0.0.1", 8500, "", "")),
        ("unix:///run/agent.sock", Address("http", "localhost", 0, "/run/agent.sock", "")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["ftp://x:1", "x:port", "x:70000"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


def test_the_flag_goes_before_the_environment_and_our_name_before_consuls(address: str, echo: type[_Echo]) -> None:
    nobody = "127.0.0.1:1"
    env = {"LICTOR_HTTP_ADDR": nobody, "CONSUL_HTTP_ADDR": nobody}
    assert here("catalog", "datacenters", f"-http-addr={address}", env=env).code == 0
    assert here("catalog", "datacenters", env={"CONSUL_HTTP_ADDR": nobody, "LICTOR_HTTP_ADDR": address}).code == 0
    assert here("catalog", "datacenters", env={"CONSUL_HTTP_ADDR": address}).code == 0
    assert len(echo.asked) == 3


def test_options_become_query_parameters_and_headers(address: str, echo: type[_Echo], tmp_path: Path) -> None:
    flags = ["-datacenter=dc2", "-stale", "-namespace=team", "-partition=part", "-token=secret"]
    assert here("catalog", "nodes", *flags, f"-http-addr={address}", env={"CONSUL_HTTP_AUTH": "me:word"}).code == 0
    [asked] = echo.asked
    assert asked.target == "/v1/catalog/nodes?dc=dc2&ns=team&partition=part&stale="
    assert asked.headers["x-consul-token"] == "secret"
    assert asked.headers["authorization"] == "Basic bWU6d29yZA=="


def test_tokens_come_from_flags_then_from_the_environment(address: str, echo: type[_Echo], tmp_path: Path) -> None:
    (tmp_path / "flag").write_text("from-flag-file\n")
    (tmp_path / "env").write_text("  from-env-file\n")
    file = f"-token-file={tmp_path / 'flag'}"
    in_env = {"CONSUL_HTTP_TOKEN": "env", "CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "env")}
    for flags, env in (([file, "-token=t"], in_env), (["-token=t"], in_env), ([], in_env), ([], {})):
        assert here("catalog", "datacenters", f"-http-addr={address}", *flags, env=env).code == 0
    tokens = [asked.headers.get("x-consul-token") for asked in echo.asked]
    assert tokens == ["from-flag-file", "t", "from-env-file", None]


def test_stale_is_for_reads_alone(address: str, echo: type[_Echo]) -> None:
    echo.body = b"true"
    assert here("kv", "put", "-stale", f"-http-addr={address}", "a b/ü?", "1").code == 0
    assert [asked.target for asked in echo.asked] == ["/v1/kv/a%20b/%C3%BC%3F"]


def test_a_unix_socket(tmp_path: Path, echo: type[_Echo]) -> None:
    path = str(tmp_path / "agent.sock")
    with serving(_UnixServer(path, echo)):
        assert here("catalog", "datacenters", env={"LICTOR_HTTP_ADDR": f"unix://{path}"}).code == 0
    assert [asked.target for asked in echo.asked] == ["/v1/catalog/datacenters"]


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with a CA and a certificate of a server, made by the command itself."""
    from tests.cli.command_line import CommandLine

    command = CommandLine("127.0.0.1:1")
    assert command.run("tls", "ca", "create", cwd=tmp_path).code == 0
    assert command.run("tls", "cert", "create", "-server", "-additional-ipaddress=127.0.0.2", cwd=tmp_path).code == 0
    return tmp_path


def test_tls(certificates: Path, echo: type[_Echo], tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    [certificate] = certificates.glob("*-server-*-0.pem")
    [key] = certificates.glob("*-server-*-0-key.pem")
    [authority] = (path for path in certificates.glob("*agent-ca.pem"))
    context.load_cert_chain(certificate, key)
    server = http.server.HTTPServer(("127.0.0.1", 0), echo)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # refused handshakes
    server.socket = context.wrap_socket(server.socket, server_side=True)
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "ca.crt").write_bytes(authority.read_bytes())
    with serving(server):
        address = f"https://127.0.0.1:{server.server_port}"
        plain = f"127.0.0.1:{server.server_port}"
        ask = ["catalog", "datacenters", f"-http-addr={address}"]
        untrusted = here(*ask)
        assert untrusted.code == 1
        assert "x509: " in untrusted.err and "-ca-file" in untrusted.err
        assert here(*ask, f"-ca-file={authority}").code == 0
        assert here(*ask, f"-ca-path={tmp_path / 'trusted'}").code == 0
        assert here(*ask, env={"CONSUL_CACERT": str(authority)}).code == 0
        assert here(*ask, env={"CONSUL_HTTP_SSL_VERIFY": "false"}).code == 0
        named = here(*ask, f"-ca-file={authority}", "-tls-server-name=wrong.example")
        assert named.code == 1 and "wrong.example" in named.err
        assert (
            here(
                *ask[:2], env={"CONSUL_HTTP_ADDR": plain, "CONSUL_HTTP_SSL": "1", "CONSUL_CACERT": str(authority)}
            ).code
            == 0
        )


def test_an_http_agent_asked_with_https_is_said_to_be_one(address: str) -> None:
    outcome = here("catalog", "datacenters", f"-http-addr=https://{address}")
    assert outcome.code == 1
    assert "http: server gave HTTP response to HTTPS client" in outcome.err
    assert "check the scheme" in outcome.err


def test_an_unreadable_setting_is_named() -> None:
    outcome = here("catalog", "datacenters", env={"CONSUL_HTTP_SSL": "maybe"})
    assert outcome.code == 1
    assert "HTTP_SSL" in outcome.err and "true or false" in outcome.err


def test_nobody_there_says_what_to_do() -> None:
    outcome = here("kv", "get", "-http-addr=127.0.0.1:1", "a")
    assert outcome.code == 1
    assert outcome.err == (
        'Error querying Consul agent: Get "http://127.0.0.1:1/v1/kv/a": '
        "dial tcp 127.0.0.1:1: connect: connection refused\n"
        "Is the agent running there? Start one with `lictor agent`, or name another address with -http-addr or "
        "LICTOR_HTTP_ADDR.\n"
    )


def test_an_error_of_the_agent_is_passed_on(address: str, echo: type[_Echo]) -> None:
    echo.status, echo.body = 500, b"No cluster leader"
    outcome = here("kv", "get", f"-http-addr={address}", "a")
    assert outcome == (1, "", "Error querying Consul agent: Unexpected response code: 500 (No cluster leader)\n")


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", b"\0" * 99]
)
def test_whatever_answers_the_user_sees_no_traceback(answer: bytes) -> None:
    class Rude(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)
            self.request.shutdown(socket.SHUT_RDWR)

    server = socketserver.TCPServer(("127.0.0.1", 0), Rude)
    with serving(server):
        outcome = here("kv", "get", f"-http-addr=127.0.0.1:{server.server_address[1]}", "a")
    assert outcome.code == 1
    assert outcome.err.startswith("Error querying Consul agent: ")
    assert "Traceback" not in outcome.err


def test_an_answer_that_is_not_json_is_said_to_be_none(address: str, echo: type[_Echo]) -> None:
    echo.body = b"<html>"
    outcome = here("catalog", "datacenters", f"-http-addr={address}")
    assert outcome.code == 1
    assert "The answer is not JSON" in outcome.err


def test_an_unhealthy_cluster_is_an_exit_code(address: str, echo: type[_Echo]) -> None:
    echo.status, echo.body = 429, json.dumps({"Healthy": False, "FailureTolerance": 0, "Servers": []}).encode()
    outcome = here("operator", "autopilot", "health", f"-http-addr={address}")
    assert outcome.code == 2
    assert outcome.out.startswith("Healthy:            false\n")
