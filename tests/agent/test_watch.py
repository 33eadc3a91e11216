"""The pure half of watches: what configuration means, which answers are news, how long to wait after failures."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from lictor.agent.watch import (
    Change,
    HttpHandler,
    Progress,
    ScriptHandler,
    WatchError,
    WatchPlan,
    parse_agent_watch,
    parse_plan,
    split_handler,
)

PLANS: list[tuple[dict[str, Any], str, tuple[tuple[str, str], ...]]] = [
    ({"type": "key", "key": "a/b c"}, "/v1/kv/a/b%20c", ()),
    ({"type": "keyprefix", "prefix": "web/"}, "/v1/kv/web/", (("recurse", ""),)),
    ({"type": "services"}, "/v1/catalog/services", ()),
    ({"type": "nodes", "datacenter": "dc2", "stale": True}, "/v1/catalog/nodes", (("dc", "dc2"), ("stale", ""))),
    ({"type": "service", "service": "web"}, "/v1/health/service/web", ()),
    (
        {"type": "service", "service": "web", "tag": ["a", "b"], "passingonly": True},
        "/v1/health/service/web",
        (("tag", "a"), ("tag", "b"), ("passing", "1")),
    ),
    ({"type": "service", "service": "web", "tag": "a"}, "/v1/health/service/web", (("tag", "a"),)),
    ({"type": "checks"}, "/v1/health/state/any", ()),
    ({"type": "checks", "state": "critical"}, "/v1/health/state/critical", ()),
    ({"type": "checks", "service": "web"}, "/v1/health/checks/web", ()),
    ({"type": "event"}, "/v1/event/list", ()),
    ({"type": "event", "name": "deploy"}, "/v1/event/list", (("name", "deploy"),)),
    ({"type": "connect_roots"}, "/v1/agent/connect/ca/roots", ()),
    ({"type": "connect_leaf", "service": "web"}, "/v1/agent/connect/ca/leaf/web", ()),
    ({"type": "agent_service", "service_id": "web-1"}, "/v1/agent/service/web-1", ()),
]


@pytest.mark.parametrize(("parameters", "path", "query"), PLANS)
def test_each_type_asks_the_endpoint_that_answers_it(
    parameters: dict[str, Any], path: str, query: tuple[tuple[str, str], ...]
) -> None:
    plan = parse_plan(parameters)
    assert (plan.path, plan.query) == (path, query)
    assert plan.by_hash == (plan.type == "agent_service")


HTTP = {"path": "http://127.0.0.1:9/"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"key": "x", "args": ["x"]}, "Watch type must be specified"),
    ({"type": "bogus", "args": ["x"]}, "Unsupported watch type: bogus"),
    ({"type": "key", "args": ["x"]}, "Must specify a single key to watch"),
    ({"type": "keyprefix", "args": ["x"]}, "Must specify a single prefix to watch"),
    ({"type": "service", "args": ["x"]}, "Must specify a single service to watch"),
    ({"type": "checks", "service": "a", "state": "any", "args": ["x"]}, "Cannot specify service and state"),
    ({"type": "key", "key": 7, "args": ["x"]}, "Expecting key to be a string"),
    ({"type": "nodes", "token": 3, "args": ["x"]}, "Expecting token to be a string"),
    ({"type": "nodes", "stale": "yes", "args": ["x"]}, "Expecting stale to be a boolean"),
    ({"type": "service", "service": "a", "passingonly": "x", "args": ["x"]}, "Expecting passingonly to be a boolean"),
    ({"type": "service", "service": "a", "tag": 3, "args": ["x"]}, "Expecting tag to be a string or []string"),
    ({"type": "service", "service": "a", "tag": ["a", 1], "args": ["x"]}, "Index 1 of tag expected to be string"),
    ({"type": "key", "key": "a", "bogus": 1, "args": ["x"]}, "Invalid parameters: [bogus]"),
    ({"type": "nodes", "http_handler_config": HTTP, "args": ["x"]}, "Invalid parameters: [http_handler_config]"),
    ({"type": "connect_leaf", "args": ["x"]}, "Watch type connect_leaf is not allowed in agent config"),
    ({"type": "key", "key": "a"}, "Must define a watch handler"),
    ({"type": "key", "key": "a", "args": []}, "Must define a watch handler"),
    ({"type": "key", "key": "a", "args": [1]}, "Watch args must be a list of strings"),
    ({"type": "key", "key": "a", "handler": 1}, "Watch handler must be a string"),
    ({"type": "key", "key": "a", "handler": "true", "args": ["x"]}, "Only one watch handler allowed"),
    (
        {"type": "key", "key": "a", "handler_type": "http", "http_handler_config": HTTP, "args": ["x"]},
        "Only one watch handler allowed",
    ),
    ({"type": "key", "key": "a", "handler_type": "bogus", "args": ["x"]}, "Handler type 'bogus' not recognized"),
    (
        {"type": "key", "key": "a", "handler_type": "http"},
        "Handler type 'http' requires 'http_handler_config' to be set",
    ),
    (
        {"type": "key", "key": "a", "handler_type": "http", "http_handler_config": {}},
        "Failed to parse 'http_handler_config': Requires 'path' to be set",
    ),
    (
        {"type": "key", "key": "a", "handler_type": "http", "http_handler_config": {**HTTP, "timeout": "x"}},
        "Failed to parse 'http_handler_config': Failed to parse timeout: time: invalid duration",
    ),
]


@pytest.mark.parametrize(("parameters", "text"), REFUSED)
def test_a_wrong_watch_is_refused_with_the_text_people_know(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(WatchError) as raised:
        parse_agent_watch(parameters)
    assert text in str(raised.value)


def test_a_refused_watch_does_not_show_its_token() -> None:
    with pytest.raises(WatchError) as raised:
        parse_agent_watch({"type": "key", "token": "s3cret", "args": ["x"]})
    assert "s3cret" not in str(raised.value)
    assert "<hidden>" in str(raised.value)


def test_the_handlers_of_the_agents_configuration() -> None:
    script = parse_agent_watch({"type": "nodes", "handler_type": "script", "args": ["/bin/x", "y z"]})
    assert script.handler == ScriptHandler(("/bin/x", "y z"))
    config = {"path": "https://h/x", "method": "put", "timeout": "3s", "header": {"A": ["b", "c"]}}
    http = parse_agent_watch(
        {"type": "nodes", "handler_type": "http", "http_handler_config": {**config, "tls_skip_verify": True}}
    )
    assert http.handler == HttpHandler("https://h/x", "PUT", 3.0, (("A", "b"), ("A", "c")), True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/bin/x -a 'b c' \"d e\"", ("/bin/x", "-a", "b c", "d e")),
        ("echo 'a|b;$c'", ("echo", "a|b;$c")),
        ("echo a\\;b", ("echo", "a;b")),
    ],
)
def test_a_handler_string_without_shell_syntax_is_split(text: str, words: tuple[str, ...]) -> None:
    assert split_handler(text) == words


@pytest.mark.parametrize(
    "text", ["a | b", "a; b", "a && b", "a > b", "echo $X", 'echo "$X"', "echo `x`", "A=1 b", "ls *", "a\nb", "a 'b"]
)
def test_a_handler_string_that_needs_a_shell_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(WatchError, match=r'use args = \["sh", "-c"'):
        split_handler(text)


def answer(progress: Progress, index: int, value: Any, **headers: str) -> Change | None:
    return progress.absorb(200, {"X-Consul-Index": str(index), **headers}, msgspec.json.encode(value))


def test_the_first_answer_is_news_and_later_ones_only_when_they_differ() -> None:
    progress = Progress(parse_plan({"type": "nodes"}))
    assert progress.query() == []
    assert answer(progress, 5, []) == Change(5, [])
    assert progress.query() == [("index", "5")]
    assert answer(progress, 5, ["ignored: the index is the same"]) is None
    assert answer(progress, 6, []) is None
    assert answer(progress, 7, [1]) == Change(7, [1])
    assert progress.query() == [("index", "7")]


def test_an_index_that_goes_backwards_starts_over() -> None:
    progress = Progress(parse_plan({"type": "nodes"}))
    answer(progress, 50, [1])
    assert answer(progress, 3, [2]) == Change(3, [2])
    assert progress.query() == []
    assert progress.pause() > 0
    assert answer(progress, 3, [2]) is None
    assert progress.query() == [("index", "3")]
    assert progress.pause() == 0


def test_a_key_is_one_entry_and_null_while_it_is_missing() -> None:
    progress = Progress(parse_plan({"type": "key", "key": "a"}))
    missing = progress.absorb(404, {"X-Consul-Index": "3"}, b"")
    assert missing == Change(3, None)
    assert missing is not None
    assert missing.payload() == b"null\n"
    assert answer(progress, 4, [{"Key": "a"}]) == Change(4, {"Key": "a"})


def test_the_agents_service_is_followed_by_its_hash() -> None:
    progress = Progress(parse_plan({"type": "agent_service", "service_id": "w"}))
    first = progress.absorb(200, {"X-Consul-ContentHash": "abc"}, b'{"ID":"w"}')
    assert first == Change(0, {"ID": "w"})
    assert progress.query() == [("hash", "abc")]
    assert progress.absorb(200, {"X-Consul-ContentHash": "abc"}, b'{"ID":"w"}') is None
    assert progress.absorb(200, {"X-Consul-ContentHash": "def"}, b'{"ID":"w","Port":1}') is not None


def test_events_are_handed_on_once() -> None:
    progress = Progress(parse_plan({"type": "event"}))
    assert answer(progress, 9, [{"ID": "a"}]) == Change(9, [{"ID": "a"}])
    # An event's index is made from its id, so the next may well be lower.
    assert answer(progress, 4, [{"ID": "a"}, {"ID": "b"}]) == Change(4, [{"ID": "b"}])
    assert progress.query() == [("index", "4")]
    assert answer(progress, 4, [{"ID": "a"}, {"ID": "b"}]) is None


def test_failures_back_off_to_three_minutes_and_a_success_forgets_them() -> None:
    progress = Progress(parse_plan({"type": "nodes"}))
    assert [progress.failed() for _ in range(7)] == [5, 20, 45, 80, 125, 180, 180]
    answer(progress, 1, [])
    assert progress.failed() == 5


def test_an_error_answer_is_told_as_consul_tells_it() -> None:
    progress = Progress(parse_plan({"type": "services"}))
    with pytest.raises(WatchError, match=r"^Unexpected response code: 500 \(No path to datacenter\)$"):
        progress.absorb(500, {}, b"No path to datacenter")


def test_no_answer_breaks_the_state() -> None:
    rng = random.Random(20261120)
    plans = [parse_plan(parameters) for parameters, _, _ in PLANS]
    bodies = [b"", b"null", b"[]", b"{}", b"[1]", b"[{}]", b'[{"ID":1}]', b"\xff", b"[" * 3000, b'{"a":', b"7", b'""']
    indexes = ["", "0", "1", "-1", "18446744073709551615", "x", "1e3", "9" * 30]
    for plan in plans:
        progress = Progress(plan)
        for _ in range(300):
            headers = {"X-Consul-Index": rng.choice(indexes), "X-Consul-ContentHash": rng.choice(["", "a", "b"])}
            try:
                change = progress.absorb(rng.choice([200, 200, 404, 500]), headers, rng.choice(bodies))
            except WatchError:
                continue
            assert change is None or change.payload().endswith(b"\n")
            assert progress.pause() in (0.0, 1.0)
            assert isinstance(plan, WatchPlan)
