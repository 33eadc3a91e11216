"""A config entry in a file (HCL, JSON or YAML) or on standard input."""

from __future__ import annotations

from typing import Any

from lictor.cli.command import CommandError, Io, reason
from lictor.model.config_entry.mesh import MESH

STRICT = "Failed to decode config entry input"


def read_entry(path: str, io: Io) -> dict[str, Any]:
    """The entry, with its kind under "Kind" and its name under "Name", however they were spelled.

    `path` "-" reads standard input. The language follows from the file's extension, and without one from the text:
    what begins with a brace is JSON, everything else HCL. Raises CommandError naming the line where the text goes
    wrong. What the entry says beyond that is judged by the servers.
    """
    from lictor.agent.config.documents import EXTENSIONS, parse_document
    from lictor.model.hcl import SyntaxProblem

    if path == "-":
        data = io.stdin.read()
    else:
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise CommandError(f"Failed to load data: Failed to read file: open {path}: {reason(error)}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandError(f"{STRICT}: the text is not UTF-8") from None
    guess = "json" if text.lstrip().startswith("{") else "hcl"
    language = next((language for extension, language in EXTENSIONS.items() if path.endswith(extension)), guess)
    try:
        value = parse_document(text, language).value
    except SyntaxProblem as problem:
        raise CommandError(f"{STRICT}: line {problem.line}: {problem.text}") from None
    return with_canonical_names(value)


def with_canonical_names(value: dict[str, Any]) -> dict[str, Any]:
    """The entry with "Kind" and "Name" spelled so; raises CommandError when there is no kind. `mesh` need not be named:
    there is only one.
    """
    entry = dict(value)
    for canonical in ("Kind", "Name"):
        spelled = [key for key in entry if key.lower() == canonical.lower()]
        for key in spelled:
            entry[canonical] = entry.pop(key)
    if "Kind" not in entry:
        raise CommandError(f"{STRICT}: Payload does not contain a kind/Kind key at the top level")
    unnamed = MESH if entry["Kind"] == MESH else ""
    if not isinstance(entry["Kind"], str) or not isinstance(entry.setdefault("Name", unnamed), str):
        raise CommandError(f"{STRICT}: kind and name must be texts")
    return entry
