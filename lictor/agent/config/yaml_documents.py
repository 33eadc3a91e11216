"""YAML text to plain values, with the line of every key. Pure."""

from __future__ import annotations

from typing import Any

import yaml

from lictor.model.hcl import Path, SyntaxProblem

MAX_VALUES = 200_000
"""Values of a file, its aliases written out, beyond which it is refused."""

MAX_DEPTH = 100

_TAG = "tag:yaml.org,2002:"
_TRUE = ("true", "yes", "on")
_FALSE = ("false", "no", "off")


def parse_yaml(text: str) -> tuple[Any, dict[Path, int]]:
    """The value that a text holds, and the line of every key in it. Raises SyntaxProblem with the line."""
    parser = _Yaml(text)
    return parser.value(), parser.lines


class _Yaml:
    """One YAML text. Only the plain kinds are built: maps, lists, texts, numbers, booleans and null."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.values = 0
        self.lines: dict[Path, int] = {}

    def value(self) -> Any:
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
        return None if node is None else self._value(node, ())

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
