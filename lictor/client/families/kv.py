"""`client.kv` and `client.txn`: keys and values, and several operations that happen together or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lictor.client.calls import (
    OR_NOTHING,
    Call,
    F,
    Family,
    Reply,
    call,
    content,
    get,
    path,
    put,
    read,
    reads,
    reads_or_none,
)
from lictor.client.records import TxnOutcome
from lictor.model.kv import KVEntry

_entries = reads_or_none(list[KVEntry])
_names = reads_or_none(list[str])
_done = reads(bool)
_outcome = reads(TxnOutcome)


def _first(reply: Reply) -> KVEntry | None:
    found = _entries(reply)
    return found[0] if found else None


class KV(Family[F]):
    """Keys and values."""

    @read
    def get(self, key: str, *, dc: str = "") -> Call[KVEntry | None]:
        """An entry; None where there is none."""
        return get(path("kv", key), _first, OR_NOTHING, dc=dc)

    @read
    def raw(self, key: str, *, dc: str = "") -> Call[bytes | None]:
        """A value alone; None where there is no entry."""
        return get(path("kv", key), _raw, OR_NOTHING, raw=True, dc=dc)

    @read
    def keys(self, prefix: str = "", *, separator: str = "", dc: str = "") -> Call[list[str]]:
        """The keys under a prefix; with a separator only up to its next one."""
        found = path("kv", prefix)
        return get(found, lambda reply: _names(reply) or [], OR_NOTHING, keys=True, separator=separator, dc=dc)

    @call
    def put(
        self,
        key: str,
        value: bytes | str,
        *,
        flags: int = 0,
        cas: int | None = None,
        acquire: str = "",
        release: str = "",
        dc: str = "",
    ) -> Call[bool]:
        """Put a value. With `cas` only while the entry has that modify index (0: while there is none), with `acquire`
        and `release` only where that session may take or has the lock; returns whether it was put.
        """
        return put(
            path("kv", key),
            _done,
            value.encode() if isinstance(value, str) else value,
            flags=str(flags) if flags else "",
            cas="" if cas is None else str(cas),
            acquire=acquire,
            release=release,
            dc=dc,
        )

    @call
    def delete(self, key: str, *, cas: int | None = None, recurse: bool = False, dc: str = "") -> Call[bool]:
        """Delete an entry, or with `recurse` all under a prefix. With `cas` only while it has that modify index;
        returns whether it was deleted.
        """
        found = "" if cas is None else str(cas)
        return put(path("kv", key), _done, method="DELETE", cas=found, recurse=recurse, dc=dc)

    @read
    def list(self, prefix: str = "", *, dc: str = "") -> Call[list[KVEntry]]:
        """Every entry under a prefix, by key."""
        return get(path("kv", prefix), lambda reply: _entries(reply) or [], OR_NOTHING, recurse=True, dc=dc)


def _raw(reply: Reply) -> bytes | None:
    return None if reply.status == 404 else content(reply)


class Txn(Family[F]):
    """Transactions."""

    @call
    def apply(self, operations: Sequence[Mapping[str, Any]], *, dc: str = "") -> Call[TxnOutcome]:
        """Do several operations, as the API writes them (`{"KV": {"Verb": "set", ...}}`; values are bytes or base64
        text). Returns what was done, or why nothing was.
        """
        return put(path("txn"), _outcome, list(operations), accept=frozenset({200, 409}), dc=dc)
