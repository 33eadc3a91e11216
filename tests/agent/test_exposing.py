"""Checks that go through a proxy: which can, where they go then, and which ports they get."""

from __future__ import annotations

import pytest

from lictor.agent.checks.exposed import Through, redirected, through
from lictor.agent.exposing import Exposure, Wanted, Wish, allot
from lictor.model.service import ExposePath
from lictor.model.service_definition import CheckDefinition

GRPC = "/grpc.health.v1.Health/Check"


@pytest.mark.parametrize(
    ("definition", "let_through", "run"),
    [
        (
            CheckDefinition(http="http://10.0.0.1:8080/health?deep=1", interval=1),
            Through("http", "/health", 8080),
            "http://proxy:21500/health?deep=1",
        ),
        (CheckDefinition(http="http://localhost", interval=1), Through("http", "/", 80), "http://proxy:21500"),
        (CheckDefinition(http="http://[::1]:81/a", interval=1), Through("http", "/a", 81), "http://proxy:21500/a"),
        (CheckDefinition(grpc="127.0.0.1:9000/shop", interval=1), Through("http2", GRPC, 9000), "proxy:21500/shop"),
        (CheckDefinition(grpc="[::1]:9000", interval=1), Through("http2", GRPC, 9000), "proxy:21500"),
    ],
)
def test_checks_of_http_and_grpc_go_through_a_proxy(
    definition: CheckDefinition, let_through: Through, run: str
) -> None:
    assert through(definition) == let_through
    made = redirected(definition, "proxy:21500")
    assert made.http + made.grpc == run


@pytest.mark.parametrize(
    "definition",
    [
        CheckDefinition(http="https://127.0.0.1:8443/", interval=1),
        CheckDefinition(http="http://127.0.0.1:99999/", interval=1),
        CheckDefinition(http="http://[::1/", interval=1),
        CheckDefinition(http="/health", interval=1),
        CheckDefinition(grpc="127.0.0.1", interval=1),
        CheckDefinition(grpc="127.0.0.1:9000", grpc_use_tls=True, interval=1),
        CheckDefinition(tcp="127.0.0.1:80", interval=1),
        CheckDefinition(ttl=10),
        CheckDefinition(),
    ],
)
def test_other_checks_do_not(definition: CheckDefinition) -> None:
    assert through(definition) is None


def wish(check_id: str, proxy_id: str = "proxy", host: str = "127.0.0.1") -> Wish:
    return Wish(check_id, proxy_id, host, Through("http", "/health", 8080))


def ports_of(found: dict[str, Exposure]) -> dict[str, int]:
    return {check_id: one.port for check_id, one in found.items()}


def test_a_check_has_a_port_as_long_as_it_is_exposed() -> None:
    first = allot(Wanted((wish("a"), wish("b"), wish("c")), frozenset({2})), range(1, 5), {})
    assert ports_of(first) == {"a": 1, "b": 3, "c": 4}
    second = allot(Wanted((wish("d"), wish("c"), wish("b")), frozenset()), range(1, 5), first)
    assert ports_of(second) == {"d": 1, "c": 4, "b": 3}
    third = allot(Wanted((wish("c"), wish("b")), frozenset({4})), range(1, 5), second)
    assert ports_of(third) == {"c": 1, "b": 3}, "a proxy's own path goes before"


def test_where_no_port_is_left_a_check_is_not_exposed() -> None:
    wanted = Wanted((wish("a"), wish("b")), frozenset())
    assert ports_of(allot(wanted, range(7, 8), {})) == {"a": 7}
    assert allot(wanted, range(0), {}) == {}


def test_an_exposed_check_is_a_path_of_its_proxy_at_the_proxys_address() -> None:
    one = Exposure(wish("a", host="2001:db8::1"), 21500)
    assert one.target == "[2001:db8::1]:21500"
    assert one.path == ExposePath(21500, "/health", 8080, "http", parsed_from_check=True)
