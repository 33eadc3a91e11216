"""The roots of a datacenter that is not the primary one. Pure.

They are the primary's, of which one is the root that this datacenter's own intermediate is under. That is the primary's
active one but for the while until another intermediate is signed. What the primary trusts is trusted here, and besides
what leaves of this datacenter are still under.
"""

from collections.abc import Sequence

import msgspec

from lictor.model.connect_ca import CARoot
from lictor.server.connect_ca_roots import active_of, gone_at


def followed(before: Sequence[CARoot], primary: Sequence[CARoot], own: CARoot, now: float) -> tuple[CARoot, ...]:
    """The roots where leaves are signed under `own`, whose intermediates are this datacenter's. `primary` are the
    primary's roots, none where they have not been heard of.
    """
    known = {root.id: root for root in before}
    there = {root.id: root for root in primary}
    active = active_of(before)
    if active is not None and active.id == own.id:
        own = _continuing(own, active)
    elif own.id in known:
        own = _continuing(own, msgspec.structs.replace(known[own.id], crosses=()))
    if own.id in there:
        own = msgspec.structs.replace(own, crosses=there[own.id].crosses, name=there[own.id].name)
    found = []
    for root_id in dict.fromkeys((*known, *there)):
        if root_id == own.id:
            found.append(own)
            continue
        root = _beside(known.get(root_id), there.get(root_id), now)
        signed_here = root.retired > 0.0
        if root_id in there or (now < gone_at(root) if signed_here else not primary):
            found.append(root)
    return tuple(found if own.id in known or own.id in there else (*found, own))


def _continuing(own: CARoot, before: CARoot) -> CARoot:
    return msgspec.structs.replace(
        own,
        crosses=before.crosses,
        leaf_life=max(before.leaf_life, own.leaf_life),
        create_index=before.create_index,
        modify_index=before.modify_index,
    )


def _beside(here: CARoot | None, there: CARoot | None, now: float) -> CARoot:
    """A root under which no leaf is signed here now. `retired` is when that ended, 0 where it never was."""
    root = here if here is not None else there
    assert root is not None
    retired = 0.0
    if here is not None:
        retired = now if here.active else here.retired
    return msgspec.structs.replace(root, active=False, retired=retired, intermediates=(), crosses=())
