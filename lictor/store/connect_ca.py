"""The command that changes the mesh's authority."""

import msgspec

from lictor.model.connect_ca import CAConfiguration, CARoot
from lictor.store.store import Store

ONLY = ""  # the key of the one configuration


def put(
    store: Store, revision: int, configuration: CAConfiguration, roots: tuple[CARoot, ...], former_cluster: str = ""
) -> bool:
    """Put configuration and roots in the place of those that there are, where these still have the revision and are of
    the same cluster, or of the former one: a snapshot may have brought another one's. Returns whether they were. What
    is the same as before keeps its indexes.
    """
    old = store.authority.get(ONLY)
    if (old.revision if old is not None else 0) != revision:
        return False
    if old is not None and old.cluster not in (configuration.cluster, former_cluster):
        return False
    index = store.index
    before = {root.id: root for root in store.ca_roots}
    kept = {root.id: _placed(before.get(root.id), root, index) for root in roots}
    for root_id in before.keys() - kept.keys():
        store.ca_roots.delete(root_id)
    for root_id, root in kept.items():
        if before.get(root_id) != root:
            store.ca_roots.put(root)
    if kept != before:
        store.touch("ca-roots")
    store.authority.put(_stamped(old, configuration, index))
    store.touch("authority")
    return True


def _placed(old: CARoot | None, new: CARoot, index: int) -> CARoot:
    if old is None:
        return msgspec.structs.replace(new, create_index=index, modify_index=index)
    new = msgspec.structs.replace(new, create_index=old.create_index, modify_index=old.modify_index)
    return old if new == old else msgspec.structs.replace(new, modify_index=index)


def _stamped(old: CAConfiguration | None, new: CAConfiguration, index: int) -> CAConfiguration:
    if old is None:
        return msgspec.structs.replace(new, create_index=index, modify_index=index, revision=index)
    same = _said(new) == _said(old)
    modified = old.modify_index if same else index
    return msgspec.structs.replace(new, create_index=old.create_index, modify_index=modified, revision=index)


def _said(configuration: CAConfiguration) -> tuple[object, ...]:
    """What an operator has said of it."""
    return configuration.provider, configuration.config, configuration.force_without_cross_signing
