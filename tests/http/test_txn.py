"""`/v1/txn`: all or nothing, with every reason at once."""

import base64
import json
from typing import Any

from tests.http.conftest import Door


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def kv(verb: str, key: str, **fields: Any) -> dict[str, Any]:
    return {"KV": {"Verb": verb, "Key": key, **fields}}


async def txn(door: Door, *operations: Any, query: str = "") -> tuple[int, Any]:
    status, body = await door.put(f"/v1/txn{query}", list(operations))
    return status, json.loads(body) if body[:1] in b"{[" else body.decode()


async def test_writes_show_rows_without_values(door: Door) -> None:
    status, answer = await txn(door, kv("set", "a", Value=b64("x"), Flags=7), kv("get", "a"), kv("delete", "a"))
    assert status == 200
    assert answer["Errors"] is None
    written, read = (result["KV"] for result in answer["Results"])
    assert (written["Value"], read["Value"]) == (None, b64("x"))
    assert written["Flags"] == 7
    assert "Index" not in answer, "a transaction that writes says nothing of a read"
    assert (await door.get("/v1/kv/a"))[0] == 404


async def test_one_failure_undoes_the_rest_and_every_failure_is_told(door: Door) -> None:
    status, answer = await txn(
        door,
        kv("set", "a"),
        kv("get", "none"),
        kv("cas", "a", Index=999),
        {"Node": {"Verb": "get", "Node": {"Node": "x"}}},
    )
    assert status == 409
    assert answer == {
        "Results": None,
        "Errors": [
            {"OpIndex": 1, "What": 'key "none" doesn\'t exist'},
            {"OpIndex": 2, "What": 'failed to set key "a", index is stale'},
            {"OpIndex": 3, "What": 'node "x" doesn\'t exist'},
        ],
    }
    assert (await door.get("/v1/kv/a"))[0] == 404


async def test_a_transaction_that_only_reads_says_how_fresh_it_is(door: Door) -> None:
    await txn(door, kv("set", "a", Value=b64("x")), kv("set", "a/b"))
    before = door.agent.store.index
    for query in ("", "?stale", "?consistent"):
        status, answer = await txn(door, kv("get-tree", "a"), kv("get-or-empty", "none"), query=query)
        assert status == 200
        assert [r["KV"]["Key"] for r in answer["Results"]] == ["a", "a/b", "none"]
        assert (answer["Index"], answer["KnownLeader"], answer["ConsistencyLevel"]) == (0, True, "")
    assert door.agent.store.index == before, "reading takes no place in the log"
    status, text = await txn(door, kv("get", "a"), query="?stale&consistent")
    assert (status, text) == (400, "Cannot specify ?stale with ?consistent, conflicting semantics.")


async def test_checks_compare_index_session_and_absence(door: Door) -> None:
    _, session = await door.put("/v1/session/create", {"NodeChecks": []})
    held = json.loads(session)["ID"]
    status, answer = await txn(door, kv("lock", "k", Session=held, Value=b64("x")))
    index = answer["Results"][0]["KV"]["ModifyIndex"]
    status, _ = await txn(door, kv("check-index", "k", Index=index), kv("check-session", "k", Session=held))
    assert status == 200
    status, answer = await txn(
        door,
        kv("check-index", "k", Index=1),
        kv("check-session", "k", Session="other"),
        kv("check-not-exists", "k"),
        kv("check-index", "none"),
        kv("lock", "k", Session="11111111-1111-1111-1111-111111111111"),
        kv("unlock", "k", Session="11111111-1111-1111-1111-111111111111"),
        kv("frob", "k"),
    )
    assert status == 409
    assert [e["What"] for e in answer["Errors"]] == [
        f'failed index check for key "k", current modify index {index} != 1',
        f'failed session check for key "k", current session "{held}" != "other"',
        'key "k" exists',
        'failed to check index, key "none" doesn\'t exist',
        'invalid session "11111111-1111-1111-1111-111111111111"',
        'failed to unlock key "k", lock isn\'t held, or is held by another session',
        'unknown KV verb "frob"',
    ]


