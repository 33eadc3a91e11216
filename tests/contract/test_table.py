"""The compatibility table is the one that the cases give, and the harness tells good from bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract import deliberate, table
from tests.contract.covers import ALL_ENDPOINTS, coverage, endpoint_of
from tests.contract.scenario import load_all, parse, render


def test_the_document_is_current() -> None:
    """docs/compatibility.md is written anew after a case changes."""
    written = table.DOCUMENT.read_text() if table.DOCUMENT.exists() else ""
    assert written == table.document(), "run `python -m tests.contract.table`"


def test_every_endpoint_has_a_case() -> None:
    """Nothing that is promised goes untested."""
    table.document()
    covered = coverage(load_all())
    assert [name for name in ALL_ENDPOINTS if not covered[name].requests and not covered[name].cases] == []


def test_every_changed_answer_is_asked_for() -> None:
    """A difference on purpose whose request is gone would stay unnoticed."""
    asked = {(item.title, " ".join([step.request, *step.body])) for item in load_all() for step in item.steps}
    assert [item.request for item in deliberate.CHANGED if (item.scenario, item.request) not in asked] == []


def test_a_changed_answer_is_for_one_request() -> None:
    """A request that a scenario sends twice would have both of its answers replaced."""
    asked = [(item.title, " ".join([step.request, *step.body])) for item in load_all() for step in item.steps]
    assert [item.request for item in deliberate.CHANGED if asked.count((item.scenario, item.request)) > 1] == []


def test_a_scenario_is_rendered_as_it_was_read() -> None:
    """Recording changes answers and nothing else."""
    for scenario in load_all():
        assert render(scenario, [step.expected for step in scenario.steps]) == scenario.path.read_text()


def test_a_mistaken_line_is_named() -> None:
    """With file, line and what may stand there."""
    with pytest.raises(ValueError, match=r"x\.txt:2: a line starts with"):
        parse(Path("x.txt"), "> GET /\nwrong\n")
    with pytest.raises(ValueError, match=r"x\.txt:1: a request"):
        parse(Path("x.txt"), "  200\n")


@pytest.mark.parametrize(
    ("request_line", "endpoint", "parameters"),
    [
        ("GET /v1/kv/{name}/a/b?recurse&dc=dc1", "GET /v1/kv/:key", ["recurse", "dc"]),
        ("GET /v1/query/{id}/execute?near=x", "GET /v1/query/:query/execute", ["near"]),
        ("GET /v1/agent/health/service/name/{name}", "GET /v1/agent/health/service/name/:service", []),
    ],
)
def test_a_request_is_counted_for_its_endpoint(request_line: str, endpoint: str, parameters: list[str]) -> None:
    """Placeholders match one part of a path, a key matches the rest."""
    assert endpoint_of(request_line) == (endpoint, parameters)


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        (["200 application/json", '{"A": 1}'], ["200 application/json", '{"A": 1, "ExposedPort": 0}'], True),
        (["200 application/json", '{"A": 1}'], ["200 application/json", '{"A": 1, "Unknown": 0}'], False),
        (["200 application/json", '{"A": 1, "Interval": "1s"}'], ["200 application/json", '{"A": 1}'], False),
        (["200 application/json", '{"A": null}'], ["200 application/json", '{"A": {}}'], False),
        (["200 application/json", "[]"], ["200 application/json", "null"], False),
        (["200 application/json", "[]"], ["200 application/json", '[{"ExposedPort": 0}]'], False),
        (["200"], ["200", "X-Consul-Query-Backend: blocking-query"], True),
        (["500", "X-Consul-Knownleader: false", "text"], ["500", "text"], True),
        (["200", "X-Consul-Index: <index>"], ["200"], False),
        (["NOERROR aa"], ["NOERROR aa", 'answer: a. 0 TXT "consul-version=1"'], True),
        (["NOERROR aa"], ["NOERROR aa", 'answer: a. 0 TXT "other=1"'], False),
        (["400", "Request decode failed: EOF"], ["400", "Request decode failed: empty"], True),
        (["200"], ["404 text/plain; charset=utf-8", 'Unknown check ID "x". Ensure that'], False),
        (["404"], ["404 text/plain; charset=utf-8", "Invalid URL path: not a recognized HTTP API endpoint"], True),
        (
            ["404", "(query)"],
            ["404 text/plain; charset=utf-8", "Invalid URL path: not a recognized HTTP API endpoint"],
            False,
        ),
        (["200"], ["404 text/plain; charset=utf-8", "Invalid URL path: not a recognized HTTP API endpoint"], False),
        (["400", "Request decode failed: EOF"], ["500", "Request decode failed: EOF"], False),
    ],
)
def test_only_what_is_named_may_differ(expected: list[str], got: list[str], same: bool) -> None:
    """The table of deliberate differences hides nothing else."""
    one, other = deliberate.compare("any", "GET /", expected, got)
    assert (one == other) is same
