"""Reads of the mesh's authority: the roots, which everybody may know, and the configuration, for the servers alone."""

from lictor.model.connect_ca import CAConfiguration, CARoot
from lictor.store.connect_ca import ONLY
from lictor.store.store import View


def roots(view: View) -> list[CARoot]:
    """All roots that are trusted, the oldest first."""
    view.saw("ca-roots")
    return sorted(view.store.ca_roots, key=lambda root: (root.create_index, root.id))


def active_root(view: View) -> CARoot | None:
    """The root under which leaves are signed now."""
    return next((root for root in roots(view) if root.active), None)


def configuration(view: View) -> CAConfiguration | None:
    """The configuration, secrets and all."""
    view.saw("authority")
    return view.store.authority.get(ONLY)
