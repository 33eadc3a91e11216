"""Reads of config entries, as the API shows them, and of the cluster's settings."""

from typing import Any

from lictor.store.store import ConfigRow, Setting, View, config_key


def shown(row: ConfigRow) -> dict[str, Any]:
    """A stored entry as the API shows it."""
    return row.body | {"CreateIndex": row.create_index, "ModifyIndex": row.modify_index}


def entry(view: View, kind: str, name: str) -> dict[str, Any] | None:
    """One entry."""
    key = config_key(kind, name)
    view.saw("config", *key)
    found = view.store.config.get(key)
    return shown(found) if found is not None else None


def entries(view: View, kind: str) -> list[dict[str, Any]]:
    """The entries of a kind, by name."""
    view.saw("config", kind)
    return [shown(row) for _, row in sorted(view.store.config.by("kind", kind).items())]


def every_entry(view: View) -> list[dict[str, Any]]:
    """Every entry, by kind and name."""
    view.saw("config")
    return [shown(row) for row in view.store.config]


def setting(view: View, name: str) -> Setting | None:
    """A cluster-wide setting."""
    view.saw("setting", name)
    return view.store.settings.get(name)