async def test_nodes_services_checks_and_sessions(door: Door) -> None:
    status, answer = await txn(
        door,
        {"Node": {"Verb": "set", "Node": {"Node": "m", "Address": "10.0.0.1"}}},
        {"Service": {"Verb": "set", "Node": "m", "Service": {"ID": "s", "Service": "web", "Port": 80}}},
        {"Check": {"Verb": "set", "Check": {"Node": "m", "CheckID": "c", "Name": "c", "ServiceID": "s"}}},
        {"Service": {"Verb": "get", "Node": "m", "Service": {"ID": "s"}}},
    )
    assert status == 200, answer
    assert [next(iter(result)) for result in answer["Results"]] == ["Node", "Service", "Check", "Service"]
    assert answer["Results"][2]["Check"]["ServiceName"] == "web"
    assert answer["Results"][2]["Check"]["Status"] == "critical"
    assert answer["Results"][2]["Check"]["ServiceTags"] is None
    node = answer["Results"][0]["Node"]
    assert node["Datacenter"] == "dc1"
    status, answer = await txn(door, {"Node": {"Verb": "cas", "Node": {"Node": "m", "ModifyIndex": 1}}})
    assert answer["Errors"][0]["What"] == 'failed to set node "m", index is stale'
    status, _ = await txn(
        door, {"Node": {"Verb": "delete-cas", "Node": {"Node": "m", "ModifyIndex": node["ModifyIndex"]}}}
    )
    assert status == 200
    assert await door.json("/v1/catalog/service/web") == []
    status, answer = await txn(door, {"Session": {"Verb": "delete", "Session": {"ID": "1" * 8}}})
    assert (status, answer["Errors"][0]["What"]) == (409, "Must provide session ID")


async def test_what_cannot_be_tried_is_told_per_operation(door: Door) -> None:
    status, answer = await txn(
        door,
        kv("set", ""),
        {"Node": {"Verb": "set", "Node": {}}},
        {"Service": {"Verb": "delete", "Node": "n1", "Service": {"ID": "s"}}},
        {"Check": {"Verb": "set", "Check": {"Node": "nope", "CheckID": "c"}}},
    )
    assert status == 409
    assert answer["Errors"] == [
        {"OpIndex": 0, "What": "Must provide key"},
        {"OpIndex": 1, "What": "Must provide node"},
        {"OpIndex": 2, "What": "Must provide service name with ID"},
    ]


async def test_bodies_that_are_no_transaction(door: Door) -> None:
    for body, text in (
        (b"", "Failed to parse body: EOF"),
        (b"xx", "Failed to parse body: invalid character 'x' looking for beginning of value"),
        (b"{}", "Failed to parse body: json: cannot unmarshal object into Go value of type api.TxnOps"),
        (b'[{"Foo": 1}]', 'Failed to parse body: json: unknown field "Foo"'),
        (b'[{"KV": {"Verb": "set", "Key": "a", "Value": "!!"}}]', "illegal base64 data at input byte 0"),
    ):
        status, answer = await door.put("/v1/txn", body)
        assert (status, text in answer.decode()) == (400, True), answer


async def test_sizes_are_limited(door: Door) -> None:
    status, text = await txn(door, *[kv("set", f"k{n}") for n in range(129)])
    assert (status, text) == (413, "Transaction contains too many operations (129 > 128)")
    assert (await txn(door, *[kv("set", f"k{n}") for n in range(128)]))[0] == 200
    status, text = await txn(door, kv("set", "k", Value=b64("x" * 600_000)))
    assert status == 413
    assert text.endswith(
        "too large, max size: 524288 bytes. See https://www.consul.io/docs/agent/options.html#txn_max_req_len."
    )
