"""Configuration files' text to plain values, with the line of every key: HCL, JSON and YAML alike.

Its own file because the rest of the configuration does not care in which language a key was written. Pure: it takes
text, not paths. Every way in which a text can be malformed ends in SyntaxProblem.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from lictor.model.hcl import Document, Path, SyntaxProblem, parse_hcl

FORMATS = ("hcl", "json", "yaml")
EXTENSIONS = {".hcl": "hcl", ".json": "json", ".yaml": "yaml", ".yml": "yaml"}

MAX_BYTES = 16 * 1024 * 1024
"""Size of a file beyond which it is refused."""

MAX_VALUES = 200_000
"""Values of a YAML file, its aliases written out, beyond which it is refused."""

MAX_DEPTH = 100


def parse_document(text: str, format: str) -> Document:
    """The document that `text` holds in `format` (hcl, json or yaml). Raises SyntaxProblem with the line."""
    try:
        if format == "json":
            return _parse_json(text)
        if format == "yaml":
            return _Yaml(text).document()
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


# -- YAML ----------------------------------------------------------------------------------------------------------

_TAG = "tag:yaml.org,2002:"
_TRUE = ("true", "yes", "on")
_FALSE = ("false", "no", "off")


class _Yaml:
    """One YAML text. Only the plain kinds are built: maps, lists, texts, numbers, booleans and null."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.values = 0
        self.lines: dict[Path, int] = {}

    def document(self) -> Document:
        try:
            node = yaml.compose(self.text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise SyntaxProblem(mark.line + 1 if mark else 1, str(error.problem or error.context)) from None
        except yaml.reader.ReaderError as error:
            line = self.text.count("\n", 0, error.position) + 1
            raise SyntaxProblem(line, "the text contains a character that YAML does not allow") from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise SyntaxProblem(1, str(error)) from None
        return Document(_top(None if node is None else self._value(node, ())), self.lines)

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self.values += 1
        line = node.start_mark.line + 1
        if self.values > MAX_VALUES or len(path) > MAX_DEPTH:
            raise SyntaxProblem(line, "the document is too large or nested too deeply")
        if path:
            self.lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, position)) for position, item in enumerate(node.value)]
        return self._scalar(node, line)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise SyntaxProblem(line, "a key must be a text")
            if key_node.tag == _TAG + "merge":
                for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    if not isinstance(source, yaml.MappingNode):
                        raise SyntaxProblem(line, "<< must name a map, or a list of maps")
                    merged = {**self._value(source, (*path, "<<")), **merged}
                continue
            key = str(key_node.value)
            self.lines[(*path, key)] = line
            own[key] = self._value(value_node, (*path, key))
        return {**merged, **own}

    def _scalar(self, node: yaml.Node, line: int) -> Any:
        text = str(node.value)
        kind = node.tag.removeprefix(_TAG)
        if kind in ("str", "timestamp", "value"):
            return text
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        number = {"int": _yaml_int, "float": _yaml_float}.get(kind)
        if number is None:
            raise SyntaxProblem(line, f"the tag {node.tag} is not supported")
        try:
            return number(text)
        except ValueError:
            raise SyntaxProblem(line, f'"{text[:40]}" is not a number') from None


def _yaml_int(text: str) -> int:
    plain = text.replace("_", "")
    digits = plain.lstrip("+-")
    if len(digits) > 64:
        raise ValueError
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
        return int(plain, 8)
    return int(plain, 0)


def _yaml_float(text: str) -> float:
    return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").replace(".NaN", "nan"))
