"""Two datacenters, each of one server: a service of one is called from the other, under the primary's authority."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lictor.ca import certificates
from lictor.client import Client, Options
from tests.cluster.servers import Server
from tests.connect_proxy.envoy.installed import ENVOY
from tests.connect_proxy.envoy.mesh import Envoy
from tests.mesh.running import Kept, Load, Sidecar, ask, pages
from tests.patience import PATIENCE, eventually

EXACT = "/v1/connect/intentions/exact?source={}&destination=page"
ROOTS = "/v1/connect/ca/roots"
LACKS = "datacenter dc1, the primary one, has to sign the authority of this one"


class At(NamedTuple):
    """An agent, for an Envoy."""

    address: str


class Two(NamedTuple):
    """`dc1` is the primary datacenter. `page` is a service of dc2, which `web` of dc1 calls."""

    dc1: Server
    dc2: Server
    folder: Path


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    """Both, not started yet."""
    first = Server(tmp_path, "one", "-datacenter=dc1", "-primary-datacenter=dc1", "-bootstrap-expect=1")
    second = Server(tmp_path, "two", "-datacenter=dc2", "-primary-datacenter=dc1", "-bootstrap-expect=1")
    second.flags.append(f"-retry-join-wan=127.0.0.1:{first.ports['serf-wan']}")
    second.flags.append("-retry-interval-wan=1s")
    try:
        yield Two(first, second, tmp_path)
    except BaseException:
        for server in (first, second):
            print(f"---- {server.name}\n{server.log()[-4000:]}")
        raise
    finally:
        first.close()
        second.close()


def active(server: Server) -> dict[str, Any]:
    """The root that leaves are signed under, or nothing."""
    status, body = server.ask("GET", ROOTS)
    roots = (json.loads(body)["Roots"] or []) if status == 200 else []
    return next((root for root in roots if root["Active"]), {})


def trouble(server: Server) -> str:
    status, body = server.ask("GET", "/v1/connect/ca/configuration")
    return ((json.loads(body)["State"] or {}).get("Trouble", "")) if status == 200 else ""


def test_services_of_a_secondary_datacenter_are_called_from_the_primary(two: Two) -> None:
    two.dc2.start()
    alone(two.dc2)
    two.dc1.start()
    together(two)
    calls(two)


def alone(dc2: Server) -> None:
    """Before the primary was ever reached it is told what is missing."""
    eventually(lambda: LACKS in trouble(dc2), "what dc2 lacks is told")
    with ThreadPoolExecutor(1) as pool:
        leaf = pool.submit(dc2.ask, "GET", "/v1/agent/connect/ca/leaf/page")
        command = [sys.executable, "-m", "lictor", "check", f"-http-addr=127.0.0.1:{dc2.ports['http']}"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout
        assert "no certificate authority" in said and LACKS in said, said
        assert "does not follow the config entries and intentions of datacenter dc1" in said, said
        status, body = leaf.result()
        assert status == 500 and f"CA is not initialized yet: {LACKS}".encode() in body, body
    assert dc2.ask("PUT", EXACT.format("web"), {"Action": "deny"})[0] == 500, "an intention is the primary's to take"


def together(two: Two) -> None:
    """As soon as the primary is there, dc2 has an authority under its root."""
    dc1, dc2 = two.dc1, two.dc2
    eventually(lambda: active(dc2).get("ID") == active(dc1).get("ID", "-"), "dc2 has the primary's root")
    assert dc1.get(ROOTS)["TrustDomain"] == dc2.get(ROOTS)["TrustDomain"]
    eventually(lambda: not trouble(dc2), "dc2 is well")
    leaf = dc2.get("/v1/agent/connect/ca/leaf/page")
    assert "/dc/dc2/svc/page" in leaf["ServiceURI"]
    chain = certificates.split_chain(leaf["CertPEM"])
    assert chain[1:] == active(dc2)["IntermediateCerts"]
    assert certificates.signed_by(chain[1], active(dc1)["RootCert"])


def calls(two: Two) -> None:
    """Services of dc1 call one of dc2, whatever happens."""
    dc1, dc2 = two.dc1, two.dc2
    with ExitStack() as stack:
        port = stack.enter_context(pages())
        page = Sidecar(dc2, two.folder, "page", port)
        web = Sidecar(dc1, two.folder, "web", 1, "page", datacenter="dc2")
        shop = Sidecar(dc1, two.folder, "shop", 2, "page", datacenter="dc2")
        for sidecar in (page, web):
            stack.callback(sidecar.end)
            sidecar.start()
        local = web.upstreams["page"]
        try:
            eventually(lambda: ask(local), "web of dc1 reaches page of dc2")
            if ENVOY:
                envoy = Envoy(two.folder, At(f"127.0.0.1:{dc1.ports['http']}"), "shop")
                stack.callback(envoy.close)
                eventually(lambda: ask(shop.upstreams["page"]), f"shop's Envoy reaches page of dc2: {envoy.log()}")
            native(dc1)
            intentions(two, local)
            rotation(two, web, page)
            revocation(two)
            absence(two, local)
        except BaseException:
            for sidecar in (page, web):
                print(f"---- proxy of {sidecar.service}\n{sidecar.log()[-4000:]}")
            raise


def native(dc1: Server) -> None:
    """A program that speaks the mesh's TLS itself reaches the other datacenter too."""
    address, options = f"127.0.0.1:{dc1.ports['http']}", Options(timeout=PATIENCE)
    with (
        Client(address, options=options, environment={}) as client,
        client.connect.open("page", own="web", datacenter="dc2", timeout=PATIENCE) as connection,
    ):
        connection.settimeout(PATIENCE)
        connection.sendall(b"GET /native HTTP/1.1\r\nHost: page\r\nConnection: close\r\n\r\n")
        assert b"".join(iter(lambda: connection.recv(4096), b"")).endswith(b"/native")


