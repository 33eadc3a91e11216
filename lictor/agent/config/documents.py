"""Configuration files' text to plain values, with the line of every key: HCL, JSON and YAML alike.

Its own file because the rest of the configuration does not care in which language a key was written; YAML is in
`yaml_documents`. Pure: it takes text, not paths. Every way in which a text can be malformed ends in SyntaxProblem.
"""

from __future__ import annotations

import json
import re
from typing import Any

from lictor.model.hcl import Document, Path, SyntaxProblem, parse_hcl

FORMATS = ("hcl", "json", "yaml")
EXTENSIONS = {".hcl": "hcl", ".json": "json", ".yaml": "yaml", ".yml": "yaml"}

MAX_BYTES = 16 * 1024 * 1024
"""Size of a file beyond which it is refused."""


def parse_document(text: str, format: str) -> Document:
    """The document that `text` holds in `format` (hcl, json or yaml). Raises SyntaxProblem with the line."""
    try:
        if format == "json":
            return _parse_json(text)
        if format == "yaml":
            from lictor.agent.config.yaml_documents import parse_yaml  # costs a start what most have no use for

            value, lines = parse_yaml(text)
            return Document(_top(value), lines)
        return parse_hcl(text)
    except RecursionError:
        raise SyntaxProblem(1, "the document is nested too deeply") from None


def _top(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SyntaxProblem(1, "the document must be an object with keys")
    return value


# -- JSON ----------------------------------------------------------------------------------------------------------

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|\n|[^\s{}\[\]:,"]+')


def _parse_json(text: str) -> Document:
    if not text.strip():
        return Document({}, {})
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SyntaxProblem(error.lineno, f"{error.msg} (column {error.colno})") from None
    except ValueError as error:
        raise SyntaxProblem(1, str(error)) from None
    return Document(_top(value), _json_lines(text))


def _json_lines(text: str) -> dict[Path, int]:
    """The line of every key and element of a text that is known to be JSON."""
    lines: dict[Path, int] = {}
    path: list[str | int] = []
    line = 1
    expects_key = False
    for match in _JSON_TOKEN.finditer(text):
        token = match[0]
        if token == "\n":
            line += 1
            continue
        if expects_key and token[0] == '"':
            path[-1] = json.loads(token)
            lines[tuple(path)] = line
            expects_key = False
            continue
        if token not in "]},:" and path and isinstance(path[-1], int):
            lines.setdefault(tuple(path), line)
        if token == "{":
            path.append("")
            expects_key = True
        elif token == "[":
            path.append(0)
        elif token in "}]":
            path.pop()
            expects_key = False
        elif token == ",":
            last = path[-1]
            if isinstance(last, int):
                path[-1] = last + 1
            else:
                expects_key = True
    return lines
