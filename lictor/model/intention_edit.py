"""Changes of single intentions, as changes of the config entry that holds those of a destination. Pure.

There are two ways to write an intention without writing its entry: by the names of its ends, and by an id, as in Consul
before 1.9. An entry is of one kind or of the other: the ids, the times and the meta of its sources go when it is edited
as an entry or by names, and then it can be edited by id no more. Each function gives the entry as it is to be stored,
filled in and checked, and raises `InvalidConfigEntry` in Consul's words.
"""

import msgspec

from lictor.model.config_entry.decode import InvalidConfigEntry, several
from lictor.model.config_entry.entry import MAX_META_VALUE, WILDCARD, check_meta, meta_problems, quoted, require
from lictor.model.config_entry.intentions import ALLOW, DENY, ServiceIntentions, SourceIntention, precedence
from lictor.model.intention import CONSUL, Intention, decision_text


def put_source(entry: ServiceIntentions | None, destination: str, source: SourceIntention) -> ServiceIntentions:
    """With a source in the place of that of its name, or beside the others."""
    before = _sources(entry)
    kept = tuple(source if _same(one, source.name) else one for one in before)
    if not any(_same(one, source.name) for one in before):
        kept = (*before, source)
    return _by_name(entry, destination, kept)


def remove_source(entry: ServiceIntentions, name: str) -> ServiceIntentions | None:
    """Without the source of a name: None where nothing is left, the entry itself where it has none such. Where all have
    ids, the others keep theirs.
    """
    before = _sources(entry)
    kept = tuple(one for one in before if not _same(one, name))
    if len(kept) == len(before):
        return entry
    if not kept:
        return None
    change = _by_id if all(one.legacy_id for one in before) else _by_name
    return change(entry, entry.name, kept)


def add_legacy(entry: ServiceIntentions | None, destination: str, source: SourceIntention) -> ServiceIntentions:
    """With one more source, which has an id."""
    for one in _sources(entry):
        if one.legacy_id and _same(one, source.name):
            raise InvalidConfigEntry(f"duplicate intention found: {decision_text(destination, one)}")
    return _by_id(entry, destination, (*_sources(entry), source))


def replace_legacy(entry: ServiceIntentions, source: SourceIntention) -> ServiceIntentions:
    """With a source in the place of that of the same id, whose time of creation stays."""
    kept = []
    for one in _sources(entry):
        if one.legacy_id != source.legacy_id:
            kept.append(one)
            if _same(one, source.name):
                raise InvalidConfigEntry(f"duplicate intention found: {decision_text(entry.name, one)}")
        else:
            created = one.legacy_create_time or source.legacy_create_time
            kept.append(msgspec.structs.replace(source, legacy_create_time=created))
    return _by_id(entry, entry.name, tuple(kept))


def remove_legacy(entry: ServiceIntentions, legacy_id: str) -> ServiceIntentions | None:
    """Without the source of an id: None where nothing is left."""
    _require_legacy(entry)
    kept = tuple(one for one in _sources(entry) if one.legacy_id != legacy_id)
    return _by_id(entry, entry.name, kept) if kept else None


def check_legacy(intention: Intention) -> None:
    """Raise `InvalidConfigEntry` with all that is wrong with an intention that is written by id."""
    problems = []
    for field, name in (("SourceName", intention.source_name), ("DestinationName", intention.destination_name)):
        if not name:
            problems.append(f"{field} must be set")
    for field, name in (("SourceName", intention.source_name), ("DestinationName", intention.destination_name)):
        if name != WILDCARD and WILDCARD in name:
            problems.append(f"{field}: wildcard character '*' cannot be used with partial values")
    if len(intention.description) > MAX_META_VALUE:
        problems.append(f"Description exceeds maximum length {MAX_META_VALUE}")
    problems += meta_problems(intention.meta or {})
    if intention.permissions:
        problems.append("Permissions must not be set")
    if intention.action not in (ALLOW, DENY):
        problems.append("Action must be set to 'allow' or 'deny'")
    if intention.source_type != CONSUL:
        problems.append("SourceType must be set to 'consul'")
    if problems:
        raise InvalidConfigEntry(several(problems))


def _sources(entry: ServiceIntentions | None) -> tuple[SourceIntention, ...]:
    return (entry.sources or ()) if entry is not None else ()


def _same(source: SourceIntention, name: str) -> bool:
    return source.name == name and not source.peer and not source.sameness_group


def _by_name(
    entry: ServiceIntentions | None, destination: str, sources: tuple[SourceIntention, ...]
) -> ServiceIntentions:
    changed = _with(entry, destination, sources).normalised()
    # Meta that an id came with is refused by the check, as it would be lost; an empty one is nothing.
    settled = tuple(msgspec.structs.replace(one, legacy_meta=one.legacy_meta or None) for one in changed.sources or ())
    changed = msgspec.structs.replace(changed, sources=settled)
    changed.validate()
    return changed


def _by_id(
    entry: ServiceIntentions | None, destination: str, sources: tuple[SourceIntention, ...]
) -> ServiceIntentions:
    if entry is not None:
        _require_legacy(entry)
        require(not entry.meta, "Meta must be omitted for legacy intention writes")
    for one in sources:
        check_meta(one.legacy_meta)
    ordered = sorted(
        (msgspec.structs.replace(one, precedence=precedence(one.name, destination)) for one in sources),
        key=lambda one: -one.precedence,
    )
    return _with(entry, destination, tuple(ordered))


def _require_legacy(entry: ServiceIntentions) -> None:
    if not all(one.legacy_id for one in _sources(entry)):
        raise InvalidConfigEntry(
            f"cannot use legacy intention API to edit intentions with a destination of {quoted(entry.name)} "
            "after editing them via a service-intentions config entry"
        )


def _with(entry: ServiceIntentions | None, destination: str, sources: tuple[SourceIntention, ...]) -> ServiceIntentions:
    if entry is None:
        return ServiceIntentions(name=destination, sources=sources)
    return msgspec.structs.replace(entry, sources=sources)
