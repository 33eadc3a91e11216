"""From a command to the function that carries it out: the one place where the log meets the store."""

import logging
from collections.abc import Callable
from typing import Any

from lictor.model.command import (
    AuthorityWrite,
    Batch,
    Command,
    ConfigWrite,
    CoordinateUpdate,
    Deregister,
    EntriesCopy,
    IntentionWrite,
    KVWrite,
    LeavesRevoke,
    Numbered,
    Plain,
    QueryDelete,
    QuerySet,
    Reap,
    Register,
    Restore,
    RestorePart,
    RevokedForget,
    SessionCreate,
    SessionDestroy,
    SettingWrite,
    Txn,
)
from lictor.model.errors import LictorError, Refused
from lictor.store import (
    catalog,
    connect_ca,
    intentions,
    kv,
    numbered,
    queries,
    revoked,
    sessions,
    settled,
    snapshot,
    txn,
)
from lictor.store.store import Store

log = logging.getLogger("lictor.server")


def _kv(store: Store, c: KVWrite) -> bool:
    match c.verb:
        case "set":
            kv.put(store, c.key, c.value, c.flags)
        case "cas":
            return kv.compare_and_set(store, c.key, c.value, c.flags, c.index) is not None
        case "lock":
            return kv.lock(store, c.key, c.value, c.flags, c.session) is not None
        case "unlock":
            return kv.unlock(store, c.key, c.value, c.flags, c.session) is not None
        case "delete":
            kv.delete(store, c.key)
        case "delete-cas":
            return kv.compare_and_delete(store, c.key, c.index)
        case "delete-tree":
            kv.delete_tree(store, c.key)
        case _:
            raise Refused(f'unknown KV verb "{c.verb}"')
    return True


def _config(store: Store, c: ConfigWrite) -> bool:
    match c.verb:
        case "upsert":
            return settled.put_config(store, c.kind, c.name, c.body)
        case "upsert-cas":
            return settled.compare_and_put_config(store, c.kind, c.name, c.body, c.index)
        case "delete":
            return settled.delete_config(store, c.kind, c.name)
        case "delete-cas":
            return settled.compare_and_delete_config(store, c.kind, c.name, c.index)
    raise Refused(f'unknown config entry verb "{c.verb}"')


def _restore(store: Store, c: Restore) -> None:
    # What is claimed may be any number: looking for so many parts would hold up every server, at every start.
    snapshot.restore_parts(store, c.token, min(c.parts, len(store.restoring) + 1))


_HANDLERS: dict[type, Callable[[Store, Any], Any]] = {
    Register: lambda s, c: catalog.register(s, c.node, c.service, c.checks, c.skip_node_update),
    Deregister: lambda s, c: catalog.deregister(s, c.node, c.service_id, c.check_id),
    KVWrite: _kv,
    SessionCreate: lambda s, c: sessions.create(s, c.session),
    SessionDestroy: lambda s, c: sessions.destroy(s, c.id),
    Txn: lambda s, c: txn.run(s, c.ops),
    QuerySet: lambda s, c: queries.put(s, c.query),
    QueryDelete: lambda s, c: queries.delete(s, c.id),
    CoordinateUpdate: lambda s, c: settled.put_coordinates(s, c.entries),
    ConfigWrite: _config,
    EntriesCopy: lambda s, c: settled.copy_entries(s, c.put, c.delete, c.position),
    IntentionWrite: intentions.write,
    SettingWrite: lambda s, c: settled.put_setting(s, c.name, c.body, c.index if c.cas else None),
    AuthorityWrite: lambda s, c: connect_ca.put(s, c.revision, c.configuration, c.roots, c.former_cluster),
    LeavesRevoke: lambda s, c: revoked.add(s, c.leaves),
    RevokedForget: lambda s, c: revoked.forget(s, c.ended),
    Reap: lambda s, c: s.reap(c.up_to),
    RestorePart: lambda s, c: snapshot.keep_part(s, c.token, c.number, c.data),
    Restore: _restore,
}


def apply(store: Store, command: Command, now: float) -> Any:
    """Apply one command; `now` is the proposer's clock, in seconds since 1970.

    Returns the command's result. Raises `LictorError` where the state does not allow it; every row is then as before.
    """
    store.begin(now)
    if isinstance(command, Numbered):
        return numbered.apply_once(store, command, _carry_out)
    return _carry_out(store, command)


def _carry_out(store: Store, command: Plain) -> Any:
    try:
        result = _HANDLERS[type(command)](store, command)
    except BaseException:
        store.roll_back()
        raise
    store.commit()
    return result


def apply_batch(store: Store, batch: Batch) -> list[Any]:
    """Apply a log entry. Returns each command's result, or the `LictorError` it failed with; tells nobody yet.

    A command that meets a mistake of this program is undone and fails like any other, on every server alike. Its entry
    is in the log already: what came out here would end the writing for good, and again at every start.
    """
    results: list[Any] = []
    for command in batch.commands:
        try:
            results.append(apply(store, command, batch.time))
        except LictorError as e:
            results.append(e)
        except Exception:
            log.exception("a command has met a mistake of this program and was undone; please report it")
            results.append(LictorError("Internal Server Error: the servers' logs say more"))
    return results
