"""Reads of intentions, out of the config entries that hold them. Those for a destination look at its entry and at that
of `*` only; those for a source, and those by id, at all of them.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from lictor.model.config_entry.entry import WILDCARD
from lictor.model.config_entry.intentions import ServiceIntentions
from lictor.model.intention import (
    Decision,
    DefaultPolicy,
    Intention,
    decide,
    in_order,
    intentions_of,
)
from lictor.model.spiffe import ServiceId
from lictor.store.intentions import KIND
from lictor.store.store import ConfigRow, View, config_key


def _held(row: ConfigRow) -> list[Intention]:
    entry = msgspec.convert(row.body, ServiceIntentions)
    return intentions_of(entry, row.create_index, row.modify_index)


def _of(view: View, destination: str) -> list[Intention]:
    """The intentions whose destination has just this name, in whatever case: services have no other one either."""
    key = config_key(KIND, destination)
    view.saw("config", *key)
    row = view.store.config.get(key)
    return _held(row) if row is not None else []


def _all(view: View, wanted: Callable[[Any], bool]) -> list[Intention]:
    """The intentions of the entries that have a source which is wanted, as it is stored: of thousands of entries most
    need not be read closer.
    """
    view.saw("config", KIND)
    rows = view.store.config.by("kind", KIND).values()
    return [one for row in rows if any(map(wanted, row.body.get("Sources") or ())) for one in _held(row)]


def intentions(view: View) -> list[Intention]:
    """Every intention, in the order in which they are considered."""
    return in_order(_all(view, bool))


def by_id(view: View, legacy_id: str) -> Intention | None:
    """The intention of an id."""
    found = _all(view, lambda source: source.get("LegacyID") == legacy_id)
    return next((one for one in found if one.id == legacy_id), None)


def entry_meta(view: View, destination: str) -> dict[str, str] | None:
    """The meta of the config entry of a destination; None where there is no entry."""
    key = config_key(KIND, destination)
    view.saw("config", *key)
    row = view.store.config.get(key)
    return dict(row.body.get("Meta") or {}) if row is not None else None


def exact(view: View, source: str, destination: str, peer: str = "") -> Intention | None:
    """The intention with just these ends."""
    for one in _of(view, destination):
        if one.source_name == source and one.source_peer == peer and not one.source_sameness_group:
            return one
    return None


def for_destination(view: View, service: str) -> list[Intention]:
    """The intentions for connections to a service, in the order in which they are considered; for `*`, to any."""
    found = _of(view, service)
    if service != WILDCARD:
        found += _of(view, WILDCARD)
    return in_order(found)


def for_source(view: View, service: str) -> list[Intention]:
    """The intentions for connections from a service, in the order in which they are considered; for `*`, from any."""
    names = (service, WILDCARD)
    found = _all(view, lambda source: source["Name"] in names)
    return in_order(one for one in found if one.source_name in names)


def decision(view: View, source: ServiceId, destination: str, default: DefaultPolicy) -> Decision:
    """What becomes of a connection from `source` to a service."""
    return decide(for_destination(view, destination), source, default)
