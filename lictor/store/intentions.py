"""The command on a single intention: its destination's config entry is changed within it, so that of two who edit one
destination at once neither undoes the other's change.
"""

from collections.abc import Callable

import msgspec

from lictor.model import intention_edit
from lictor.model.command import IntentionWrite
from lictor.model.config_entry import InvalidConfigEntry, entry_json
from lictor.model.config_entry.intentions import ServiceIntentions, SourceIntention
from lictor.model.errors import Refused
from lictor.store import settled
from lictor.store.store import Store, config_key

KIND = "service-intentions"


def write(store: Store, command: IntentionWrite) -> bool:
    """Change one intention. Raises `Refused` where the entry that would come of it cannot be accepted, where there is
    none of an id, and where an id's destination would be another one.
    """
    try:
        return _VERBS[command.verb](store, command)
    except InvalidConfigEntry as error:
        raise Refused(str(error)) from None
    except KeyError:
        raise Refused(f'unknown intention verb "{command.verb}"') from None


def _upsert(store: Store, command: IntentionWrite) -> bool:
    entry = _entry(store, command.destination)
    return _put(store, intention_edit.put_source(entry, command.destination, _source(command)))


def _delete(store: Store, command: IntentionWrite) -> bool:
    entry = _entry(store, command.destination)
    if entry is None:
        return True
    return _put_or_delete(store, command.destination, intention_edit.remove_source(entry, command.source))


def _create(store: Store, command: IntentionWrite) -> bool:
    entry = _entry(store, command.destination)
    return _put(store, intention_edit.add_legacy(entry, command.destination, _source(command)))


def _update(store: Store, command: IntentionWrite) -> bool:
    entry = _holder(store, command, "modify")
    if entry.name != command.destination:
        raise Refused("Cannot modify Destination partition/namespace/name for an intention once it exists.")
    return _put(store, intention_edit.replace_legacy(entry, _source(command)))


def _delete_id(store: Store, command: IntentionWrite) -> bool:
    entry = _holder(store, command, "delete")
    return _put_or_delete(store, entry.name, intention_edit.remove_legacy(entry, command.id))


_VERBS: dict[str, Callable[[Store, IntentionWrite], bool]] = {
    "upsert": _upsert,
    "delete": _delete,
    "create": _create,
    "update": _update,
    "delete-id": _delete_id,
}


def _source(command: IntentionWrite) -> SourceIntention:
    return msgspec.convert(command.body, SourceIntention)


def _entry(store: Store, destination: str) -> ServiceIntentions | None:
    row = store.config.get(config_key(KIND, destination))
    return msgspec.convert(row.body, ServiceIntentions) if row is not None else None


def _holder(store: Store, command: IntentionWrite, what: str) -> ServiceIntentions:
    """The entry with the intention of an id."""
    for row in store.config.by("kind", KIND).values():
        if any(source.get("LegacyID") == command.id for source in row.body.get("Sources") or ()):
            return msgspec.convert(row.body, ServiceIntentions)
    raise Refused(f"Cannot {what} non-existent intention: '{command.id}'")


def _put(store: Store, entry: ServiceIntentions) -> bool:
    return settled.put_config(store, KIND, entry.name, entry_json(entry))


def _put_or_delete(store: Store, destination: str, entry: ServiceIntentions | None) -> bool:
    return settled.delete_config(store, KIND, destination) if entry is None else _put(store, entry)
