"""Changes of intentions, judged before they are made: which intention decides now and why, which ones it hides, and
what a change would make of a connection. Pure.
"""

import enum
from collections.abc import Iterable, Sequence

import msgspec

from lictor.model.config_entry.intentions import ALLOW, DENY, ServiceIntentions, precedence
from lictor.model.intention import (
    Decision,
    DefaultPolicy,
    Intention,
    decide,
    in_order,
    intentions_of,
    matches_source,
)
from lictor.model.spiffe import ServiceId


class Change(enum.Enum):
    """What may be done about the intention between two services: put one, or take away the one that is there."""

    ALLOW = ALLOW
    DENY = DENY
    DELETE = "delete"


class Explanation(msgspec.Struct, frozen=True):
    """A decision, and the intentions that would decide in turn were the ones before them not there."""

    decision: Decision
    shadowed: tuple[Intention, ...]


def explain(intentions: Iterable[Intention], source: ServiceId, default: DefaultPolicy) -> Explanation:
    """Why a connection from `source` fares as it does, where `intentions` are those of its destination, in order."""
    matching = [one for one in intentions if matches_source(one, source)]
    return Explanation(decide(matching, source, default), tuple(matching[1:]))


def changed(intentions: Sequence[Intention], source: str, destination: str, change: Change) -> list[Intention]:
    """The intentions of a destination as they would be after a change of that with just these ends, in order."""
    kept = [one for one in intentions if not between(one, source, destination)]
    if change is not Change.DELETE:
        made = Intention(
            source_name=source,
            destination_name=destination,
            action=change.value,
            precedence=precedence(source, destination),
        )
        kept.append(made)
    return in_order(kept)


def written(intentions: Sequence[Intention], entry: ServiceIntentions) -> list[Intention]:
    """The same after a config entry was written, which has all that are for just this destination."""
    kept = [one for one in intentions if one.destination_name.lower() != entry.name.lower()]
    return in_order([*kept, *intentions_of(entry)])


def between(intention: Intention, source: str, destination: str) -> bool:
    """Whether an intention has just these ends; the destination is a service's name, in whatever case."""
    if intention.source_peer or intention.source_sameness_group:
        return False
    return intention.source_name == source and intention.destination_name.lower() == destination.lower()


def command(source: str, destination: str, change: Change, *, exists: bool) -> str:
    """The command line that makes a change; `exists` is whether there is an intention with just these ends."""
    ends = f"{_word(source)} {_word(destination)}"
    if change is Change.DELETE:
        return f"lictor intention delete {ends}"
    flags = ("-deny " if change is Change.DENY else "") + ("-replace " if exists else "")
    return f"lictor intention create {flags}{ends}"


def _word(name: str) -> str:
    """A name as a shell takes it for one word."""
    if name and all(char.isalnum() or char in "-_./:" for char in name) and name.isascii():
        return name
    return "'" + name.replace("'", "'\\''") + "'"
