"""A parsed document against the table of keys: what it sets, what is wrong with it, what it should say instead.

The result of a document is a `Fragment`: a tree with only the keys that it gives, and the place of each. Fragments
are merged in order: a later value replaces an earlier one, lists grow, maps and sections merge key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin

import msgspec

from lictor.agent.config.deprecated import MOVED
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.config.problem import Path, Place, Problem, dotted
from lictor.model.decoding import (
    ABSENT,
    Absent,
    Computed,
    Duration,
    Key,
    Mistake,
    Reader,
    duration_text,
    is_record,
    keys_of,
)
from lictor.model.goflags import nearest
from lictor.model.hcl import Document
from lictor.model.service_definition import alias

DEFINITIONS = "lictor.model."
"""Records from below this module take the API's spellings too (`ScriptArgs`, `dockercontainerid`)."""


class Fragment(msgspec.Struct, frozen=True):
    """What one source sets."""

    tree: dict[str, Any]
    places: dict[Path, Place] = {}
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def type_name(type_: Any) -> str:
    """A type as people are told it: the documentation's and the error texts' word for it."""
    if type_ is Duration:
        return 'a duration such as "10s"'
    if is_record(type_):
        return "a block of keys"
    origin = get_origin(type_)
    if origin is tuple:
        inner = get_args(type_)[0]
        return "a list of texts" if inner is str else "a list of blocks"
    if origin is dict:
        return "a map"
    names = {str: "a text", int: "a whole number", bool: "true or false", float: "a number"}
    return names.get(type_, "a value")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the text "{value[:40]}"'
    if isinstance(value, Mapping):
        return "a block"
    if isinstance(value, list | tuple):
        return "a list"
    return str(value)[:40]


class FileDialect:
    """How configuration files are written: snake-case keys in any case, durations as text."""

    def spelling(self, written: str) -> str:
        """Lower case."""
        return written.lower()

    def renamed(self, record: type[msgspec.Struct], spelled: str) -> str | None:
        """The attribute for an alias of a service's or check's key."""
        if not record.__module__.startswith(DEFINITIONS):
            return None
        known = alias(record, spelled)
        if known:
            return known
        compact = spelled.replace("_", "")
        return next((name for name in keys_of(record) if name.replace("_", "") == compact), None)

    def unknown_key(self, record: type[msgspec.Struct], path: Path, keys: Mapping[str, Key]) -> str:
        """Names the key by its whole path, and the nearest key that exists there."""
        written = str(path[-1])
        if record is CHECK and written.lower() == "script":
            return f'key "{dotted(path)}" was removed: use "args", a list of texts'
        candidates = [name for name, key in keys.items() if Computed not in key.extras]
        candidates += list(MOVED.get(record, {}))
        compact = written.replace("-", "").replace("_", "").lower()
        near = next((name for name in candidates if name.replace("_", "") == compact), None)
        near = near or nearest(written.lower(), candidates)
        hint = f' (did you mean "{near}"?)' if near else ""
        return f'unknown key "{dotted(path)}"{hint}'

    def wrong_type(self, path: Path, type_: Any, value: Any) -> str:
        """Says what the key expects and what was given."""
        return f'key "{dotted(path)}" expects {type_name(type_)}, got {_shown(value)}'

    def duration(self, value: Any) -> float | Absent:
        """Seconds; a duration must be a text."""
        return duration_text(value)


CHECK = get_args(keys_of(RuntimeConfig)["checks"].type)[0]


