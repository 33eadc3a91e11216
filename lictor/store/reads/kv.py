"""Reads of the KV store."""

from lictor.model.kv import KVEntry
from lictor.store.store import View


def entry(view: View, key: str) -> KVEntry | None:
    """One key's entry."""
    return view.saw_key(key)


def tree(view: View, prefix: str) -> list[KVEntry]:
    """Every entry under a prefix, in key order."""
    return view.saw_prefix(prefix)


def keys(view: View, prefix: str, separator: str) -> list[str]:
    """Every key under a prefix, in order; with a separator, each cut after its first one past the prefix and listed
    once.
    """
    rows = view.saw_prefix(prefix)
    if not separator:
        return [row.key for row in rows]
    found: dict[str, None] = {}
    start = len(prefix)
    for row in rows:
        at = row.key.find(separator, start)
        found[row.key if at < 0 else row.key[: at + len(separator)]] = None
    return list(found)
