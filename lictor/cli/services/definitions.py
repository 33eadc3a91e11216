"""Service definitions in configuration files, and their form in the body of a registration.

A file is read exactly as the agent reads it, so that what `lictor agent -config-file` accepts is what
`lictor services register` accepts. Its other keys are checked too, and otherwise ignored.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lictor.cli.command import CommandError
from lictor.model.decoding import Duration, is_record, keys_of
from lictor.model.duration import format_duration
from lictor.model.service_definition import CheckDefinition, ServiceDefinition


def read_definitions(paths: list[str]) -> list[ServiceDefinition]:
    """The services that files (HCL, JSON or YAML) and folders of them define, in order.

    Raises CommandError with everything that is wrong in them; then nothing has been done yet.
    """
    from lictor.agent.config.files import read_files
    from lictor.agent.config.keys import RuntimeConfig
    from lictor.agent.config.loading import read_source
    from lictor.agent.config.problem import ConfigError
    from lictor.model.decoding import build

    definitions: list[ServiceDefinition] = []
    problems: list[str] = []
    try:
        files, _ = read_files(paths)
    except ConfigError as error:
        raise CommandError(f"Error: {error}") from None
    for file in files:
        fragment = read_source(file)
        problems += [str(problem) for problem in fragment.problems]
        if not fragment.problems:
            tree = {"services": fragment.tree.get("services", ())}
            definitions += build(RuntimeConfig, tree).services
    if problems:
        raise CommandError("Error: " + "\n".join(problems))
    return definitions


def body(record: msgspec.Struct) -> dict[str, Any]:
    """A definition as the API reads it: what differs from the defaults, durations as text."""
    names = {field.name: field.encode_name for field in msgspec.structs.fields(record)}
    if isinstance(record, CheckDefinition):
        # A check inside a service's registration has its id under this name.
        names["id"] = "CheckID"
    shown = {}
    for name, key in keys_of(type(record)).items():
        value = getattr(record, name)
        if value != key.default:
            shown[names[name]] = format_duration(value) if key.type is Duration else _plain(value)
    return shown


def _plain(value: Any) -> Any:
    if is_record(type(value)):
        return body(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
