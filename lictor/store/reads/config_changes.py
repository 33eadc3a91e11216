"""What has changed of the config entries since a position, a bounded part at a time: for another datacenter that keeps
a copy of them. Pure.

A position is an index up to which the copy is true. Where what was deleted since is not known any more (tombstones are
reaped), or the state is another one than that of the position, the copy goes through all entries in order of their
keys: `place` is how far it is then. `index` is that at which it began: what changes meanwhile comes afterwards.
"""

from typing import Annotated, Any

import msgspec

from lictor.store.store import ConfigRow, View

ENTRIES_MOST = 512  # in one answer
BYTES_MOST = 4 * 1024 * 1024  # of their bodies in one answer, unless a single one has more

Text = Annotated[str, msgspec.Meta(max_length=4096)]
Index = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]

_size = msgspec.msgpack.Encoder().encode


class Position(msgspec.Struct, frozen=True):
    """How far a copy is. `cluster` names the servers whose entries they are; `place` is the key of the last entry while
    it goes through all of them, `("", "")` at the beginning, and None while it goes by the index.
    """

    cluster: Text = ""
    index: Index = 0
    place: tuple[Text, Text] | None = ("", "")


class Changed(msgspec.Struct, frozen=True):
    """Entries (kind, name, body) to put and keys to delete. With `after` these are all entries whose keys follow that
    one up to `through` (None for the last of all): what the copy has besides in between is to be deleted. `more` is
    whether there is more to ask for at once, from `position` on.
    """

    put: tuple[tuple[str, str, dict[str, Any]], ...]
    delete: tuple[tuple[str, str], ...]
    position: Position
    after: tuple[str, str] | None = None
    through: tuple[str, str] | None = None
    more: bool = False


def changes_after(view: View, cluster: str, position: Position, most: int) -> Changed:
    """What a copy that is at a position does next, with at most so many entries."""
    view.saw("config")
    store = view.store
    same = position.cluster == cluster and store.base <= position.index <= store.index
    if same and position.place is None and position.index >= _forgotten(view):
        return _since(view, position, most)
    if not same or position.place is None:
        position = Position(cluster, store.index)
    return _part(view, position, most)


def _forgotten(view: View) -> int:
    """The index up to which what was deleted is not known any more. The floor is of everything that was ever deleted:
    where nothing of it was a config entry's, the last change of any is what counts.
    """
    store = view.store
    return min(store.floor, store.touched.get(("config",), store.floor))


def _since(view: View, position: Position, most: int) -> Changed:
    store, after = view.store, position.index
    rows = [(row.modify_index, key, row) for key, row in store.config.rows.items() if row.modify_index > after]
    gone = [
        (index, (topic[1], topic[2]), None)
        for topic, index in store.departed.items()
        if topic[0] == "config" and len(topic) == 3 and index > after
    ]
    ordered = sorted([*rows, *gone], key=lambda one: one[:2])
    put: list[tuple[str, str, dict[str, Any]]] = []
    delete: list[tuple[str, str]] = []
    taken = size = 0
    reached = after
    for index, key, row in ordered:
        size += _bytes(row)
        # What one command has changed goes together, whatever its size: an index says how far the copy is.
        if index != reached and (taken >= most or (taken and size > BYTES_MOST)):
            return Changed(tuple(put), tuple(delete), Position(position.cluster, reached, None), more=True)
        reached, taken = index, taken + 1
        if row is None:
            delete.append(key)
        else:
            put.append((row.kind, row.name, row.body))
    return Changed(tuple(put), tuple(delete), Position(position.cluster, store.index, None))


def _part(view: View, position: Position, most: int) -> Changed:
    store, after = view.store, position.place or ("", "")
    keys = sorted(key for key in store.config.rows if key > after)
    put: list[tuple[str, str, dict[str, Any]]] = []
    size = 0
    last = after
    for key in keys:
        row = store.config.rows[key]
        size += _bytes(row)
        if put and (len(put) >= most or size > BYTES_MOST):
            here = Position(position.cluster, position.index, last)
            return Changed(tuple(put), (), here, after=after, through=last, more=True)
        put.append((row.kind, row.name, row.body))
        last = key
    return Changed(tuple(put), (), Position(position.cluster, position.index, None), after=after, more=True)


def _bytes(row: ConfigRow | None) -> int:
    return len(_size(row.body)) if row is not None else 0
