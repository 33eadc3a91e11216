"""Requests from service to service through two Envoys that a real agent configures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.connect_proxy.envoy.installed import ENVOY
from tests.connect_proxy.envoy.mesh import Agent, Envoy, ends, fetch, service
from tests.patience import PATIENCE, eventually, settles
from tests.ports import free_port

pytestmark = pytest.mark.skipif(not ENVOY, reason="envoy is not installed")


class Pair:
    """`client` and `server` with an Envoy each, at one agent. `port` is where the client reaches the server."""

    def __init__(self, folder: Path, behind: int, *flags: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.agent = Agent(folder, *flags)
        self.envoys: dict[str, Envoy] = {}
        self.agent.register("server", behind)
        self.agent.register("client", free_port(), {"server": self.port})

    def start(self, *services: str) -> None:
        """Have Envoys for services, and wait until they serve."""
        for name in services:
            self.envoys[name] = Envoy(self.folder, self.agent, name)
        for name in services:
            self.envoys[name].ready()

    def status(self, path: str = "/", **how: Any) -> int:
        """What a request of the client's ends with; 0 where the connection came to nothing."""
        return fetch(self.port, path, **how)[0]

    def close(self) -> None:
        """End all of it."""
        for one in self.envoys.values():
            one.close()
        self.agent.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Both services, with Envoys that serve."""
    with service() as port:
        made = Pair(tmp_path, port)
        try:
            made.start("server", "client")
            yield made
        except BaseException:
            print(made.agent.log()[-5000:], *(one.log()[-5000:] for one in made.envoys.values()), sep="\n----\n")
            raise
        finally:
            made.close()


def test_intentions_let_connections_through_and_keep_them_out_and_cut_them(pair: Pair) -> None:
    settles(pair.status, 200, "a request goes through while nothing forbids it")
    with socket.create_connection(("127.0.0.1", pair.port)) as open_one:
        open_one.sendall(b"GET / HTTP/1.1\r\nHost: server\r\n")
        eventually(lambda: pair.envoys["server"].count("cluster.local_app.upstream_cx_active"), "it is open")
        pair.agent.intend("server", {"Name": "client", "Action": "deny"})
        settles(pair.status, 0, "no connection is let through any more")
        eventually(lambda: ends(open_one), "what was open and is forbidden now has ended")
    pair.agent.intend("server", {"Name": "*", "Action": "deny"}, {"Name": "client", "Action": "allow"})
    settles(pair.status, 200, "the exact source goes before the wildcard")


def test_checks_go_through_the_proxy_and_requests_are_limited(tmp_path: Path) -> None:
    exposed = free_port()
    ports = f"ports {{ expose_min_port = {exposed}, expose_max_port = {exposed} }}"
    with service() as port:
        pair = Pair(tmp_path, port, f"-hcl={ports}")
        try:
            url = f"http://127.0.0.1:{port}/healthz?deep"
            pair.agent.put(
                "/v1/agent/check/register",
                {"Name": "alive", "ServiceID": "server", "HTTP": url, "Interval": "200ms", "Status": "passing"},
            )
            fields = {"Protocol": "http", "Expose": {"Checks": True}}
            pair.agent.configure("service-defaults", "server", **fields)
            pair.start("server", "client")

            def alive() -> tuple[str, bool]:
                found = pair.agent.get("/v1/agent/checks")["alive"]
                assert found.get("ExposedPort", exposed) == exposed
                return found["Status"], f":{exposed}/healthz?deep: 200 OK" in found["Output"]

            settles(alive, ("passing", True), "the check goes through the proxy")
            assert fetch(exposed, "/other")[0] == 404, "nothing but the check's path is let through"
            pair.agent.configure("service-defaults", "server", Protocol="http")
            settles(
                lambda: f":{port}/healthz?deep: 200 OK" in pair.agent.get("/v1/agent/checks")["alive"]["Output"],
                True,
                "the check asks the service itself",
            )
            settles(pair.status, 200, "a request goes through")
            limits = {"RequestsPerSecond": 1000000, "Routes": [{"PathExact": "/scarce", "RequestsPerSecond": 1}]}
            pair.agent.configure("service-defaults", "server", Protocol="http", RateLimits={"InstanceLevel": limits})
            settles(lambda: {pair.status("/scarce") for _ in range(8)}, {200, 429}, "what is over the limit is refused")
            assert pair.status("/other") == 200
        except BaseException:
            print(pair.agent.log()[-5000:], *(one.log()[-5000:] for one in pair.envoys.values()), sep="\n----\n")
            raise
        finally:
            pair.close()


def test_permissions_decide_on_each_request_of_an_open_connection(pair: Pair) -> None:
    settles(pair.status, 200, "a request goes through")
    for name in ("server", "client"):
        pair.agent.configure("service-defaults", name, Protocol="http")
    settles(lambda: "svc/client" in str(fetch(pair.port)), True, "the service is told who calls")
    listeners = pair.envoys["server"].count("listener_manager.listener_modified")
    pair.agent.intend(
        "server",
        {
            "Name": "client",
            "Permissions": [
                {"Action": "deny", "HTTP": {"PathPrefix": "/admin"}},
                {"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET"]}},
                {"Action": "deny", "HTTP": {"PathPrefix": "/"}},
            ],
        },
    )
    settles(lambda: pair.status("/admin"), 403, "what a permission forbids is refused")
    assert pair.status("/other") == 200
    assert pair.status("/other", method="POST") == 403
    assert pair.envoys["server"].count("listener_manager.listener_modified") == listeners, "connections stay"


def test_a_dry_run_names_whom_a_change_would_cut_and_whose_requests_it_would_refuse(pair: Pair) -> None:
    def effect(change: str) -> dict[str, Any]:
        path = f"/v1/connect/intentions/explain?source=*&destination=server&change={change}"
        found: dict[str, Any] = pair.agent.get(path)["Effect"]
        return found

    def cut() -> list[tuple[str, int]]:
        return [(one["Source"], one["Connections"]) for one in effect("deny")["Cut"]]

    settles(pair.status, 200, "a request goes through")
    with socket.create_connection(("127.0.0.1", pair.port)) as open_one:
        open_one.sendall(b"GET / HTTP/1.1\r\nHost: server\r\n")
        settles(cut, [("client", 1)], "the connection is known")
    settles(cut, [], "and so is that it has ended")
    for name in ("server", "client"):
        pair.agent.configure("service-defaults", name, Protocol="http")
    settles(lambda: "svc/client" in str(fetch(pair.port)), True, "requests are looked at")

    def refused() -> set[str]:
        assert pair.status() == 200
        return {one["Source"] for one in effect("deny")["Refused"]}

    settles(refused, {"client"}, "who makes requests is known, though few of them are told of")
    assert effect("allow")["Refused"] == []


def test_a_token_is_asked_for(pair: Pair) -> None:
    for name in ("server", "client"):
        pair.agent.configure("service-defaults", name, Protocol="http")
    keys = base64.b64encode(b'{"keys": [{"kty": "oct", "kid": "one", "alg": "HS256", "k": "c2VjcmV0"}]}').decode()
    pair.agent.configure(
        "jwt-provider", "mine", Issuer="https://issuer.example", JSONWebKeySet={"Local": {"JWKS": keys}}
    )
    need = {"Providers": [{"Name": "mine", "VerifyClaims": [{"Path": ["role"], "Value": "admin"}]}]}
    permissions = [
        {"Action": "allow", "HTTP": {"PathPrefix": "/"}, "JWT": need},
        {"Action": "deny", "HTTP": {"PathPrefix": "/"}},
    ]
    pair.agent.intend("server", {"Name": "client", "Permissions": permissions})
    settles(pair.status, 403, "a request without a token is refused")
    for role, status in (("guest", 403), ("admin", 200)):
        bearing = partial(pair.status, headers={"Authorization": f"Bearer {token(role)}"})
        settles(bearing, status, f"{role} ends with {status}")
    forged = {"Authorization": f"Bearer {token('admin', b'another key')}"}
    assert pair.status(headers=forged) == 403


def token(role: str, key: bytes = b"secret") -> str:
    """A token of the issuer, signed with HMAC-SHA256 (RFC 7519)."""

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = encoded(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode())
    body = encoded(json.dumps({"iss": "https://issuer.example", "role": role, "exp": 4102444800}).encode())
    signed = hmac.new(key, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{encoded(signed)}"


def test_a_new_leaf_takes_the_place_of_the_old_one_without_a_connection_ended(pair: Pair) -> None:
    settles(pair.status, 200, "a request goes through")
    before = {name: envoy.certificate() for name, envoy in pair.envoys.items()}
    assert all(before.values()), before
    with socket.create_connection(("127.0.0.1", pair.port)) as open_one:
        open_one.sendall(b"GET / HTTP/1.1\r\nHost: server\r\n")
        configuration = pair.agent.get("/v1/connect/ca/configuration")
        configuration["Config"]["PrivateKeyBits"] = 384
        configuration["Config"]["PrivateKeyType"] = "ec"
        pair.agent.put("/v1/connect/ca/configuration", configuration)
        for name, envoy in pair.envoys.items():
            eventually(partial(_renewed, envoy, before[name]), f"{name} has a new certificate")
        settles(pair.status, 200, "requests go through under the new root")
        open_one.sendall(b"\r\n")
        open_one.settimeout(None)
        assert open_one.recv(4096).startswith(b"HTTP/1.1 200"), "the connection from before goes on"


def _renewed(envoy: Envoy, before: str) -> bool:
    return envoy.certificate() not in ("", before)


@pytest.mark.parametrize("protocol", ["tcp", "http"])
@pytest.mark.parametrize(
    "rules",
    [[{"Name": "other", "Action": "deny"}], [{"Name": "*", "Action": "deny"}, {"Name": "leaver", "Action": "allow"}]],
)
def test_what_is_stolen_is_of_no_use_once_the_service_is_deregistered(
    pair: Pair, protocol: str, rules: list[dict[str, str]]
) -> None:
    """Where all is allowed and where all is denied, for connections and for requests."""
    pair.agent.configure("service-defaults", "server", Protocol=protocol)
    pair.agent.intend("server", *rules)
    port = pair.agent.get("/v1/agent/service/server-sidecar-proxy")["Port"]

    def register() -> ssl.SSLContext:
        pair.agent.put("/v1/agent/service/register", {"Name": "leaver", "Port": 1})
        leaf = pair.agent.get("/v1/agent/connect/ca/leaf/leaver")
        file = pair.folder / f"{leaf['SerialNumber']}.pem"
        file.write_text(leaf["CertPEM"] + leaf["PrivateKeyPEM"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(file)
        return context

    def status(context: ssl.SSLContext) -> str:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), 5.0) as plain,
                context.wrap_socket(plain) as secure,
            ):
                secure.sendall(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")
                return secure.recv(100).decode()[9:12]
        except TimeoutError:
            return "stalled"
        except OSError:
            return ""

    stolen = register()
    settles(partial(status, stolen), "200", "leaver is let in")
    pair.agent.put("/v1/agent/service/deregister/leaver")
    refused = "403" if protocol == "http" else ""
    settles(partial(status, stolen), refused, "its certificate is good for nothing")
    settles(partial(status, register()), "200", "and its next one is good")
    settles(partial(status, stolen), refused, "while the former stays good for nothing")


def test_only_those_whom_a_change_concerns_hear_of_it(pair: Pair) -> None:
    settles(pair.status, 200, "a request goes through")
    heard = {name: updates(envoy) for name, envoy in pair.envoys.items()}
    with service() as port:
        pair.agent.register("other", port)
        pair.agent.configure("service-defaults", "other", Protocol="http")
        pair.agent.intend("other", {"Name": "client", "Action": "deny"})
        pair.agent.intend("server", {"Name": "nobody", "Action": "deny"})
        settles(
            lambda: updates(pair.envoys["server"]) > heard["server"], True, "the server's Envoy hears of its intentions"
        )
    assert updates(pair.envoys["client"]) == heard["client"], "the client's hears nothing"


def updates(envoy: Envoy) -> int:
    """How often an Envoy was told something."""
    kinds = ("cluster_manager.cds", "listener_manager.lds")
    return sum(envoy.count(f"{kind}.update_success") for kind in kinds)


def test_envoys_go_on_while_the_agent_is_away(pair: Pair) -> None:
    settles(pair.status, 200, "a request goes through")
    pair.agent.process.kill()
    pair.agent.process.wait()
    assert pair.status() == 200
    assert pair.status() == 200


def test_what_envoy_refuses_is_in_the_log_with_its_reason(pair: Pair) -> None:
    settles(pair.status, 200, "a request goes through")
    wrong = '{"name": "x", "type": "STATIC", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "1s"}'
    pair.agent.configure("service-defaults", "server", UpstreamConfig=None)
    pair.agent.configure("proxy-defaults", "global", Config={"envoy_local_cluster_json": wrong})
    pair.agent.logs("an Envoy refuses its configuration")
    assert "proxy=server-sidecar-proxy" in pair.agent.log()
    assert pair.status() == 200, "it goes on with what it had"


UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class _Echo(socketserver.BaseRequestHandler):
    """Takes an upgrade, and sends back what comes."""

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.request.recv(4096)
        self.request.sendall(UPGRADE)
        while data := self.request.recv(4096):
            self.request.sendall(data)


def test_websockets_go_through(tmp_path: Path) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", free_port()), _Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        pair = Pair(tmp_path, int(server.server_address[1]))
        try:
            for name in ("server", "client"):
                pair.agent.configure("service-defaults", name, Protocol="http")
            pair.start("server", "client")
            eventually(partial(_echoes, pair.port), "what is sent over a WebSocket comes back")
        finally:
            pair.close()
            server.shutdown()
            thread.join()


def _echoes(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
            head = f"GET / HTTP/1.1\r\nHost: server\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n\r\n"
            connection.sendall(head.encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                data = connection.recv(4096)
                if not data:
                    return False
                answer += data
            if not answer.startswith(b"HTTP/1.1 101"):
                return False
            connection.sendall(b"over the socket")
            return connection.recv(4096) == b"over the socket"
    except OSError:
        return False


def test_grpc_goes_through_with_its_intentions(tmp_path: Path) -> None:
    grpc = pytest.importorskip("grpc")

    def method(name: str) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, _: request + name.encode())

    server = grpc.server(ThreadPoolExecutor(2))
    methods = {name: method(name) for name in ("List", "Delete")}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pair = Pair(tmp_path, port)
    try:
        for name in ("server", "client"):
            pair.agent.configure("service-defaults", name, Protocol="grpc")
        permission = {"Action": "allow", "HTTP": {"PathExact": "/shop.Orders/List"}}
        rest = {"Action": "deny", "HTTP": {"PathPrefix": "/"}}
        pair.agent.intend("server", {"Name": "client", "Permissions": [permission, rest]})
        pair.start("server", "client")
        with grpc.insecure_channel(f"127.0.0.1:{pair.port}") as channel:

            def call(method: str) -> str:
                try:
                    return str(channel.unary_unary(method)(b"to ", timeout=PATIENCE).decode())
                except grpc.RpcError as error:
                    return str(error.code().name)

            settles(partial(call, "/shop.Orders/List"), "to List", "a call goes through")
            settles(partial(call, "/shop.Orders/Delete"), "PERMISSION_DENIED", "another is refused")
    finally:
        pair.close()
        server.stop(None).wait()
