"""JSON bodies, and what is wrong with them in Go's words; the texts are those that Consul 1.8.7 answers with."""

import pytest

from lictor.model.json_text import JsonError, decode_json


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "EOF"),
        (b" \n", "EOF"),
        (b'{"Name":"s1","Port":3', "unexpected EOF"),
        (b'{"Name":"s1",}', "invalid character '}' looking for beginning of object key string"),
        (b"{bad", "invalid character 'b' looking for beginning of object key string"),
        (b'"x', "unexpected EOF"),
        (b"nul", "unexpected EOF"),
        (b'{"Name":s}', "invalid character 's' looking for beginning of value"),
        (b'{"Name" 1}', "invalid character '1' after object key"),
        (b'{"Name":1 1}', "invalid character '1' after object key:value pair"),
        (b'{"Name":01}', "invalid character '1' after object key:value pair"),
        (b'{"Name":"\\q"}', "invalid character 'q' in string escape code"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"}", "invalid character '}' looking for beginning of value"),
        (b"-x", "invalid character 'x' in numeric literal"),
        (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
        (b"1ex", "invalid character 'x' in exponent of numeric literal"),
        (b'"\\u12x"', "invalid character 'x' in \\u hexadecimal character escape"),
        (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
        (b'"a\nb"', "invalid character '\\n' in string literal"),
    ],
)
def test_a_mistake_is_told_in_gos_words(text: bytes, problem: str) -> None:
    with pytest.raises(JsonError) as caught:
        decode_json(text)
    assert str(caught.value) == problem


@pytest.mark.parametrize("text", [b'{"Name":"s1"} x', b'{"Name":"s1"}{"Name":"s2"}', b' {"Name" : "s1" } ]'])
def test_what_follows_a_value_is_passed_over(text: bytes) -> None:
    assert decode_json(text) == {"Name": "s1"}


def test_deep_nesting_is_a_mistake_not_a_crash() -> None:
    for text in (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000):
        with pytest.raises(JsonError):
            decode_json(text)