class FileReader(Reader):
    """Reads one configuration document; gathers moved keys aside, and takes a block for a list of one."""

    def __init__(self) -> None:
        super().__init__(FileDialect())
        self.warnings: list[str] = []
        self.moves: list[tuple[tuple[str, ...], Any, Path]] = []
        self.also: list[tuple[tuple[str, ...], Any, Path]] = []

    def read_record(self, record: type[msgspec.Struct], value: Any, path: Path) -> dict[str, Any]:
        """As `Reader.read_record`; several blocks of one section are merged in order."""
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            tree: dict[str, Any] = {}
            for position, item in enumerate(value):
                tree = merge(record, tree, self.read_record(record, item, (*path, position)))
            return tree
        moved = MOVED.get(record, {})
        if not moved or not isinstance(value, Mapping):
            return super().read_record(record, value, path)
        current: dict[Any, Any] = {}
        for written, inner in value.items():
            move = moved.get(str(written).lower())
            if move is None:
                current[written] = inner
                continue
            if inner is None:
                continue
            here = (*path, str(written))
            warning = move.warning(dotted(here))
            if warning:
                self.warnings.append(warning)
            read = self.read(move.type, inner, here)
            if read is ABSENT or move.to is None:
                continue
            self.moves.append((move.to, read, here))
            self.also += [(target, extra, here) for target, extra in move.also]
        return super().read_record(record, current, path)

    def _duration(self, value: Any, path: Path) -> Any:
        before = len(self.mistakes)
        read = super()._duration(value, path)
        if len(self.mistakes) > before and isinstance(value, str):
            self.mistakes[-1] = Mistake(
                path, f'key "{dotted(path)}": invalid duration: "{value[:40]}": {self.mistakes[-1].text}'
            )
        return read

    def _sequence(self, inner: Any, whole: Any, value: Any, path: Path) -> Any:
        if isinstance(value, Mapping) and (is_record(inner) or get_origin(inner) is dict):
            read = self.read(inner, value, path)
            return () if read is ABSENT else (read,)
        return super()._sequence(inner, whole, value, path)

    def _mapping(self, inner: Any, whole: Any, value: Any, path: Path) -> Any:
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            value = {key: item for mapping in value for key, item in mapping.items()}
        return super()._mapping(inner, whole, value, path)


def read_document(document: Document, file: str) -> Fragment:
    """What a document sets, every problem in it with its line, and its warnings."""
    reader = FileReader()
    tree = reader.read_record(RuntimeConfig, document.value, ())
    places = {tuple(_canonical(path)): Place(file, line) for path, line in document.lines.items()}
    for target, value, source in reader.moves:
        if _put(tree, target, value):
            places[target] = Place(file, document.line(source))
    for target, value, source in reader.also:
        if _put(tree, target, value):
            places[target] = Place(file, document.line(source))
    problems = tuple(
        Problem(_located(mistake), mistake.path, Place(file, document.line(mistake.path)))
        for mistake in reader.mistakes
    )
    warnings = tuple(dict.fromkeys(reader.warnings))
    return Fragment(tree, places, warnings, problems)


def _located(mistake: Mistake) -> str:
    if mistake.text.startswith(("key ", "unknown key ")):
        return mistake.text
    return f'key "{dotted(mistake.path)}" {mistake.text}'


def _canonical(path: Path) -> list[str | int]:
    return [part.lower() if isinstance(part, str) else part for part in path]


def _put(tree: dict[str, Any], target: tuple[str, ...], value: Any) -> bool:
    """Set `target` where the tree does not have it yet, append where it is a list; whether anything was set."""
    *sections, last = target
    for section in sections:
        tree = tree.setdefault(section, {})
    if isinstance(value, tuple):
        tree[last] = (*tree.get(last, ()), *value)
        return True
    if last in tree:
        return False
    tree[last] = value
    return True


def merge(record: type[msgspec.Struct], earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of `record` as one: later values win, lists grow, maps and sections merge."""
    keys = keys_of(record)
    merged = dict(earlier)
    for name, value in later.items():
        type_ = keys[name].type
        if name not in merged:
            merged[name] = value
        elif is_record(type_):
            merged[name] = merge(type_, merged[name], value)
        elif get_origin(type_) is tuple:
            merged[name] = (*merged[name], *value)
        elif get_origin(type_) is dict:
            merged[name] = {**merged[name], **value}
        else:
            merged[name] = value
    return merged
