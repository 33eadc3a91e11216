"""What a node had signed for a service is revoked when it has the service no more, and at no other time."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from lictor.agent.leaves import Leaves
from lictor.agent.leaves_book import Leaf
from lictor.agent.leaves_files import LeafFiles
from lictor.agent.leaves_issued import MOST_EACH, Issued, Ledger, Record
from lictor.agent.leaves_revoking import Revoking
from lictor.ca import certificates
from lictor.model.connect_ca import RevokedLeaf, fingerprint
from lictor.model.errors import LictorError, NoLeader
from lictor.model.spiffe import SigningId, trust_domain
from tests.agent.checks.virtual_time import run_virtually
from tests.agent.test_leaves import Authority
from tests.patience import soon

NOW = 1e9
DOMAIN = SigningId(trust_domain("11111111-2222-3333-4444-555555555555"))
KEY = certificates.make_key()
PEM, OTHER_PEM = (certificates.make_root(KEY, DOMAIN, "root", 3600.0, time.time(), number) for number in (1, 2))
LEAF = Leaf(
    service="web",
    uri="",
    serial="01",
    certificate=PEM,
    key=KEY,
    valid_after=0.0,
    valid_before=NOW,
    authority="",
    root="",
    create_index=1,
    modify_index=1,
)


class Servers(Authority):
    """Servers that revoke; `away` is raised instead where it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.away: LictorError | None = None
        self.tried: list[float] = []
        self.revoked: list[RevokedLeaf] = []

    async def revoke(self, leaves: tuple[RevokedLeaf, ...]) -> None:
        self.tried.append(asyncio.get_running_loop().time())
        if self.away is not None:
            raise self.away
        self.revoked += leaves


class Node:
    """An agent's leaves, and the services that it has."""

    def __init__(self, servers: Servers, folder: Path | None, *services: str) -> None:
        self.services = list(services)
        self.leaves = Leaves(
            "dc1",
            LeafFiles(folder),
            servers.sign,
            servers.roots,
            node="n1",
            revoke=servers.revoke,
            is_local=lambda name: name in self.services,
            chance=lambda: 0.0,
        )
        self.leaves.start()

    def register(self, service: str) -> None:
        self.services.append(service)
        self.leaves.services_changed([service])

    def deregister(self, service: str) -> None:
        self.services.remove(service)
        self.leaves.services_changed([service])


async def test_the_last_instance_takes_its_leaf_along_and_the_next_has_another_key() -> None:
    servers = Servers()
    node = Node(servers, None, "web", "web", "db")
    first, other = await node.leaves.get("web"), await node.leaves.get("db")
    node.deregister("web")
    assert await node.leaves.get("web") == first, "there is another instance"
    node.deregister("web")
    assert not node.leaves.held("web")
    await soon(lambda: bool(servers.revoked), "it is revoked")
    [found] = servers.revoked
    assert (found.serial, found.service, found.node, found.until) == (first.serial, "web", "n1", first.valid_before)
    assert found.fingerprint == fingerprint(first.certificate)
    node.register("web")
    second = await node.leaves.get("web")
    assert second.key != first.key and second.serial != first.serial
    assert await node.leaves.get("db") == other
    await node.leaves.close()


async def test_former_leaves_that_have_not_ended_are_revoked_too() -> None:
    servers = Servers()
    node = Node(servers, None, "web")
    first = await node.leaves.get("web")
    servers.rotate()
    second = await node.leaves.get("web", index=first.modify_index, wait=60.0)
    node.deregister("web")
    await soon(lambda: len(servers.revoked) == 2, "it is revoked")
    assert {leaf.serial for leaf in servers.revoked} == {first.serial, second.serial}
    await node.leaves.close()


async def test_whoever_waits_for_the_leaf_gets_one_with_another_key() -> None:
    servers = Servers()
    node = Node(servers, None, "web")
    first = await node.leaves.get("web")
    waiting = asyncio.ensure_future(node.leaves.get("web", index=first.modify_index, wait=60.0))
    await asyncio.sleep(0)
    node.deregister("web")
    second = await waiting
    assert second.key != first.key
    await soon(lambda: [leaf.serial for leaf in servers.revoked] == [first.serial], "it is revoked")
    await node.leaves.close()


async def test_names_have_no_case_and_a_service_that_was_never_here_is_left_alone() -> None:
    servers = Servers()
    node = Node(servers, None, "web")
    leaf = await node.leaves.get("Web")
    await node.leaves.get("client")
    node.deregister("web")
    await soon(lambda: [found.serial for found in servers.revoked] == [leaf.serial], "it is revoked")
    assert node.leaves.held("client")
    await node.leaves.close()


def test_it_is_tried_again_ever_more_seldom_while_the_servers_are_away() -> None:
    async def scenario() -> None:
        servers, services = Servers(), {"web"}
        revoking = Revoking(
            "n1",
            LeafFiles(None),
            lambda *arguments: None,
            servers.revoke,
            lambda name: name in services,
            chance=lambda: 0.5,
            wall=asyncio.get_running_loop().time,
        )
        revoking.signed(LEAF)
        servers.away = NoLeader()
        services.clear()
        assert revoking.services_changed(["web"]) == ["web"]
        await asyncio.sleep(600.0)
        gaps = [after - before for before, after in zip(servers.tried, servers.tried[1:], strict=False)]
        assert gaps == sorted(gaps) and gaps[0] < 1.0 and 40.0 < gaps[-1] <= 60.0
        servers.away = None
        await asyncio.sleep(60.0)
        assert len(servers.revoked) == 1
        tried = len(servers.tried)
        await asyncio.sleep(600.0)
        assert len(servers.tried) == tried
        await revoking.close()

    run_virtually(scenario())


