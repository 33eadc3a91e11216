"""A service and two others that call it, on two agents beside three servers, each with a proxy of its own."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import pytest

from lictor.ca import certificates
from tests.cluster.datacenter import Datacenter, datacenter_in
from tests.mesh.running import Kept, Load, Sidecar, ask, pages
from tests.patience import eventually

EXACT = "/v1/connect/intentions/exact?source={}&destination=page"
# An agent that stands still for seconds is critical in the catalog until it has been heard of again, and as long as the
# servers are away after that.
PATIENT = "-hcl=gossip_lan { suspicion_mult = 60 }"


class Mesh(NamedTuple):
    """`page` is called by `web`, which may, and by `stranger`, which may not."""

    datacenter: Datacenter
    page: Sidecar
    web: Sidecar
    stranger: Sidecar

    def say(self, source: str, action: str) -> None:
        """Have an intention for connections to `page`."""
        server = self.datacenter.any()
        eventually(lambda: server.ask("PUT", EXACT.format(source), {"Action": action})[0] == 200, "an intention is put")

    def forget(self, source: str) -> None:
        """Have it no more."""
        self.datacenter.any().ask("DELETE", EXACT.format(source))

    def kill_servers(self) -> None:
        """End all servers as crashes do while page is taken for well: it stays so until they are back."""
        well = "/v1/health/connect/page?passing"
        for agent in self.datacenter.clients:
            eventually(partial(agent.get, well), f"{agent.name} takes page for well")
        for server in self.datacenter.servers:
            server.kill()

    @property
    def sidecars(self) -> tuple[Sidecar, ...]:
        """All of them."""
        return self.page, self.web, self.stranger


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The mesh, for all tests: each leaves it as it was."""
    folder = tmp_path_factory.mktemp("mesh")
    with ExitStack() as stack:
        datacenter = stack.enter_context(datacenter_in(folder, PATIENT))
        port = stack.enter_context(pages())
        one, two = datacenter.client("one"), datacenter.client("two")
        made = Mesh(
            datacenter,
            Sidecar(one, folder, "page", port),
            Sidecar(two, folder, "web", 1, "page"),
            Sidecar(two, folder, "stranger", 2, "page"),
        )
        try:
            made.say("stranger", "deny")
            for sidecar in made.sidecars:
                stack.callback(sidecar.end)
                sidecar.start()
            eventually(lambda: ask(made.web.upstreams["page"]), "web reaches page")
            yield made
        except BaseException:
            for sidecar in made.sidecars:
                print(f"---- proxy of {sidecar.service}\n{sidecar.log()[-4000:]}")
            raise


def leaf(sidecar: Sidecar) -> Any:
    return sidecar.agent.get(f"/v1/agent/connect/ca/leaf/{sidecar.service}")


def renewed(sidecar: Sidecar, before: str) -> bool:
    """Whether a service has another certificate, which its proxy has taken over."""
    serial = leaf(sidecar)["SerialNumber"]
    return serial != before and serial in sidecar.log()


def test_who_may_passes_and_who_may_not_is_refused_and_the_log_says_why(mesh: Mesh) -> None:
    assert ask(mesh.web.upstreams["page"], "/allowed")
    assert not ask(mesh.stranger.upstreams["page"], "/forbidden")
    eventually(lambda: "svc/stranger" in mesh.page.log(), "the refusal is in the log")
    line = next(line for line in mesh.page.log().splitlines() if "svc/stranger" in line)
    assert "Refused a connection" in line
    assert "Matched L4 intention: default/stranger => default/page" in line and "Action: DENY" in line


def test_a_rotation_of_the_authority_under_load_loses_no_request(mesh: Mesh) -> None:
    before = {sidecar.service: leaf(sidecar)["SerialNumber"] for sidecar in mesh.sidecars}
    with Load(mesh.web.upstreams["page"]) as load:
        load.more(20)
        body = {"Provider": "consul", "Config": {"PrivateKey": certificates.make_key()}}
        server = mesh.datacenter.any()
        eventually(lambda: server.ask("PUT", "/v1/connect/ca/configuration", body)[0] == 200, "the root is another")
        for sidecar in mesh.sidecars:
            eventually(partial(renewed, sidecar, before[sidecar.service]), f"{sidecar.service} has a new certificate")
        load.more(50)
    assert load.lost == []
    roots = mesh.web.agent.get("/v1/agent/connect/ca/roots")
    active = next(root for root in roots["Roots"] if root["Active"])
    assert certificates.signed_by(leaf(mesh.web)["CertPEM"], active["RootCert"])
    assert not ask(mesh.stranger.upstreams["page"])


def test_an_established_connection_is_cut_when_an_intention_forbids_it(mesh: Mesh) -> None:
    port = mesh.web.upstreams["page"]
    kept = Kept(port)
    assert kept.ask()
    try:
        mesh.say("web", "deny")
        eventually(lambda: not kept.ask(), "the connection is cut")
        assert not ask(port)
        assert "Cut a connection that is not allowed any more" in mesh.page.log()
    finally:
        kept.close()
        mesh.forget("web")
    eventually(lambda: ask(port), "web may again")


def test_with_all_servers_away_connections_go_on_and_new_ones_are_made(mesh: Mesh) -> None:
    port = mesh.web.upstreams["page"]
    servers = mesh.datacenter.servers
    with Load(port) as load:
        load.more(20)
        mesh.kill_servers()
        load.more(100)
        assert not ask(mesh.stranger.upstreams["page"])
        servers.start()
        eventually(lambda: mesh.web.agent.leader(), "the servers are found")
        load.more(50)
    assert load.lost == []


def test_a_proxy_that_is_restarted_while_the_servers_are_away_serves_as_before(mesh: Mesh) -> None:
    servers = mesh.datacenter.servers
    mesh.kill_servers()
    try:
        for sidecar in mesh.sidecars:
            sidecar.end()
            sidecar.start()
        eventually(lambda: ask(mesh.web.upstreams["page"]), "web reaches page")
        assert not ask(mesh.stranger.upstreams["page"])
    finally:
        servers.start()
    eventually(lambda: ask(mesh.web.upstreams["page"]), "web reaches page")


def test_a_service_that_is_gone_is_not_called(mesh: Mesh) -> None:
    port = mesh.web.upstreams["page"]
    mesh.page.end()
    assert not ask(port)
    mesh.page.start()
    eventually(lambda: ask(port), "web reaches page")


def test_a_bare_client_gets_nothing_out_of_a_proxy(mesh: Mesh) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", mesh.page.port, timeout=60)
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.request("GET", "/")
        connection.getresponse()
    connection.close()
