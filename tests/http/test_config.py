"""`/v1/config`: entries put, compared, shown and deleted."""

import json
from typing import Any

import pytest

from tests.http.conftest import Door

WEB = {"Kind": "service-defaults", "Name": "web", "Protocol": "http"}


async def put(door: Door, body: Any, query: str = "") -> tuple[int, str]:
    status, answer = await door.put(f"/v1/config{query}", body)
    return status, answer.decode()


async def test_put_show_list_delete(door: Door) -> None:
    assert await put(door, {"kind": "service-defaults", "name": "web", "protocol": "http"}) == (200, "true")
    shown = await door.json("/v1/config/service-defaults/web")
    assert (shown["Kind"], shown["Name"], shown["Protocol"]) == ("service-defaults", "web", "http")
    assert shown["CreateIndex"] == shown["ModifyIndex"] > 0
    assert await door.json("/v1/config/service-defaults") == [shown]
    assert await door.json("/v1/config/") == [shown]
    assert await door.json("/v1/config/service-router") == []
    assert (await door.call("DELETE", "/v1/config/service-defaults/web"))[::2] == (200, b"{}")
    status, _, text = await door.get("/v1/config/service-defaults/web")
    assert (status, text) == (404, b'Config entry not found for "service-defaults" / "web"')


async def test_compare_and_set(door: Door) -> None:
    assert await put(door, WEB, "?cas=0") == (200, "true")
    assert await put(door, WEB, "?cas=0") == (200, "false")
    index = (await door.json("/v1/config/service-defaults/web"))["ModifyIndex"]
    assert await put(door, WEB | {"Protocol": "grpc"}, f"?cas={index}") == (200, "true")
    status, _, answer = await door.call("DELETE", f"/v1/config/service-defaults/web?cas={index}")
    assert (status, json.loads(answer)) == (200, False)
    index = (await door.json("/v1/config/service-defaults/web"))["ModifyIndex"]
    status, _, answer = await door.call("DELETE", f"/v1/config/service-defaults/web?cas={index}")
    assert (status, json.loads(answer)) == (200, True)
    assert await put(door, WEB, "?cas=x") == (500, 'strconv.ParseUint: parsing "x": invalid syntax')


async def test_the_same_again_changes_no_index(door: Door) -> None:
    await put(door, WEB)
    first = await door.json("/v1/config/service-defaults/web")
    await put(door, WEB)
    assert await door.json("/v1/config/service-defaults/web") == first


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, "Bad request: Request decoding failed: EOF"),
        ({}, 400, "Bad request: Request decoding failed: Payload does not contain a kind/Kind key at the top level"),
        ({"Kind": "x"}, 400, "Bad request: Request decoding failed: invalid config entry kind: x"),
        (
            WEB | {"Foo": 1},
            400,
            'Bad request: Request decoding failed: 1 error occurred:\n\t* invalid config key "Foo"\n\n',
        ),
        (b'{"Kind": "proxy-defaults", "Name": "global", "Config": {"x": 1%s}}' % (b"0" * 30), 400, "64 bits"),
        (b'{"Kind": "proxy-defaults", "Name": "global", "Config": %s1%s}' % (b'{"a":' * 99, b"}" * 99), 400, "nesting"),
        (
            {"Kind": "service-splitter", "Name": "tcp", "Splits": [{"Weight": 100}]},
            500,
            'discovery chain "tcp" uses a protocol "tcp" that does not permit advanced routing or splitting behavior',
        ),
    ],
)
async def test_what_cannot_be_an_entry(door: Door, body: Any, status: int, text: str) -> None:
    got_status, got = await put(door, body)
    assert got_status == status
    assert text in got
    assert await door.json("/v1/config/") == []


async def test_entries_that_others_need_stay(door: Door) -> None:
    await put(door, WEB)
    assert await put(door, {"Kind": "service-splitter", "Name": "web", "Splits": [{"Weight": 100}]}) == (200, "true")
    status, _, text = await door.call("DELETE", "/v1/config/service-defaults/web")
    assert status == 500
    assert b"does not permit advanced routing" in text
    assert (await door.get("/v1/config/service-defaults/web"))[0] == 200


async def test_kinds_that_are_none(door: Door) -> None:
    for method, path, status in (
        ("GET", "/v1/config/x", 500),
        ("GET", "/v1/config/x/y", 500),
        ("DELETE", "/v1/config/x/y", 400),
    ):
        assert (await door.call(method, path))[::2] == (status, b"invalid config entry kind: x")
    assert (await door.call("DELETE", "/v1/config/mesh"))[::2] == (404, b"Must provide both a kind and name to delete")


async def test_central_configuration_is_merged(door: Door) -> None:
    await put(door, {"Kind": "proxy-defaults", "Name": "global", "Config": {"a": 1}})
    await put(door, WEB)
    proxy = {"Kind": "connect-proxy", "Service": "p", "Port": 1, "Proxy": {"DestinationServiceName": "web"}}
    await door.put("/v1/catalog/register", {"Node": "m", "Address": "10.0.0.1", "Service": proxy})
    (plain,) = await door.json("/v1/health/service/p")
    assert "Config" not in plain["Service"]["Proxy"]
    (merged,) = await door.json("/v1/health/service/p?merge-central-config")
    assert merged["Service"]["Proxy"]["Config"] == {"a": 1, "protocol": "http"}
    (merged,) = await door.json("/v1/catalog/connect/web?merge-central-config")
    assert merged["ServiceProxy"]["Config"] == {"a": 1, "protocol": "http"}