def intentions(two: Two, local: int) -> None:
    """One that is made in the secondary is the primary's, and holds in the secondary."""
    eventually(lambda: two.dc2.ask("PUT", EXACT.format("web"), {"Action": "deny"})[0] == 200, "an intention is put")
    assert two.dc1.get(EXACT.format("web"))["Action"] == "deny"
    eventually(lambda: two.dc2.ask("GET", EXACT.format("web"))[0] == 200, "dc2 has it")
    eventually(lambda: not ask(local), "web is refused")
    assert two.dc2.ask("DELETE", EXACT.format("web"))[0] == 200
    assert two.dc1.ask("GET", EXACT.format("web"))[0] == 404
    eventually(lambda: ask(local), "web is let through again")

    def figures() -> dict[str, str]:
        found: dict[str, str] = two.dc2.get("/v1/agent/self")["Stats"]["primary"]
        return found

    eventually(lambda: figures()["config_entries"] == "complete" and not figures()["failure"], "all is told to be well")
    assert figures()["datacenter"] == "dc1"


def rotation(two: Two, web: Sidecar, page: Sidecar) -> None:
    """The primary gets another root while web asks page, which loses no request."""
    former = active(two.dc1)["ID"]
    with Load(web.upstreams["page"]) as load:
        load.more(20)
        two.dc1.put("/v1/connect/ca/configuration", {"Provider": "consul", "Config": {"PrivateKeyBits": 384}})
        other = active(two.dc1)["ID"]
        assert other != former
        eventually(lambda: active(two.dc2).get("ID") == other, "dc2 follows")
        load.more(40)
    assert not load.lost, load.lost


def revocation(two: Two) -> None:
    """What is revoked in one datacenter is refused in the other."""
    two.dc2.put("/v1/connect/ca/revoked", {"SerialNumber": "0a:1b:2c"})
    eventually(lambda: "0a:1b:2c" in (two.dc1.get(ROOTS).get("Revoked") or []), "dc1 hears of it")


def absence(two: Two, local: int) -> None:
    """The primary's server goes away: dc2 signs, and what is connected stays so."""
    kept = Kept(local)
    assert kept.ask()
    two.dc1.kill()
    assert kept.ask() and ask(local)
    assert "/dc/dc2/svc/other" in two.dc2.get("/v1/agent/connect/ca/leaf/other")["ServiceURI"]
    assert not trouble(two.dc2)
    kept.close()
