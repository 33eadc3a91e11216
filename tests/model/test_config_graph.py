"""Changes to config entries that would leave entries that do not go together."""

from __future__ import annotations

from typing import Any

import pytest

from lictor.model.config_entry import ConfigEntry, InvalidConfigEntry, check_graph, decode_entry, service_protocol

Json = dict[str, Any]


def entries(*written: Json) -> dict[tuple[str, str], ConfigEntry]:
    decoded = [decode_entry(one) for one in written]
    return {(entry.kind, entry.name): entry for entry in decoded}


def speaks(name: str, protocol: str, **fields: Any) -> Json:
    return {"Kind": "service-defaults", "Name": name, "Protocol": protocol, **fields}


def resolver(name: str, **fields: Any) -> Json:
    return {"Kind": "service-resolver", "Name": name, **fields}


def router(name: str, **destination: Any) -> Json:
    return {"Kind": "service-router", "Name": name, "Routes": [{"Destination": destination}]}


def splitter(name: str, *services: str) -> Json:
    splits = [{"Weight": 100 / len(services), "Service": service} for service in services]
    return {"Kind": "service-splitter", "Name": name, "Splits": splits}


def ingress(protocol: str, service: str) -> Json:
    listener = {"Port": 80, "Protocol": protocol, "Services": [{"Name": service}]}
    return {"Kind": "ingress-gateway", "Name": "in", "Listeners": [listener]}


EVERYTHING_HTTP = {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}}


@pytest.mark.parametrize(
    ("changed", "others"),
    [
        (router("a"), [speaks("a", "http")]),
        (router("a", Service="b"), [EVERYTHING_HTTP]),
        (splitter("a", "a", "b"), [speaks("a", "http"), speaks("b", "http")]),
        (splitter("a", "b", "c"), [EVERYTHING_HTTP, splitter("b", "b", "c")]),
        (router("a", ServiceSubset="v1"), [speaks("a", "http"), resolver("a", Subsets={"v1": {}})]),
        (resolver("a", Redirect={"Service": "a"}), []),
        (resolver("a", Redirect={"Datacenter": "dc2"}), []),
        (resolver("a", Failover={"*": {"Datacenters": ["dc2"]}}), [speaks("a", "http")]),
        (resolver("a", Failover={"*": {"Targets": [{"Peer": "east", "Service": "b"}]}}), [speaks("a", "http")]),
        (ingress("http", "a"), [speaks("a", "http")]),
        (ingress("http", "*"), []),
        (speaks("a", "http"), [ingress("tcp", "a")]),
    ],
)
def test_entries_that_go_together_are_accepted(changed: Json, others: list[Json]) -> None:
    check_graph(changed["Kind"], changed["Name"], entries(*others, changed))


ADVANCED = "that does not permit advanced routing or splitting behavior"


@pytest.mark.parametrize(
    ("changed", "others", "error"),
    [
        (router("a"), [], f'discovery chain "a" uses a protocol "tcp" {ADVANCED}'),
        (splitter("a", "a"), [], f'discovery chain "a" uses a protocol "tcp" {ADVANCED}'),
        (speaks("a", ""), [EVERYTHING_HTTP, router("a")], f'discovery chain "a" uses a protocol "tcp" {ADVANCED}'),
        (
            splitter("a", "a", "b"),
            [speaks("a", "http")],
            'discovery chain "a" uses inconsistent protocols; service "b" has "tcp" which is not "http"',
        ),
        (
            speaks("b", "tcp"),
            [speaks("a", "http"), resolver("a", Failover={"*": {"Service": "b"}})],
            'discovery chain "a" uses inconsistent protocols; service "b" has "tcp" which is not "http"',
        ),
        (router("a", ServiceSubset="v1"), [speaks("a", "http")], 'service "a" does not have a subset named "v1"'),
        (
            resolver("b"),
            [resolver("a", Redirect={"Service": "b", "ServiceSubset": "v1"})],
            'service "b" does not have a subset named "v1"',
        ),
        (
            resolver("a", Redirect={"Service": "b"}),
            [resolver("b", Redirect={"Service": "a"})],
            "detected circular resolver redirect: [a -> b -> a]",
        ),
        (
            splitter("a", "a", "b"),
            [EVERYTHING_HTTP, splitter("b", "b", "a")],
            "detected circular reference: [splitter:a.default -> splitter:b.default -> splitter:a.default]",
        ),
        (
            speaks("a", "http", ExternalSNI="x"),
            [resolver("a", Subsets={"v1": {}})],
            'service "a" has an external SNI set; cannot define subsets for external services',
        ),
        (
            ingress("tcp", "a"),
            [speaks("a", "http")],
            'service "a" has protocol "http", which does not match defined listener protocol "tcp"',
        ),
        (
            speaks("a", "tcp"),
            [ingress("http", "a")],
            'service "a" has protocol "tcp", which does not match defined listener protocol "http"',
        ),
    ],
)
def test_entries_that_do_not_are_refused(changed: Json, others: list[Json], error: str) -> None:
    with pytest.raises(InvalidConfigEntry) as raised:
        check_graph(changed["Kind"], changed["Name"], entries(*others, changed))
    assert str(raised.value) == error


def test_a_deletion_may_be_refused() -> None:
    left = entries(router("a"), speaks("b", "http"))
    with pytest.raises(InvalidConfigEntry, match="advanced routing"):
        check_graph("service-defaults", "a", left)
    check_graph("service-defaults", "c", left)
    with pytest.raises(InvalidConfigEntry, match="advanced routing"):
        check_graph("proxy-defaults", "global", left)


def test_a_services_protocol() -> None:
    known = entries(EVERYTHING_HTTP, speaks("a", "grpc"), speaks("b", ""))
    assert [service_protocol(name, known) for name in "abc"] == ["grpc", "tcp", "http"]
    assert service_protocol("a", {}) == "tcp"
