"""Requests to the KV store, and what their answers mean."""

import base64
from typing import Any

import msgspec

from jepsen.client import Answer
from jepsen.worker import Refused, Request, unexpected


class Entry(msgspec.Struct, frozen=True, rename="pascal"):
    """A key as it is read. `lock_index` counts how often it was locked, `session` holds the lock."""

    key: str
    value: bytes | None
    modify_index: int
    lock_index: int
    session: str = ""


def entry(answer: Answer) -> Entry | None:
    """What a read of one key found; None where there is no such key."""
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise unexpected(answer)
    return msgspec.json.decode(answer.body, type=list[Entry])[0]


def truth(answer: Answer) -> bool:
    """Whether a change was made, of those that may be refused."""
    text = answer.body.strip()
    if answer.status == 500 and b"invalid session" in text:
        raise Refused(text.decode(errors="replace"))
    if answer.status != 200 or text not in (b"true", b"false"):
        raise unexpected(answer)
    return text == b"true"


def put(key: str, value: bytes, condition: str = "") -> Request:
    """Write a key; with a condition (`cas=INDEX`, `acquire=SESSION`, `release=SESSION`) only if it is met."""
    return Request("PUT", f"/v1/kv/{key}{'?' if condition else ''}{condition}", truth, value)


def delete(key: str) -> Request:
    """Delete a key, whether there is one or not."""
    return Request("DELETE", f"/v1/kv/{key}", truth)


def transaction_cas(key: str, value: bytes, index: int) -> Request:
    """The same as `put` with `cas`, as a transaction."""
    operation = {"Verb": "cas", "Key": key, "Value": base64.b64encode(value).decode(), "Index": index}
    return Request("PUT", "/v1/txn", _committed, msgspec.json.encode([{"KV": operation}]))


def _committed(answer: Answer) -> bool:
    if answer.status not in (200, 409):
        raise unexpected(answer)
    return answer.status == 200


def names(answer: Answer) -> list[str]:
    """The keys that a read of `?keys` found."""
    if answer.status == 404:
        return []
    if answer.status != 200:
        raise unexpected(answer)
    found: Any = msgspec.json.decode(answer.body, type=list[str])
    return list(found)
