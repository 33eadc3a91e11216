"""`/v1/query`: definitions and what they answer."""

import json
from typing import Any

import pytest

from tests.http.conftest import Door

NOBODY = "7b1c9a5e-0000-4000-8000-000000000000"


async def define(door: Door, **query: Any) -> tuple[int, str]:
    status, _, body = await door.call("POST", "/v1/query", json=query)
    return status, json.loads(body)["ID"] if status == 200 else body.decode()


async def test_the_life_of_a_query(door: Door) -> None:
    status, query_id = await define(door, Name="q", Service={"Service": "consul"})
    assert status == 200
    (shown,) = await door.json(f"/v1/query/{query_id.upper()}")
    assert shown["Name"] == "q"
    assert shown["Service"]["Failover"] == {"NearestN": 0, "Datacenters": None}
    assert shown["CreateIndex"] == shown["ModifyIndex"]
    assert (await door.put(f"/v1/query/{query_id}", {"Name": "p", "Service": {"Service": "web"}})) == (200, b"")
    (changed,) = await door.json("/v1/query")
    assert (changed["ID"], changed["Name"], changed["CreateIndex"]) == (query_id, "p", shown["CreateIndex"])
    assert changed["ModifyIndex"] > shown["ModifyIndex"]
    assert (await door.call("DELETE", f"/v1/query/{query_id}"))[::2] == (200, b"")
    status, _, body = await door.get(f"/v1/query/{query_id}")
    assert (status, body) == (404, b"Query not found")


async def test_executing_and_explaining(door: Door) -> None:
    _, query_id = await define(door, Name="q", Service={"Service": "consul"}, DNS={"TTL": "10s"})
    for name in ("q", "Q", query_id):
        found = await door.json(f"/v1/query/{name}/execute?limit=5")
        assert (found["Service"], found["Datacenter"], found["Failovers"]) == ("consul", "dc1", 0)
        assert found["DNS"] == {"TTL": "10s"}
        assert [row["Node"]["Node"] for row in found["Nodes"]] == ["n1"]
        assert (found["KnownLeader"], found["ConsistencyLevel"]) == (True, "leader")
    assert (await door.json("/v1/query/q/execute?connect=true"))["Nodes"] == []
    assert (await door.json("/v1/query/q/explain"))["Query"]["ID"] == query_id
    _, headers, _ = await door.get("/v1/query/q/execute?cached&stale")
    assert (headers["x-cache"], headers["x-consul-effective-consistency"]) == ("MISS", "stale")
    for path, text in (
        ("q/execute?limit=z", 'Bad limit: strconv.Atoi: parsing "z": invalid syntax'),
        ("q/execute?connect=z", "Error parsing 'connect' value: strconv.ParseBool: parsing \"z\": invalid syntax"),
    ):
        status, _, body = await door.get(f"/v1/query/{path}")
        assert (status, body.decode()) == (500, text)
    for verb in ("execute", "explain"):
        status, _, body = await door.get(f"/v1/query/nope/{verb}")
        assert (status, body) == (404, b"Query not found")


async def test_templates_answer_for_names_with_their_prefix(door: Door) -> None:
    template = {"Type": "name_prefix_match", "Regexp": "^geo-(.*)$"}
    _, query_id = await define(door, Name="geo-", Template=template, Service={"Service": "${match(1)}"})
    assert (await door.json("/v1/query/geo-consul/execute"))["Service"] == "consul"
    assert (await door.json("/v1/query/geo-consul/explain"))["Query"]["Service"]["Service"] == "consul"
    status, _, body = await door.get(f"/v1/query/{query_id}/execute")
    assert (status, body) == (500, b"prepared query templates can only be resolved up by name, not by ID")


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ({}, 500, "Invalid prepared query: Must be bound to a session"),
        ({"Name": "x"}, 500, "Invalid prepared query: Must provide a Service name to query"),
        ({"Foo": 1}, 400, 'Request decode failed: json: unknown field "Foo"'),
        ({"ID": NOBODY, "Name": "x"}, 500, "ID must be empty when creating a new prepared query"),
        (
            {"Name": "x", "Service": {"Service": "s", "Failover": {"NearestN": -1}}},
            500,
            "Invalid prepared query: Bad NearestN '-1', must be >= 0",
        ),
        (
            {"Name": "x", "Service": {"Service": "s"}, "DNS": {"TTL": "soon"}},
            500,
            "Invalid prepared query: Bad DNS TTL 'soon': time: invalid duration \"soon\"",
        ),
        (
            {"Name": "x", "Service": {"Service": "s"}, "DNS": {"TTL": "-1s"}},
            500,
            "Invalid prepared query: DNS TTL '-1000000000', must be >=0",
        ),
        ({"Service": {"Service": "s"}, "Session": NOBODY}, 500, f'invalid session "{NOBODY}"'),
        (
            {"Name": "x", "Template": {"Type": "y"}, "Service": {"Service": "s"}},
            500,
            "failed compiling template: Bad Template.Type 'y'",
        ),
    ],
)
async def test_what_cannot_be_a_query(door: Door, query: dict[str, Any], status: int, text: str) -> None:
    assert await define(door, **query) == (status, text)
    assert await door.json("/v1/query") == []


async def test_names_are_unique(door: Door) -> None:
    await define(door, Name="q", Service={"Service": "s"})
    assert await define(door, Name="Q", Service={"Service": "s"}) == (500, "name 'Q' aliases an existing query name")
    everything = {"Name": "", "Template": {"Type": "name_prefix_match"}, "Service": {"Service": "${name.full}"}}
    _, query_id = await define(door, **everything)
    assert await define(door, **everything) == (500, "a query template with an empty name already exists")
    assert await define(door, Name=query_id, Service={"Service": "s"}) == (
        500,
        f"name '{query_id}' aliases an existing query ID",
    )


async def test_a_query_goes_with_its_session(door: Door) -> None:
    _, body = await door.put("/v1/session/create", {"NodeChecks": []})
    session = json.loads(body)["ID"]
    await define(door, Service={"Service": "s"}, Session=session)
    assert len(await door.json("/v1/query")) == 1
    await door.put(f"/v1/session/destroy/{session}")
    assert await door.json("/v1/query") == []


async def test_changing_what_is_not_there(door: Door) -> None:
    bad = "Prepared Query lookup failed: failed prepared query lookup: index error: UUID must be 36 characters"
    for query_id, text in ((NOBODY, f"Cannot modify non-existent prepared query: '{NOBODY}'"), ("nope", bad)):
        status, answer = await door.put(f"/v1/query/{query_id}", {"Name": "x", "Service": {"Service": "s"}})
        assert (status, answer.decode()) == (500, text)
        status, _, answer = await door.call("DELETE", f"/v1/query/{query_id}")
        assert (status, answer.decode()) == (500, text)
