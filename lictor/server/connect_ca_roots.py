"""The roots of the mesh's authority over time: which are trusted, how one takes the place of another, when one may go.
Pure.

A former root is trusted until every leaf that was signed under it has ended twice over. As long as there is one, the
active root's certificates by former ones travel with every leaf, so that nobody has to know the new root at once.
"""

from collections.abc import Iterable, Sequence

import msgspec

from lictor.ca import certificates
from lictor.ca.provider import Authority, ProviderError
from lictor.model.connect_ca import CARoot

LEAF_LIVES = 2  # lives of a leaf for which a former root is trusted
RENEW_SHARE = 0.1  # of a root's life that is left when another one takes its place
RENEW_LEAVES = 3  # lives of a leaf that are left at least
RENEW_MOST = 0.5  # of its life, however long leaves live


def as_root(authority: Authority, cluster: str, leaf_life: float) -> CARoot:
    """The active root of an authority. Raises `BadCertificate`, and `ProviderError` for one that nobody can trust."""
    found = certificates.read_certificate(authority.root)
    if not found.is_authority:
        raise ProviderError("the provider's root is no certificate authority (CA:TRUE)")
    issuer = certificates.read_certificate(authority.intermediates[0]) if authority.intermediates else found
    return CARoot(
        id=found.id,
        serial_number=found.serial & ((1 << 64) - 1),
        signing_key_id=issuer.signing_key_id,
        cluster=cluster,
        not_before=found.not_before,
        not_after=found.not_after,
        root=certificates.join_chain(authority.root),
        active=True,
        key_type=found.key_type,
        key_bits=found.key_bits,
        issuer_not_after=issuer.not_after,
        intermediates=tuple(certificates.split_chain("".join(authority.intermediates))),
        leaf_life=leaf_life,
    )


def active_of(roots: Iterable[CARoot]) -> CARoot | None:
    """The active one."""
    return next((root for root in roots if root.active), None)


def continued(roots: Sequence[CARoot], same: CARoot) -> tuple[CARoot, ...]:
    """The roots where the active one is what it was, and what it goes by may be another."""
    return tuple(
        msgspec.structs.replace(
            same,
            name=root.name,
            cluster=root.cluster,
            crosses=root.crosses,
            leaf_life=max(root.leaf_life, same.leaf_life),
            create_index=root.create_index,
            modify_index=root.modify_index,
        )
        if root.id == same.id
        else root
        for root in roots
    )


def rotated(roots: Sequence[CARoot], new: CARoot, crossed: str, now: float) -> tuple[CARoot, ...]:
    """The roots where a new one takes the place of the active one. `crossed` is the new one signed by that, empty where
    it cannot be had. The new one's chain to former roots goes through it.
    """
    old = active_of(roots)
    crosses = (crossed, *(old.crosses if old is not None else ())) if crossed else ()
    new = msgspec.structs.replace(new, active=True, retired=0.0, crosses=crosses)
    kept = [
        msgspec.structs.replace(root, active=False, retired=now, crosses=()) if root.active else root
        for root in roots
        if root.id != new.id
    ]
    return (*kept, new)


def pruned(roots: Sequence[CARoot], now: float) -> tuple[CARoot, ...]:
    """The roots that are still to be trusted."""
    kept = [root for root in roots if root.active or now < gone_at(root)]
    if any(not root.active for root in kept):
        return tuple(kept)
    return tuple(msgspec.structs.replace(root, crosses=()) if root.crosses else root for root in kept)


def gone_at(root: CARoot) -> float:
    """When a former root is trusted no more: nothing that was signed under it is good any longer."""
    return min(root.retired + LEAF_LIVES * root.leaf_life, root.not_after)


def renew_at(root: CARoot) -> float:
    """When another root is to take the place of this one."""
    life = root.not_after - root.not_before
    return root.not_after - min(max(RENEW_SHARE * life, RENEW_LEAVES * root.leaf_life), RENEW_MOST * life)