def test_a_leaf_that_proxies_drain_with_is_revoked_when_they_have_had_the_time() -> None:
    """Whatever else is deregistered meanwhile."""

    async def scenario() -> None:
        loop, servers = asyncio.get_running_loop(), Servers()
        revoking = Revoking(
            "n1",
            LeafFiles(None),
            lambda *arguments: None,
            servers.revoke,
            lambda name: False,
            wall=loop.time,
        )
        begun = loop.time()
        for number in range(10):
            revoking.signed(msgspec.structs.replace(LEAF, service=f"s{number}", serial=f"0{number}"))
            assert revoking.services_changed([f"s{number}"], {f"s{number}"}) == [f"s{number}"]
            await asyncio.sleep(10.0)
        await asyncio.sleep(60.0)
        assert [leaf.serial for leaf in servers.revoked] == [f"0{number}" for number in range(10)]
        assert [round(time - begun) for time in servers.tried] == [30 + 10 * number for number in range(10)]
        await revoking.close()

    run_virtually(scenario())


async def test_what_could_not_be_revoked_is_after_a_restart(tmp_path: Path) -> None:
    servers, folder = Servers(), tmp_path / "leaves"
    node = Node(servers, folder, "web")
    leaf = await node.leaves.get("web")
    servers.away = NoLeader()
    node.deregister("web")
    await soon(lambda: bool(servers.tried), "it is tried")
    await node.leaves.close()
    assert not any(leaf.key.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    servers.away = None
    again = Node(servers, folder)
    await soon(lambda: [found.serial for found in servers.revoked] == [leaf.serial], "it is revoked")
    await again.leaves.close()
    assert not list((folder / "issued").iterdir())
    node = Node(servers, folder)
    await node.leaves.close()
    assert len(servers.revoked) == 1


async def test_a_restart_revokes_nothing_but_what_is_not_registered_any_more(tmp_path: Path) -> None:
    servers, folder = Servers(), tmp_path / "leaves"
    node = Node(servers, folder, "web", "db")
    web, _ = await node.leaves.get("web"), await node.leaves.get("db")
    unregistered = await node.leaves.get("client")
    await node.leaves.close()
    node = Node(servers, folder, "web", "db")
    assert await node.leaves.get("web") == web
    await node.leaves.close()
    assert not servers.tried
    node = Node(servers, folder, "db")  # the configuration files have web no more
    await soon(lambda: [found.serial for found in servers.revoked] == [web.serial], "it is revoked")
    assert not node.leaves.held("web")
    assert await node.leaves.get("client") == unregistered
    await node.leaves.close()


async def test_which_leaves_are_revoked_is_known_after_a_restart_while_the_servers_are_away(tmp_path: Path) -> None:
    files = LeafFiles(tmp_path / "leaves")
    assert files.revoked() == []
    rows = [RevokedLeaf("0a", "ab" * 32, "web", "n1", time.time() + 60.0)]
    files.save_revoked(rows)
    assert files.revoked() == rows
    assert list(files.leaves()) == []
    (tmp_path / "leaves" / "revoked.json").write_text("{")
    assert files.revoked() == []


def issued(number: int, until: float = NOW + 60.0) -> Issued:
    return Issued(f"{number:04x}", "ab" * 32, until)


class TestLedger:
    def test_what_has_ended_is_forgotten(self) -> None:
        ledger = Ledger()
        ledger.signed("web", issued(1), NOW, registered=True)
        ledger.signed("web", issued(2, NOW + 600.0), NOW + 61.0, registered=True)
        assert ledger.left("web", NOW + 62.0) == ["web"]
        assert [leaf.serial for _, leaf in ledger.to_revoke(9, NOW + 62.0)] == ["0002"]
        assert ledger.to_revoke(9, NOW + 601.0) == []
        assert ledger.changed() == [Record("web")]
        assert ledger.changed() == []
        assert ledger.named("web") == []

    def test_a_service_has_so_many_leaves_at_most_and_the_youngest_are_known(self) -> None:
        ledger = Ledger()
        for number in range(MOST_EACH + 10):
            ledger.signed("web", issued(number), NOW, registered=True)
        ledger.left("web", NOW)
        found = ledger.to_revoke(1000, NOW)
        assert len(found) == MOST_EACH and found[-1][1] == issued(MOST_EACH + 9)
        ledger.revoked(found[:10], NOW)
        assert len(ledger.to_revoke(1000, NOW)) == MOST_EACH - 10

    def test_a_service_that_comes_back_keeps_what_is_signed_then(self) -> None:
        ledger = Ledger()
        ledger.signed("web", issued(1), NOW, registered=True)
        ledger.left("web", NOW)
        ledger.signed("web", issued(2), NOW, registered=True)
        ledger.revoked(ledger.to_revoke(9, NOW), NOW)
        assert ledger.get("web") == Record("web", True, (issued(2),))


def test_a_fingerprint_is_of_the_first_certificate_alone() -> None:
    assert fingerprint(PEM + OTHER_PEM) == fingerprint(PEM) != fingerprint(OTHER_PEM)
    with pytest.raises(ValueError, match="PEM"):
        fingerprint("no certificate")
