"""A key with its value as the KV verbs pass it around, read from the API's JSON."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

from lictor.cli.api import Client

FOUND_OR_NOT = frozenset({200, 404})
"""Statuses of a read that found something or nothing; both are answers."""

MODIFY_INDEX_MISSING = "Must specify -modify-index with -cas!"


class Pair(NamedTuple):
    """One key. `value` is the bytes themselves; `session` is "" when nobody holds a lock on the key."""

    key: str
    value: bytes
    flags: int
    create_index: int
    modify_index: int
    lock_index: int
    session: str


def read_pairs(client: Client, path: str, recurse: bool) -> list[Pair]:
    """The key at path, or with recurse every key that begins with it; empty when there is none."""
    answer = client.get(f"/v1/kv/{path}", {"recurse": "" if recurse else None}, accept=FOUND_OR_NOT)
    return [_pair(entry) for entry in answer.json()] if answer.status == 200 else []


def _pair(entry: dict[str, Any]) -> Pair:
    return Pair(
        key=entry["Key"],
        value=base64.b64decode(entry.get("Value") or ""),
        flags=entry.get("Flags", 0),
        create_index=entry.get("CreateIndex", 0),
        modify_index=entry.get("ModifyIndex", 0),
        lock_index=entry.get("LockIndex", 0),
        session=entry.get("Session", ""),
    )


def without_slash(key: str) -> str:
    """A key as the store knows it: no key begins with the slash that people are used to write first."""
    return key.removeprefix("/")


def decode_base64(text: bytes) -> bytes:
    """Standard base64 with line breaks allowed; raises ValueError naming the offset of the first wrong byte."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
    compact = text.replace(b"\r", b"").replace(b"\n", b"")
    try:
        return base64.b64decode(compact, validate=True)
    except ValueError:
        offset = next((at for at, byte in enumerate(compact) if byte not in alphabet), len(compact) // 4 * 4)
        raise ValueError(f"illegal base64 data at input byte {offset}") from None
