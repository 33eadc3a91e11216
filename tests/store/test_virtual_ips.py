"""Virtual addresses: who has one, for how long, and that it is nobody else's meanwhile."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import Any

import msgspec
import pytest

from lictor.model import virtual_ip
from lictor.model.command import ConfigWrite, Deregister, Register, Restore, RestorePart
from lictor.model.errors import LictorError
from lictor.model.node import Node
from lictor.model.service import CONNECT_PROXY, ConnectProxyConfig, NodeService, ServiceAddress, ServiceConnect
from lictor.store import commands, snapshot
from lictor.store.reads import catalog, virtual_ips
from lictor.store.snapshot import Image
from lictor.store.store import Store
from lictor.store.virtual_ips import KINDS
from tests.store.random_commands import Dice

PROXY = NodeService(
    kind=CONNECT_PROXY,
    id="web-proxy",
    service="web-proxy",
    port=21000,
    proxy=ConnectProxyConfig(destination_service_name="Web"),
)


def register(store: Store, service: NodeService, node: str = "n1") -> None:
    commands.apply(store, Register(Node(node=node, address="10.0.0.1"), service), 0)


def configure(store: Store, verb: str, kind: str, name: str, **fields: Any) -> None:
    commands.apply(store, ConfigWrite(verb, kind, name, {"Kind": kind, "Name": name, **fields}), 0)


def address(store: Store, service: str = "web") -> str | None:
    return store.read(virtual_ips.virtual_ip, service).value


def shown(store: Store, node: str = "n1", service_id: str = "web-proxy") -> Any:
    found = store.read(catalog.node_services, node).value
    assert found is not None
    return (found.services[service_id].tagged_addresses or {}).get(virtual_ip.TAG)


def test_a_service_that_the_mesh_reaches_has_an_address_of_the_range() -> None:
    store = Store()
    register(store, NodeService(id="web", service="web", port=80))
    assert address(store) is None, "nothing takes connections of the mesh for it"
    register(store, PROXY)
    found = address(store, "WEB")
    assert found is not None
    assert ipaddress.ip_address(found) in ipaddress.ip_network("240.0.0.0/4")
    assert shown(store) == ServiceAddress(found, 21000)
    assert shown(store, service_id="web") is None
    register(store, NodeService(id="api", service="api", port=80, connect=ServiceConnect(native=True)))
    assert shown(store, service_id="api") == ServiceAddress(address(store, "api") or "", 80)
    assert address(store, "api") != found


def test_what_a_registration_says_of_it_does_not_matter() -> None:
    store = Store()
    mine = {virtual_ip.TAG: ServiceAddress("240.1.2.3", 1), "lan": ServiceAddress("10.0.0.9", 2)}
    register(store, msgspec.structs.replace(PROXY, tagged_addresses=mine))
    row = store.services.get(("n1", "web-proxy"))
    assert row is not None
    assert row.service.tagged_addresses == {
        "lan": ServiceAddress("10.0.0.9", 2),
        virtual_ip.TAG: ServiceAddress(address(store) or "", 21000),
    }
    before = store.touched["service", "web-proxy"]
    register(store, PROXY)
    after = store.touched["service", "web-proxy"]
    assert after > before
    register(store, PROXY)
    assert store.touched["service", "web-proxy"] == after, "the same registration changes nothing"


def test_it_lasts_as_long_as_an_instance_or_an_entry_needs_it() -> None:
    store = Store()
    register(store, PROXY)
    register(store, PROXY, "n2")
    found = address(store)
    commands.apply(store, Deregister("n1", "web-proxy"), 0)
    configure(store, "upsert", "service-resolver", "web")
    commands.apply(store, Deregister("n2"), 0)
    assert address(store) == found
    configure(store, "delete", "service-resolver", "web")
    assert address(store) is None
    assert store.read(virtual_ips.virtual_ips).value == []
    register(store, PROXY)
    assert address(store) == found, "who remembers it reaches the same service"
    register(store, msgspec.structs.replace(PROXY, proxy=ConnectProxyConfig(destination_service_name="other")))
    assert (address(store), address(store, "other") is None) == (None, False)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("service-intentions", {"Sources": [{"Name": "api", "Action": "allow"}]}),
        ("service-defaults", {"Protocol": "http"}),
        ("service-resolver", {}),
    ],
)
def test_config_entries_about_a_service_give_it_one(kind: str, fields: dict[str, Any]) -> None:
    store = Store()
    configure(store, "upsert", kind, "Web", **fields)
    assert address(store) is not None
    configure(store, "delete", kind, "Web")
    assert address(store) is None


def test_those_about_all_services_or_none_give_no_address() -> None:
    store = Store()
    configure(store, "upsert", "service-intentions", "*", Sources=[{"Name": "api", "Action": "deny"}])
    configure(store, "upsert", "proxy-defaults", "global")
    assert store.read(virtual_ips.virtual_ips).value == []


def test_services_that_prefer_the_same_address_get_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lictor.store.virtual_ips.preferred", lambda service: virtual_ip.COUNT - 1)
    store = Store()
    for name in ("a", "b", "c"):
        configure(store, "upsert", "service-resolver", name)
    found = [address(store, name) for name in ("a", "b", "c")]
    assert found == ["255.255.255.254", "240.0.0.1", "240.0.0.2"]
    configure(store, "delete", "service-resolver", "a")
    assert [address(store, name) for name in ("b", "c")] == found[1:], "who has one keeps it"
    configure(store, "upsert", "service-resolver", "d")
    assert address(store, "d") == "255.255.255.254"


def test_a_failed_command_gives_none() -> None:
    store = Store()
    bad = NodeService(id="", service="web", connect=ServiceConnect(native=True))
    with pytest.raises(Exception, match=re.escape("missing primary index")):
        register(store, bad)
    assert address(store) is None


async def test_states_have_the_addresses_and_those_from_before_get_them() -> None:
    store = Store()
    register(store, PROXY)
    configure(store, "upsert", "service-resolver", "db")
    wanted = [(row.service, row.address) for row in store.read(virtual_ips.virtual_ips).value]
    assert [service for service, _ in wanted] == ["db", "web"]
    state = b"".join(Image(store).encode())
    other = Store()
    await snapshot.load_pieces(other, [state])
    assert [(r.service, r.address) for r in other.virtual_ips] == wanted
    old = before_there_were_any(store)
    await snapshot.load_pieces(other, [old])
    assert [(r.service, r.address) for r in other.virtual_ips] == wanted
    assert shown(other) == ServiceAddress(dict(wanted)["web"], 21000)
    live = Store()
    commands.apply(live, RestorePart("t", 0, old), 0)
    commands.apply(live, Restore("t", 1), 0)
    assert [(r.service, r.address) for r in live.virtual_ips] == wanted


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_who_needs_an_address_has_one_alone_and_shows_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lictor.store.virtual_ips.preferred", lambda service: 7)  # all prefer the same one
    store = Store()
    for command in Dice(seed).script(400):
        with contextlib.suppress(LictorError):
            commands.apply(store, command, 1000.0)
        mesh = [row.service for row in store.services if row.service.connect_name]
        entries = {row.name.lower() for row in store.config if row.kind in KINDS}
        given = {row.service: row.address for row in store.virtual_ips}
        assert given.keys() == ({one.connect_name.lower() for one in mesh} | entries) - {"*"}
        assert len(set(given.values())) == len(given)
        for one in mesh:
            tagged = (one.tagged_addresses or {})[virtual_ip.TAG]
            assert tagged == ServiceAddress(given[one.connect_name.lower()], one.port)


def before_there_were_any(store: Store) -> bytes:
    """The state of a store, as a version would write it that knows nothing of such addresses."""
    older = Store()
    older.services.fill(
        msgspec.structs.replace(i, service=msgspec.structs.replace(i.service, tagged_addresses=None))
        for i in store.services
    )
    older.nodes.fill(store.nodes)
    older.config.fill(store.config)
    older.index = store.index
    image = Image(older)
    rows = {name: count for name, count in image.header.rows.items() if name != "virtual_ips"}
    image.header = msgspec.structs.replace(image.header, rows=rows)
    return b"".join(image.encode())
