"""The configuration reference, docs/configuration.md, written from the table of keys.

python -m lictor.agent.config.reference > docs/configuration.md
"""

from __future__ import annotations

import sys
from typing import Any, get_args, get_origin

from lictor.agent.config.deprecated import MOVED
from lictor.agent.config.flags import MOVED_FLAGS, walk
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.config.loading import DEV
from lictor.agent.config.pending import is_pending
from lictor.agent.config.sections import NO_LIMIT
from lictor.model.decoding import Duration, is_record, keys_of
from lictor.model.duration import format_duration
from lictor.model.service_definition import CheckDefinition, ServiceDefinition

HEADER = """\
# Configuration

This page is made from the table of keys in `lictor/agent/config`; a test keeps it current. To make it again:

    python -m lictor.agent.config.reference > docs/configuration.md

`lictor agent` reads files in HCL, JSON and YAML: `-config-file` names a file, `-config-dir` a folder whose files
ending in `.hcl`, `.json`, `.yaml` or `.yml` are read in the order of their names. Later files win; lists grow; maps
and sections merge key by key. Flags win over files. `lictor validate PATH...` says what is wrong without starting
anything: every unknown or mistyped key is named with its file and line, and the nearest key that exists.

Durations are texts such as `"10s"`, `"1h30m"`, `"250ms"`. Addresses may be templates: `{{ GetPrivateIP }}`,
`{{ GetInterfaceIP "eth0" }}`, `{{ GetAllInterfaces | include "network" "10.0.0.0/8" | attr "address" }}`.

Keys marked *reload* take effect on SIGHUP, `lictor reload` and `PUT /v1/agent/reload`; a change of another key is
reported then, and takes effect at the next start. Keys marked *no effect yet* are read and judged, and what they are
about is still to come; the agent and `lictor validate` name those that a configuration relies on.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEADER, "## Keys\n", _keys_table(), _definition("A service", "services", ServiceDefinition)]
    parts += [_definition("A check", "checks", CheckDefinition), _dev(), _moved()]
    return "\n".join(parts)


def _type(type_: Any) -> str:
    if type_ is Duration:
        return "duration"
    if is_record(type_):
        return "section"
    origin = get_origin(type_)
    if origin is tuple:
        return f"list of {_plural(get_args(type_)[0])}"
    if origin is dict:
        return f"map of {_plural(get_args(type_)[1])}"
    return {str: "text", int: "integer", bool: "boolean", float: "number"}.get(type_, "any")


def _plural(type_: Any) -> str:
    word = _type(type_)
    if word.startswith("list of "):
        return "lists of " + word.removeprefix("list of ")
    return {"any": "values", "map of values": "maps"}.get(word, f"{word}s")


def _default(type_: Any, value: Any) -> str:
    if value is None or is_record(type_) or value in ("", (), {}):
        return ""
    if type_ is Duration:
        return f"`{format_duration(value)}`" if value else ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value == NO_LIMIT:
        return ""
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _keys_table() -> str:
    lines = [_row("key", "type", "default", "flag", "meaning"), _row("---", "---", "---", "---", "---")]
    for path, key, setting in walk():
        marks = " *no effect yet*" if is_pending(path) and not setting.doc.startswith("Accepted") else ""
        marks += (" *reload*" if setting.reload and not is_record(key.type) else "") + (
            f" (Consul {setting.since})" if setting.since else ""
        )
        flag = f"`-{setting.flag}`" if setting.flag else ""
        lines.append(
            _row(f"`{'.'.join(path)}`", _type(key.type), _default(key.type, key.default), flag, setting.doc + marks)
        )
    return "\n".join(lines) + "\n"


def _definition(title: str, key: str, record: Any) -> str:
    lines = [
        f"## {title}\n",
        f"An element of `{key}`; one alone may be written as `{key[:-1]}`. The same fields, in Consul's spelling "
        "(`EnableTagOverride`) or this one, make the body of a registration through the HTTP API.\n",
        _row("key", "type", "default"),
        _row("---", "---", "---"),
    ]
    for name, inner in keys_of(record).items():
        lines.append(_row(f"`{name}`", _type(inner.type), _default(inner.type, inner.default)))
    return "\n".join(lines) + "\n"


def _dev() -> str:
    lines = ["## What `-dev` sets\n", _row("key", "value"), _row("---", "---")]

    def rows(record: Any, tree: dict[str, Any], path: tuple[str, ...]) -> None:
        keys = keys_of(record)
        for name, value in tree.items():
            if is_record(keys[name].type):
                rows(keys[name].type, value, (*path, name))
            else:
                lines.append(_row(f"`{'.'.join((*path, name))}`", _default(keys[name].type, value)))

    rows(RuntimeConfig, DEV, ())
    return "\n".join(lines) + "\n"


def _moved() -> str:
    lines = [
        "## Older keys\n",
        "These are still read, with a warning that names the key to use.\n",
        _row("older key", "use"),
        _row("---", "---"),
    ]
    sections = {key.type: ".".join(path) + "." for path, key, _ in walk() if is_record(key.type)}
    for record, moved in MOVED.items():
        for name, move in moved.items():
            use = f"`{'.'.join(move.to)}`" if move.to else "nothing: it has no effect"
            if not move.silent:
                lines.append(_row(f"`{sections.get(record, '')}{name}`", use))
    for name, (path, _) in MOVED_FLAGS.items():
        lines.append(_row(f"`-{name}`", f"`-{path[0].replace('_', '-')}`"))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
