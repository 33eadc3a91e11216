"""Reads of the mesh's authority: the roots and the revoked leaves, which everybody may know, and the configuration, for
the servers alone.
"""

import msgspec

from lictor.model.connect_ca import CAConfiguration, CARoot, RevokedLeaf, plain_serial
from lictor.store.connect_ca import ONLY
from lictor.store.store import View


def roots(view: View) -> list[CARoot]:
    """All roots that are trusted, the oldest first."""
    view.saw("ca-roots")
    return sorted(view.store.ca_roots, key=lambda root: (root.create_index, root.id))


def revoked(view: View) -> list[RevokedLeaf]:
    """All leaves that are not to be believed, in the order of their serial numbers."""
    view.saw("ca-revoked")
    return list(view.store.ca_revoked.rows.in_order())


def is_revoked(view: View, serial: str) -> bool:
    """Whether the leaf with a serial number, in any spelling, is not to be believed."""
    view.saw("ca-revoked")
    return view.store.ca_revoked.get(plain_serial(serial)) is not None


class Trusted(msgspec.Struct, frozen=True):
    """What certificates of the mesh are verified with."""

    roots: list[CARoot]
    revoked: list[RevokedLeaf] = []


def trusted(view: View) -> Trusted:
    """The roots, and the leaves under them that are not to be believed all the same."""
    return Trusted(roots(view), revoked(view))


def active_root(view: View) -> CARoot | None:
    """The root under which leaves are signed now."""
    return next((root for root in roots(view) if root.active), None)


def configuration(view: View) -> CAConfiguration | None:
    """The configuration, secrets and all."""
    view.saw("authority")
    return view.store.authority.get(ONLY)
