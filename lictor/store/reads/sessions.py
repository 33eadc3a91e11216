"""Reads of sessions."""

from lictor.model.session import Session
from lictor.store.store import View


def session(view: View, session_id: str) -> list[Session]:
    """One session, in a list of none or one as the API shows it."""
    view.saw("session", session_id)
    found = view.store.sessions.get(session_id)
    return [found] if found is not None else []


def sessions(view: View) -> list[Session]:
    """Every session, by id."""
    view.saw("sessions")
    return list(view.store.sessions)


def sessions_of_node(view: View, node: str) -> list[Session]:
    """The sessions of a node, by id."""
    view.saw("sessions", node.lower())
    return [s for _, s in sorted(view.store.sessions.by("node", node.lower()).items())]
