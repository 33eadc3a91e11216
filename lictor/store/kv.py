"""The KV store's commands: set, compare-and-set, lock, unlock, delete.

Each returns whether it took effect. A write that changes nothing keeps the entry's modify index and wakes nobody.
"""

import msgspec

from lictor.model.errors import Refused
from lictor.model.kv import KVEntry
from lictor.model.session import LOCK_DELAY_MAX
from lictor.store.store import Store


def put(store: Store, key: str, value: bytes | None, flags: int) -> KVEntry:
    """Set a key; a lock that is held on it stays held, but is counted anew, as Consul does. Returns the row."""
    old = store.kv.get(key)
    return _write(store, old, 0, key, flags, value, old.session if old is not None else msgspec.UNSET)


def compare_and_set(store: Store, key: str, value: bytes | None, flags: int, index: int) -> KVEntry | None:
    """Set a key only if its modify index is still `index`, 0 meaning that it does not exist."""
    old = store.kv.get(key)
    if (old.modify_index if old is not None else 0) != index:
        return None
    return put(store, key, value, flags)


def is_delayed(store: Store, key: str) -> bool:
    """Whether a key's lock delay still runs, so that nobody can take its lock. One that has longer to run than there is
    began by a clock that was ahead.
    """
    delay = store.lock_delays.get(key)
    return delay is not None and 0 < delay[1] - store.now <= LOCK_DELAY_MAX


def lock(store: Store, key: str, value: bytes | None, flags: int, session: str) -> KVEntry | None:
    """Set a key and take its lock for a session; None where another session holds it or the lock delay runs."""
    if not session:
        raise Refused("missing session")
    if store.sessions.get(session) is None:
        raise Refused(f'invalid session "{session}"')
    old = store.kv.get(key)
    holder = old.session if old is not None else msgspec.UNSET
    if isinstance(holder, str) and holder != session:
        return None
    if not isinstance(holder, str):
        if is_delayed(store, key):
            return None
        store.lock_delays.delete(key)
    lock_index = old.lock_index if old is not None else 0
    if holder != session:
        lock_index += 1
    return _write(store, old, lock_index, key, flags, value, session)


def unlock(store: Store, key: str, value: bytes | None, flags: int, session: str) -> KVEntry | None:
    """Set a key and give up its lock; None where the session does not hold it."""
    if not session:
        raise Refused("missing session")
    old = store.kv.get(key)
    if old is None or old.session != session:
        return None
    return _write(store, old, old.lock_index, key, flags, value, msgspec.UNSET)


def release(store: Store, entry: KVEntry) -> None:
    """Take the lock from whoever holds it; the value stays."""
    _write(store, entry, entry.lock_index, entry.key, entry.flags, entry.value, msgspec.UNSET)


def delete(store: Store, key: str) -> bool:
    """Delete a key, leaving a tombstone. Returns whether there was one."""
    if store.kv.delete(key) is None:
        return False
    store.tombstones.put((key, store.index))
    store.touch("kv", key)
    return True


def compare_and_delete(store: Store, key: str, index: int) -> bool:
    """Delete a key only if its modify index is still `index`; there need not be one. Returns whether it is gone."""
    old = store.kv.get(key)
    if old is not None and old.modify_index != index:
        return False
    delete(store, key)
    return True


def delete_tree(store: Store, prefix: str) -> int:
    """Delete every key under a prefix. Returns how many."""
    keys = list(store.kv.keys_under(prefix))
    for key in keys:
        delete(store, key)
    return len(keys)


def _write(
    store: Store,
    old: KVEntry | None,
    lock_index: int,
    key: str,
    flags: int,
    value: bytes | None,
    session: str | msgspec.UnsetType,
) -> KVEntry:
    """Put a row in place of `old`, unless it is the same."""
    index, value = store.index, value or None
    if old is None:
        row = KVEntry(lock_index, key, flags, value, session, index, index)
        if len(store.tombstones):
            store.tombstones.delete(key)
    elif value == old.value and session == old.session and flags == old.flags and lock_index == old.lock_index:
        return old
    else:
        row = KVEntry(lock_index, key, flags, value, session, old.create_index, index)
    store.kv.put(row)
    store.touch("kv", key)
    return row
