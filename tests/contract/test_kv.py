"""The KV store where a recording cannot say it: big and binary values, limits, compression."""

from __future__ import annotations

import base64
import gzip

import pytest

from tests.contract.client import Api
from tests.contract.covers import covers
from tests.contract.servers import Server

LIMIT = 512 * 1024


@covers("PUT /v1/kv/:key")
def test_a_value_of_exactly_the_limit_is_taken(api: Api, name: str) -> None:
    """512 KiB is the largest value."""
    value = b"x" * LIMIT
    assert api.put(f"/v1/kv/{name}", value).json() is True
    assert api.get(f"/v1/kv/{name}?raw").body == value


@covers("PUT /v1/kv/:key")
def test_a_larger_value_is_refused_with_413(api: Api, name: str) -> None:
    """And nothing is stored."""
    answer = api.put(f"/v1/kv/{name}", b"x" * (LIMIT + 1))
    assert answer.status == 413
    assert answer.text == f"Request body({LIMIT + 1} bytes) too large, max size: {LIMIT} bytes. See {DOCUMENTATION}."
    assert api.get(f"/v1/kv/{name}").status == 404


DOCUMENTATION = "https://www.consul.io/docs/agent/options.html#kv_max_value_size"


@covers("PUT /v1/kv/:key")
def test_the_limit_can_be_configured(tuned: Server, name: str) -> None:
    """`limits.kv_max_value_size`."""
    assert tuned.api.put(f"/v1/kv/{name}", b"x" * 1024).json() is True
    assert tuned.api.put(f"/v1/kv/{name}", b"x" * 1025).status == 413


@covers("PUT /v1/kv/:key")
@covers("GET /v1/kv/:key", "raw")
def test_every_byte_comes_back(api: Api, name: str) -> None:
    """A value is bytes, never text."""
    value = bytes(range(256)) * 3
    api.put(f"/v1/kv/{name}", value)
    assert api.get(f"/v1/kv/{name}?raw").body == value
    assert base64.b64decode(api.get(f"/v1/kv/{name}").json()[0]["Value"]) == value


@covers("GET /v1/kv/:key", "recurse")
def test_answers_are_compressed_for_who_asks(api: Api, name: str) -> None:
    """gzip, where the client names it and the answer is worth it."""
    for number in range(30):
        api.put(f"/v1/kv/{name}/{number:02}", "some value that repeats " * 10)
    plain = api.get(f"/v1/kv/{name}?recurse")
    packed = api.get(f"/v1/kv/{name}?recurse", {"Accept-Encoding": "gzip"})
    assert plain.headers.get("content-encoding") is None
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(packed.body) == plain.body


@covers("GET /v1/kv/:key")
def test_a_small_answer_may_be_compressed(api: Api, name: str) -> None:
    """Whether it is, is the server's choice; the content is the same."""
    api.put(f"/v1/kv/{name}", "v")
    answer = api.get(f"/v1/kv/{name}", {"Accept-Encoding": "gzip"})
    body = gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body
    assert body == api.get(f"/v1/kv/{name}").body


@covers("GET /v1/kv/:key", "keys")
def test_keys_are_sorted_by_their_bytes(api: Api, name: str) -> None:
    """Not by letters."""
    keys = ["B", "a", "é", "_", "10", "9", "~", "-"]
    for key in keys:
        api.put(f"/v1/kv/{name}/{key}", "v")
    expected = sorted((f"{name}/{key}" for key in keys), key=str.encode)
    assert api.get(f"/v1/kv/{name}/?keys").json() == expected
    assert [entry["Key"] for entry in api.get(f"/v1/kv/{name}/?recurse").json()] == expected


@covers("PUT /v1/kv/:key", "flags", "cas", "acquire")
def test_a_lost_race_leaves_no_trace(api: Api, name: str) -> None:
    """A false answer changed nothing, neither value nor flags nor index."""
    session = api.put("/v1/session/create", {"LockDelay": "0s"}).json()["ID"]
    other = api.put("/v1/session/create", {"LockDelay": "0s"}).json()["ID"]
    assert api.put(f"/v1/kv/{name}?acquire={session}&flags=1", "held").json() is True
    before = api.get(f"/v1/kv/{name}").json()
    for parameters in (f"acquire={other}&flags=2", f"release={other}&flags=3", "cas=0&flags=4"):
        assert api.put(f"/v1/kv/{name}?{parameters}", "lost").json() is False
    assert api.get(f"/v1/kv/{name}").json() == before


# Later releases than the reference take twice as many operations.
OPERATIONS = {"reference": 64, "lictor": 128}


@covers("PUT /v1/txn")
def test_a_transaction_has_a_limit_of_operations(api: Api, kind: str, name: str) -> None:
    """The last number that is taken, the first that is not, and the text that names both."""
    most = OPERATIONS[kind]

    def operations(count: int) -> list[dict[str, object]]:
        return [{"KV": {"Verb": "set", "Key": f"{name}/{number}", "Value": "dg=="}} for number in range(count)]

    assert api.put("/v1/txn", operations(most)).status == 200
    assert len(api.get(f"/v1/kv/{name}/?keys").json()) == most
    api.delete(f"/v1/kv/{name}/?recurse")
    answer = api.put("/v1/txn", operations(most + 1))
    assert answer.status == 413
    assert answer.text == f"Transaction contains too many operations ({most + 1} > {most})"
    assert api.get(f"/v1/kv/{name}/?keys").status == 404


@covers("PUT /v1/txn")
def test_reading_in_a_transaction_has_the_same_limit(api: Api, kind: str, name: str) -> None:
    """Reads count like writes."""
    count = OPERATIONS[kind] + 1
    operations = [{"KV": {"Verb": "check-not-exists", "Key": f"{name}/{number}"}} for number in range(count)]
    assert api.put("/v1/txn", operations).status == 413


@covers("PUT /v1/txn")
@pytest.mark.parametrize("size", [LIMIT + 1, 400 * 1024])
def test_a_transaction_has_a_size_limit(api: Api, name: str, size: int) -> None:
    """A value over the KV limit, and a body over the request limit, are refused with 413 and store nothing."""
    value = base64.b64encode(b"x" * size).decode()
    answer = api.put("/v1/txn", [{"KV": {"Verb": "set", "Key": name, "Value": value}}])
    assert answer.status == 413
    assert api.get(f"/v1/kv/{name}").status == 404


@covers("PUT /v1/txn")
def test_a_transaction_sees_its_own_writes(api: Api, name: str) -> None:
    """Operations run in order, on what the earlier ones made."""
    answer = api.put(
        "/v1/txn",
        [
            {"KV": {"Verb": "set", "Key": name, "Value": "MQ=="}},
            {"KV": {"Verb": "get", "Key": name}},
            {"KV": {"Verb": "delete", "Key": name}},
            {"KV": {"Verb": "check-not-exists", "Key": name}},
            {"KV": {"Verb": "set", "Key": name, "Value": "Mg=="}},
        ],
    )
    assert answer.status == 200
    results = answer.json()["Results"]
    assert [result["KV"]["Value"] for result in results] == [None, "MQ==", None]
    assert api.get(f"/v1/kv/{name}?raw").text == "2"
