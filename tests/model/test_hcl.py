"""HCL as configuration files use it."""

import random
from typing import Any

import pytest

from lictor.model.hcl import SyntaxProblem, parse_hcl


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('a = "x"', {"a": "x"}),
        ('"a" = "x" b = 1', {"a": "x", "b": 1}),
        ("ports { http = 1, dns = 2 }", {"ports": {"http": 1, "dns": 2}}),
        ("ports = { http = 1 \n dns = 2 }", {"ports": {"http": 1, "dns": 2}}),
        ('config { "envoy_x" = true }', {"config": {"envoy_x": True}}),
        ("s { a = 1 } s { a = 2 }", {"s": [{"a": 1}, {"a": 2}]}),
        ('sink "file" { path = "x" }', {"sink": {"file": {"path": "x"}}}),
        ("l = [1, [2], { a = 3 },]", {"l": [1, [2], {"a": 3}]}),
        ("a = 0x10 b = 010 c = -1.5 d = 1e3", {"a": 16, "b": 8, "c": -1.5, "d": 1000.0}),
        ('a = "q \\"x\\" \\n \\u00e9 ${b "c"}"', {"a": 'q "x" \n é ${b "c"}'}),
        ("a = <<EOF\nx {\n  y\nEOF\nb = 1", {"a": "x {\n  y\n", "b": 1}),
        ("a = <<-EOF\n  x\n    y\n  EOF\n", {"a": "x\n  y\n"}),
        ("# c\n// d\n/* e\n f */ a = 1 # g", {"a": 1}),
        ('{ "a": 1 }'.replace(":", " ="), {"a": 1}),
        ("", {}),
        ("a = 1 a = 2", {"a": 2}),
    ],
)
def test_a_document_reads_as_written(text: str, value: dict[str, Any]) -> None:
    assert parse_hcl(text).value == value


def test_every_key_knows_its_line() -> None:
    document = parse_hcl("a = 1\n\nservice {\n  name = <<EOF\nx\nEOF\n  port = 1\n}\nservice { name = 2 }\n")
    assert document.line(("a",)) == 1
    assert document.line(("service", 0, "name")) == 4
    assert document.line(("service", 0, "port")) == 7
    assert document.line(("service", 1, "name")) == 9
    assert document.line(("service", 1, "unknown")) == 9


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a = 1\nb", 2, "must be followed by"),
        ("a {\n b = 1\n", 3, "} is missing"),
        ("a = foo", 1, "need double quotes"),
        ('a = "x\ny"', 1, "closing quote"),
        ("a = [1 2]", 1, "expected , or ]"),
        ("a = <<EOF\nx", 1, "closing line EOF"),
        ("/* x", 1, "no end"),
        ("a b = 1", 1, "more than one key"),
        ("a = " + "[" * 200, 1, "too deeply"),
        ("a {" * 200, 1, "too deeply"),
        ("a = 089", 1, "octal"),
    ],
)
def test_a_syntax_problem_names_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse_hcl(text)
    assert caught.value.line == line
    assert words in caught.value.text


def test_random_text_never_raises_anything_but_a_syntax_problem() -> None:
    chance = random.Random(3)
    pieces = [
        "a",
        '"b"',
        "=",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\n",
        " ",
        "1",
        "<<E\n",
        "E\n",
        "${",
        "\\",
        "/*",
        "*/",
        "#",
        "é",
    ]
    for _ in range(4000):
        text = "".join(chance.choice(pieces) for _ in range(chance.randrange(20)))
        try:
            parse_hcl(text)
        except SyntaxProblem:
            pass
