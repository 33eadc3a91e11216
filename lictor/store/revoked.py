"""The commands about leaves that nobody is to believe any more: each is kept until it would have ended by itself.

There are few of them at a time: leaves live for days. Everybody who verifies certificates holds all of them, so there
is a bound to how many there may be.
"""

import re

import msgspec

from lictor.model.connect_ca import RevokedLeaf, plain_serial
from lictor.model.errors import InvalidRequest, Refused
from lictor.store.store import Store

AT_ONCE = 1000  # leaves in one command
MOST = 16_384  # leaves
LONGEST = 10 * 365 * 86400.0  # seconds that one is kept for
GRACE = 300.0  # seconds after its end for which it is kept: the clocks of the mesh are not all the same
MAX_NAME = 2048  # characters of a service's name or a node's

_SERIAL = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){0,63}").fullmatch
_FINGERPRINT = re.compile(r"([0-9a-f]{64})?").fullmatch


def add(store: Store, leaves: tuple[RevokedLeaf, ...]) -> int:
    """Revoke leaves; those that have ended are passed over. Returns how many were not revoked before.

    Raises `InvalidRequest` for what is no leaf, `Refused` where there are too many.
    """
    if len(leaves) > AT_ONCE:
        raise InvalidRequest(f"at most {AT_ONCE} certificates can be revoked at once, not {len(leaves)}")
    limit, count, changed = store.now + LONGEST, 0, False
    for leaf in leaves:
        _check(leaf)
        until = leaf.until if leaf.until < limit else limit
        if until <= store.now - GRACE:
            continue
        old = store.ca_revoked.get(plain_serial(leaf.serial))
        if old is not None and (old.fingerprint or not leaf.fingerprint):
            continue
        if old is None and len(store.ca_revoked) >= MOST:
            raise Refused(f"{MOST} certificates are revoked, and there is no room for more until some of them end")
        count += old is None
        changed = True
        created = old.create_index if old is not None else store.index
        store.ca_revoked.put(msgspec.structs.replace(leaf, until=until, create_index=created))
    if changed:
        store.touch("ca-revoked")
    return count


def _check(leaf: RevokedLeaf) -> None:
    if not _SERIAL(leaf.serial) or not plain_serial(leaf.serial):
        raise InvalidRequest(
            "a serial number is pairs of lower-case hex digits with colons between them, as in 0a:1b:2c"
        )
    if not _FINGERPRINT(leaf.fingerprint):
        raise InvalidRequest("a fingerprint is the SHA-256 of a certificate: 64 lower-case hex digits")
    if max(len(leaf.service), len(leaf.node)) > MAX_NAME:
        raise InvalidRequest(f"the name of a certificate's service or node has more than {MAX_NAME} characters")


def forget(store: Store, ended: float) -> int:
    """Forget the leaves that had ended at a time. Returns how many."""
    gone = [key for key, leaf in store.ca_revoked.rows.pairs() if leaf.until <= ended]
    for key in gone:
        store.ca_revoked.delete(key)
    if gone:
        store.touch("ca-revoked")
    return len(gone)
