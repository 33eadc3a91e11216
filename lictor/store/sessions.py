"""The session commands: made, ended, and what ending one does to the locks it holds."""

import msgspec

from lictor.model.check import CRITICAL, Check
from lictor.model.errors import Refused
from lictor.model.session import DELETE, LOCK_DELAY_MAX, Session
from lictor.store import kv
from lictor.store.store import Store


def create(store: Store, session: Session) -> str:
    """Put a session; its node must exist and its checks exist there without being critical. Returns its id."""
    name = session.node.lower()
    node = store.nodes.get(name)
    if node is None:
        raise Refused("Missing node registration")
    for check_id in session.check_ids:
        check: Check | None = store.checks.get((name, check_id.lower()))
        if check is None:
            raise Refused(f"Missing check '{check_id}' registration")
        if check.status == CRITICAL:
            raise Refused(f"Check '{check_id}' is in critical state")
    old = store.sessions.get(session.id)
    created = old.create_index if old is not None else store.index
    if old is not None:
        _touch(store, old)
    store.sessions.put(msgspec.structs.replace(session, node=node.node, create_index=created, modify_index=store.index))
    _touch(store, session)
    return session.id


def destroy(store: Store, session_id: str) -> bool:
    """End a session: its locks are released or their keys deleted, with the lock delay, and its queries go."""
    session = store.sessions.delete(session_id)
    if session is None:
        return False
    _touch(store, session)
    store.depart("session", session_id)
    name = session.node.lower()
    if not store.sessions.by("node", name):
        store.depart("sessions", name)
    for entry in list(store.kv.by("session", session_id).values()):
        if session.behavior == DELETE:
            kv.delete(store, entry.key)
        else:
            kv.release(store, entry)
        if session.lock_delay > 0:
            store.lock_delays.put((entry.key, store.now + min(session.lock_delay / 1e9, LOCK_DELAY_MAX)))
    for query in list(store.queries.by("session", session_id).values()):
        store.queries.delete(query.id)
        store.depart("query", query.id)
        store.touch("queries")
    return True


def end_sessions_of_node(store: Store, node: str) -> None:
    """End every session of a node that is removed (`node` in lower case)."""
    for session_id in list(store.sessions.by("node", node)):
        destroy(store, session_id)


def end_sessions_of_check(store: Store, node: str, check_id: str) -> None:
    """End every session that depends on a check which is critical or gone (`node` in lower case)."""
    for session_id in list(store.sessions.by("check", (node, check_id.lower()))):
        destroy(store, session_id)


def _touch(store: Store, session: Session) -> None:
    store.touch("session", session.id)
    store.touch("sessions")
    store.touch("sessions", session.node.lower())
