"""Transactions: operations on KV, nodes, services, checks and sessions that all take effect or none.

Every operation is tried, so that the caller hears of each that fails; one failure undoes the rest.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from lictor.model.command import CheckOp, KVOp, NodeOp, ServiceOp, SessionOp, TxnOp
from lictor.model.errors import LictorError, Refused
from lictor.model.kv import KVEntry
from lictor.store import catalog, kv, sessions
from lictor.store.store import Store

KV_VERBS = frozenset(
    {"set", "cas", "lock", "unlock", "delete", "delete-cas", "delete-tree", "get", "get-or-empty", "get-tree"}
    | {"check-session", "check-index", "check-not-exists"}
)
READ_VERBS = frozenset({"get", "get-or-empty", "get-tree", "check-index", "check-session", "check-not-exists"})


class TxnError(msgspec.Struct, frozen=True, rename="pascal"):
    """Why one operation could not be done; `op_index` counts from 0."""

    op_index: int
    what: str


class TxnFailed(LictorError):
    """Some operation failed and nothing was changed."""

    status = 409

    def __init__(self, errors: list[TxnError]) -> None:
        super().__init__("; ".join(f"op {e.op_index}: {e.what}" for e in errors))
        self.errors = errors


def run(store: Store, ops: Sequence[TxnOp]) -> list[dict[str, Any]]:
    """Run every operation. Returns the API's results; raises `TxnFailed` with every operation that failed."""
    results: list[dict[str, Any]] = []
    errors: list[TxnError] = []
    for number, op in enumerate(ops):
        try:
            match op:
                case KVOp():
                    results.extend({"KV": row} for row in _kv(store, op))
                case NodeOp():
                    results.extend({"Node": row} for row in _node(store, op))
                case ServiceOp():
                    results.extend({"Service": row} for row in _service(store, op))
                case CheckOp():
                    results.extend({"Check": row} for row in _check(store, op))
                case SessionOp():
                    if op.verb != "delete":
                        raise Refused(f"unknown Session verb {op.verb!r}")
                    sessions.destroy(store, op.session.id)
        except Refused as e:
            errors.append(TxnError(number, str(e)))
    if errors:
        raise TxnFailed(errors)
    return results


def _bare(entry: KVEntry) -> KVEntry:
    """What a write returns: the entry without its value, which the caller has."""
    return msgspec.structs.replace(entry, value=None)


def _kv(store: Store, op: KVOp) -> list[KVEntry]:
    key, row = op.key, None
    match op.verb:
        case "set":
            row = kv.put(store, key, op.value, op.flags)
        case "cas":
            row = kv.compare_and_set(store, key, op.value, op.flags, op.index)
            if row is None:
                raise Refused(f'failed to set key "{key}", index is stale')
        case "lock":
            if kv.is_delayed(store, key):
                raise Refused(f'failed to lock key "{key}" due to lock delay')
            row = kv.lock(store, key, op.value, op.flags, op.session)
            if row is None:
                raise Refused(f'failed to lock key "{key}", lock is already held')
        case "unlock":
            row = kv.unlock(store, key, op.value, op.flags, op.session)
            if row is None:
                raise Refused(f'failed to unlock key "{key}", lock isn\'t held, or is held by another session')
        case "delete":
            kv.delete(store, key)
        case "delete-cas":
            if not kv.compare_and_delete(store, key, op.index):
                raise Refused(f'failed to delete key "{key}", index is stale')
        case "delete-tree":
            kv.delete_tree(store, key)
        case "get":
            found = store.kv.get(key)
            if found is None:
                raise Refused(f'key "{key}" doesn\'t exist')
            return [found]
        case "get-or-empty":
            return [store.kv.get(key) or KVEntry(0, key, 0, None)]
        case "get-tree":
            return list(store.kv.under(key))
        case "check-session":
            row = _existing(store, key, "session")
            if row.session != op.session:
                holder = row.session if isinstance(row.session, str) else ""
                raise Refused(f'failed session check for key "{key}", current session "{holder}" != "{op.session}"')
        case "check-index":
            row = _existing(store, key, "index")
            if row.modify_index != op.index:
                raise Refused(
                    f'failed index check for key "{key}", current modify index {row.modify_index} != {op.index}'
                )
        case "check-not-exists":
            if store.kv.get(key) is not None:
                raise Refused(f'key "{key}" exists')
        case _:
            raise Refused(f'unknown KV verb "{op.verb}"')
    return [_bare(row)] if row is not None else []


def _existing(store: Store, key: str, what: str) -> KVEntry:
    found = store.kv.get(key)
    if found is None:
        raise Refused(f'failed to check {what}, key "{key}" doesn\'t exist')
    return found


def _node(store: Store, op: NodeOp) -> list[Any]:
    node = op.node
    found = store.nodes.get(node.node.lower())
    if node.id and op.verb == "get":
        found = next(iter(store.nodes.by("id", node.id.lower()).values()), None)
    match op.verb:
        case "get":
            if found is None:
                raise Refused(f'node "{node.node}" doesn\'t exist')
            return [found]
        case "set":
            return [catalog.put_node(store, node)]
        case "cas":
            if (found.modify_index if found else 0) != node.modify_index:
                raise Refused(f'failed to set node "{node.node}", index is stale')
            return [catalog.put_node(store, node)]
        case "delete":
            catalog.delete_node(store, node.node)
            return []
        case "delete-cas":
            if found is None or found.modify_index != node.modify_index:
                raise Refused(f'failed to delete node "{node.node}", index is stale')
            catalog.delete_node(store, found.node)
            return []
    raise Refused(f'unknown Node verb "{op.verb}"')


def _service(store: Store, op: ServiceOp) -> list[Any]:
    found = store.services.get((op.node.lower(), op.service.id.lower()))
    old = found.service if found is not None else None
    match op.verb:
        case "get":
            if old is None:
                raise Refused(f'service "{op.service.id}" on node "{op.node}" doesn\'t exist')
            return [old]
        case "set":
            return [catalog.put_service(store, op.node, op.service)]
        case "cas":
            if (old.modify_index if old else 0) != op.service.modify_index:
                raise Refused(f'failed to set service "{op.service.id}" on node "{op.node}", index is stale')
            return [catalog.put_service(store, op.node, op.service)]
        case "delete":
            catalog.delete_service(store, op.node, op.service.id)
            return []
        case "delete-cas":
            if old is None or old.modify_index != op.service.modify_index:
                raise Refused(f'failed to delete service "{op.service.id}" on node "{op.node}", index is stale')
            catalog.delete_service(store, op.node, op.service.id)
            return []
    raise Refused(f'unknown Service verb "{op.verb}"')


def _check(store: Store, op: CheckOp) -> list[Any]:
    check = op.check
    old = store.checks.get((check.node.lower(), check.check_id.lower()))
    match op.verb:
        case "get":
            if old is None:
                raise Refused(f'check "{check.check_id}" on node "{check.node}" doesn\'t exist')
            return [old]
        case "set":
            return [catalog.put_check(store, check)]
        case "cas":
            if (old.modify_index if old else 0) != check.modify_index:
                raise Refused(f'failed to set check "{check.check_id}" on node "{check.node}", index is stale')
            return [catalog.put_check(store, check)]
        case "delete":
            catalog.delete_check(store, check.node, check.check_id)
            return []
        case "delete-cas":
            if old is None or old.modify_index != check.modify_index:
                raise Refused(f'failed to delete check "{check.check_id}" on node "{check.node}", index is stale')
            catalog.delete_check(store, check.node, check.check_id)
            return []
    raise Refused(f'unknown Check verb "{op.verb}"')
