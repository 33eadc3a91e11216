"""Commands on what an operator sets or nodes report: config entries, cluster settings, coordinates."""

from typing import Any

from lictor.model.config_entry import check_graph, check_permissions, read_entry
from lictor.model.config_entry.defaults import PERMISSIVE
from lictor.model.config_entry.mesh import MESH
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.model.errors import Refused
from lictor.store import virtual_ips
from lictor.store.store import ConfigRow, Setting, Store, config_key

# The kinds whose entries depend on each other.
GRAPH_KINDS = frozenset(
    ("service-defaults", "proxy-defaults", "service-router", "service-splitter", "service-resolver", "ingress-gateway")
)


# The kinds that say which protocol a service speaks, and that of the entries which may need one with requests.
PROTOCOL_KINDS = ("service-defaults", "proxy-defaults")
INTENTIONS = "service-intentions"

COPIED = "config-entries-copied"  # the setting that says how far the primary datacenter's entries are known here


def _refuse_misfit(store: Store, kind: str, name: str, body: dict[str, Any] | None) -> None:
    """Raise where the entries would not go together after an entry is put, or with None deleted."""
    if kind == INTENTIONS or kind in PROTOCOL_KINDS:
        _refuse_needless_permissions(store, kind, name, body)
    if kind not in GRAPH_KINDS:
        return
    own = config_key(kind, name)
    entries = {
        (row.kind, row.name): read_entry(row.body)
        for key, row in store.config.rows.items()
        if row.kind in GRAPH_KINDS and key != own
    }
    if body is not None:
        entries[kind, name] = read_entry(body)
    check_graph(kind, name, entries)


def _refuse_needless_permissions(store: Store, kind: str, name: str, body: dict[str, Any] | None) -> None:
    """Raise where intentions would have permissions for requests that their destination does not have. There may be
    thousands of such entries: only those that the change is about are looked at.
    """

    def after(key: tuple[str, str]) -> dict[str, Any] | None:
        if key == config_key(kind, name):
            return body
        row = store.config.get(key)
        return row.body if row is not None else None

    destinations = [name]
    if kind == "proxy-defaults":
        destinations = sorted(row.name for row in store.config.by("kind", INTENTIONS).values())
    for destination in destinations:
        intentions = after(config_key(INTENTIONS, destination))
        if intentions is None or not any(source.get("Permissions") for source in intentions.get("Sources") or ()):
            continue
        asked = ((PROTOCOL_KINDS[0], destination), (PROTOCOL_KINDS[1], "global"))
        speaking = {key: after(config_key(*key)) for key in asked}
        check_permissions(destination, {key: read_entry(found) for key, found in speaking.items() if found is not None})


def _refuse_permissive(store: Store, kind: str, old: ConfigRow | None, body: dict[str, Any]) -> None:
    """Raise where connections without the mesh's TLS would be let in, and the mesh does not allow to begin with that.
    What has been permissive may stay.
    """
    if kind not in PROTOCOL_KINDS or body.get("MutualTLSMode") != PERMISSIVE:
        return
    mesh = store.config.get(config_key(MESH, MESH))
    allowed = mesh is not None and mesh.body.get("AllowEnablingPermissiveMutualTLS")
    if not allowed and (old is None or old.body.get("MutualTLSMode") != PERMISSIVE):
        reason = "AllowEnablingPermissiveMutualTLS=false in the mesh config entry"
        raise Refused(f"cannot set MutualTLSMode=permissive because {reason}")


def put_config(store: Store, kind: str, name: str, body: dict[str, Any]) -> bool:
    """Put a config entry; one that is the same already is left as it is."""
    old = store.config.get(config_key(kind, name))
    if old is not None and old.body == body:
        return True
    _refuse_misfit(store, kind, name, body)
    _refuse_permissive(store, kind, old, body)
    _put_row(store, kind, name, body)
    return True


def _put_row(store: Store, kind: str, name: str, body: dict[str, Any]) -> None:
    old = store.config.get(config_key(kind, name))
    created = old.create_index if old is not None else store.index
    store.config.put(ConfigRow(kind, name, body, created, store.index))
    virtual_ips.assign(store, kind, name)
    store.touch("config", *config_key(kind, name))
    store.touch("config", kind)
    store.touch("config")


def compare_and_put_config(store: Store, kind: str, name: str, body: dict[str, Any], index: int) -> bool:
    """Put a config entry only if its modify index is still `index` (0: there is none)."""
    old = store.config.get(config_key(kind, name))
    if (old.modify_index if old is not None else 0) != index:
        return False
    return put_config(store, kind, name, body)


def delete_config(store: Store, kind: str, name: str) -> bool:
    """Remove a config entry; there need not be one."""
    if store.config.get(config_key(kind, name)) is not None:
        _refuse_misfit(store, kind, name, None)
        _delete_row(store, kind, name)
    return True


def _delete_row(store: Store, kind: str, name: str) -> None:
    store.config.delete(config_key(kind, name))
    virtual_ips.release(store, name)
    store.depart("config", *config_key(kind, name))
    store.touch("config", kind)
    store.touch("config")


def compare_and_delete_config(store: Store, kind: str, name: str, index: int) -> bool:
    """Remove a config entry only if its modify index is still `index`."""
    old = store.config.get(config_key(kind, name))
    if old is None or old.modify_index != index:
        return False
    return delete_config(store, kind, name)


def copy_entries(
    store: Store,
    put: tuple[tuple[str, str, dict[str, Any]], ...],
    delete: tuple[tuple[str, str], ...],
    position: dict[str, Any],
) -> bool:
    """Have entries as the primary datacenter has them, which has seen that they go together; see `EntriesCopy`."""
    for kind, name in delete:
        if store.config.get(config_key(kind, name)) is not None:
            _delete_row(store, kind, name)
    for kind, name, body in put:
        row = store.config.get(config_key(kind, name))
        if row is None or row.body != body:
            _put_row(store, kind, name, body)
    return put_setting(store, COPIED, position, None)


def put_setting(store: Store, name: str, body: dict[str, Any], index: int | None) -> bool:
    """Replace a cluster setting; with an index, only if its modify index is still that one."""
    old = store.settings.get(name)
    if index is not None and (old.modify_index if old is not None else 0) != index:
        return False
    created = old.create_index if old is not None else store.index
    store.settings.put(Setting(name, body, created, store.index))
    store.touch("setting", name)
    return True


def put_coordinates(store: Store, entries: tuple[CoordinateEntry, ...]) -> int:
    """Put the coordinates of nodes that the catalog knows. Returns how many changed."""
    changed = 0
    for entry in entries:
        key = (entry.node.lower(), entry.segment)
        if store.nodes.get(key[0]) is None or store.coordinates.get(key) == entry:
            continue
        store.coordinates.put(entry)
        store.touch("coordinate", key[0])
        changed += 1
    if changed:
        store.touch("coordinates")
    return changed
