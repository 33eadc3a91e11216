"""The mesh while its authority moves into Vault and back, and while Vault is away: nobody who calls notices."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lictor.ca import certificates
from tests.ca.vault_standin import ROOT_TOKEN, VaultStandin
from tests.ca.vaults import Vault, real_vault
from tests.cluster.datacenter import Datacenter, datacenter_in
from tests.mesh.running import Load, Sidecar, ask, pages
from tests.patience import eventually

CONFIGURATION = "/v1/connect/ca/configuration"


class Mesh(NamedTuple):
    """`web` calls `page`, both on one agent beside three servers."""

    datacenter: Datacenter
    page: Sidecar
    web: Sidecar

    def goes_by(self, provider: str, config: dict[str, Any]) -> None:
        """Have another authority, and wait until both services have certificates of it."""
        before = {sidecar: leaf(sidecar)["SerialNumber"] for sidecar in (self.page, self.web)}
        server, body = self.datacenter.any(), {"Provider": provider, "Config": config}
        eventually(lambda: server.ask("PUT", CONFIGURATION, body)[0] == 200, "the authority is another")
        for sidecar, serial in before.items():
            eventually(partial(renewed, sidecar, serial), f"{sidecar.service} has a new certificate")

    def trouble(self) -> str:
        """What keeps the authority from its work, in words."""
        state = self.datacenter.any().get(CONFIGURATION)["State"]
        return str(state["Trouble"]) if state else ""


def leaf(sidecar: Sidecar) -> Any:
    return sidecar.agent.get(f"/v1/agent/connect/ca/leaf/{sidecar.service}")


def renewed(sidecar: Sidecar, before: str) -> bool:
    """Whether a service has another certificate, which its proxy has taken over."""
    serial = leaf(sidecar)["SerialNumber"]
    return serial != before and serial in sidecar.log()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("mesh")
    with datacenter_in(folder) as datacenter, pages() as port:
        agent = datacenter.client("one")
        made = Mesh(datacenter, Sidecar(agent, folder, "page", port), Sidecar(agent, folder, "web", 1, "page"))
        try:
            for sidecar in (made.page, made.web):
                sidecar.start()
            eventually(lambda: ask(made.web.upstreams["page"]), "web reaches page")
            yield made
        finally:
            for sidecar in (made.page, made.web):
                sidecar.end()


@pytest.fixture(params=["stand-in", "real"])
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vault]:
    if request.param == "real":
        with real_vault(tmp_path) as running:
            yield running
            running.ask("DELETE", f"sys/mounts/{running.mounts}/root")
    else:
        with VaultStandin() as standin:
            yield Vault(standin.address, ROOT_TOKEN, standin)


def test_into_vault_and_back_without_a_request_lost(mesh: Mesh, vault: Vault) -> None:
    with Load(mesh.web.upstreams["page"]) as load:
        load.more(20)
        mesh.goes_by("vault", vault.config)
        chain = certificates.split_chain(leaf(mesh.web)["CertPEM"])
        assert ".vault.ca." in certificates.read_certificate(chain[1]).name
        load.more(50)
        mesh.goes_by("consul", {})
        load.more(50)
    assert load.lost == []
    text = "".join([mesh.page.log(), mesh.web.log(), *(server.log() for server in mesh.datacenter.servers)])
    assert vault.token not in text and "PRIVATE KEY" not in text


def test_vault_is_sealed_and_who_has_a_certificate_goes_on(mesh: Mesh) -> None:
    with VaultStandin() as standin:
        vault = Vault(standin.address, ROOT_TOKEN, standin)
        mesh.goes_by("vault", vault.config)
        standin.sealed = True
        agent = mesh.web.agent
        with Load(mesh.web.upstreams["page"]) as load:
            status, body = agent.ask("GET", "/v1/agent/connect/ca/leaf/late")
            assert status == 500 and "is sealed: unseal it" in str(body)
            eventually(lambda: "is sealed" in mesh.trouble(), "the trouble is told")
            load.more(50)
        assert load.lost == []
        for sidecar in (mesh.page, mesh.web):
            sidecar.end()
            sidecar.start()
        eventually(lambda: ask(mesh.web.upstreams["page"]), "proxies that were started meanwhile let web reach page")
        standin.sealed = False
        eventually(lambda: agent.ask("GET", "/v1/agent/connect/ca/leaf/late")[0] == 200, "it is signed")
        eventually(lambda: not mesh.trouble(), "the trouble is over")
        mesh.goes_by("consul", {})
