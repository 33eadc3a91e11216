"""The linear-time regular expressions: RE2's language, its errors, and no pattern that takes long."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.model.regex import MAX_PATTERN, Regex, RegexError


@pytest.mark.parametrize(
    ("pattern", "text", "occurs"),
    [
        ("", "", True),
        ("b", "abc", True),
        ("^b", "abc", False),
        ("^web[12]$", "web2", True),
        ("^web[12]$", "web2\n", False),
        ("(?m)^b$", "a\nb\nc", True),
        ("a.c", "a\nc", False),
        ("(?s)a.c", "a\nc", True),
        ("(?i)HeLLo", "say hello", True),
        ("(?i:a)b", "Ab", True),
        ("(?i:a)b", "AB", False),
        ("(?i)[a-c]x", "BX", True),
        ("(?i)[^a]", "A", False),
        ("a(?i)b|c", "C", True),
        (r"\d{3}-\d{2,}", "tel 555-12", True),
        (r"^\d{3}$", "1234", False),
        (r"^a{2,3}$", "aaaa", False),
        (r"^a{0,2}b$", "aab", True),
        ("a{,2}", "a{,2}", True),
        (r"\bweb\b", "my web app", True),
        (r"\bweb\b", "webs", False),
        (r"\Bs", "webs", True),
        (r"\Aweb\z", "web", True),
        (r"\Qa.b\E+", "xa.bbb", True),
        (r"\Qa.b\E", "axb", False),
        (r"[[:alpha:]]+[[:^digit:]]", "ab", True),
        (r"^[\w.-]+$", "a-b.c", True),
        (r"^\pL+$", "größe", True),
        (r"^\p{Lu}\P{Lu}$", "Äb", True),
        (r"\x41\x{42}\103", "ABC", True),
        ("[]a]", "]", True),
        ("[^]a]", "]", False),
        ("[a-]", "-", True),
        ("(?P<v>v2|v3)", "v3", True),
        ("(|a)+b", "aab", True),
        ("(a*)*b", "aaab", True),
        ("x*?y", "xxy", True),
        ("(foz|foo)@example.com", "foo@example.com", True),
    ],
)
def test_a_pattern_is_found_where_re2_finds_it(pattern: str, text: str, occurs: bool) -> None:
    assert Regex(pattern).search(text) is occurs


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        ("(", "missing closing ): `(`"),
        (")", "unexpected ): `)`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("[a", "missing closing ]: `[a`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        (r"\pX", r"invalid character class range: `\pX`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        (r"\y", r"invalid escape sequence: `\y`"),
        ("\\", "trailing backslash at end of expression: ``"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?<!a)", "invalid named capture: `(?<!a)`"),
        ("((a{999}){999}){999}", "expression is too large: `((a{999}){999}){999}`"),
        ("(" * 200, f"expression nests too deeply: `{'(' * 200}`"),
    ],
)
def test_a_pattern_outside_the_language_is_refused_with_re2s_words(pattern: str, error: str) -> None:
    with pytest.raises(RegexError) as raised:
        Regex(pattern)
    assert str(raised.value) == error


def test_an_overlong_pattern_is_refused() -> None:
    with pytest.raises(RegexError, match="at most 2048"):
        Regex("a" * (MAX_PATTERN + 1))


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*=", "(a|aa)+$", "(.*a){20}$", ".*.*.*.*.*=$"])
def test_patterns_that_stall_backtracking_engines_take_no_time(pattern: str) -> None:
    started = time.process_time()
    assert Regex(pattern).search("a" * 3000 + "!") is False
    assert time.process_time() - started < 5


def test_remembered_states_stay_within_bounds_and_answers_stay_right() -> None:
    regex = Regex("(x|y)(a|b|c|d){300}z")
    text = "".join("xyabcd"[(number * number + number // 7) % 6] for number in range(3000))
    assert regex.search(text) is False
    assert regex.search("x" + "abcd" * 75 + "z") is True


_PIECES = st.sampled_from(["a", "b", "c", ".", "[ab]", "[^a]", "^", "$", r"\b", "\\w", "\n", "-"])
_PATTERNS = st.recursive(
    _PIECES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(pattern=_PATTERNS, text=st.text("abc-\n", max_size=8))
def test_generated_patterns_agree_with_the_standard_library(pattern: str, text: str) -> None:
    # `$` of the standard library also matches before a last newline; \Z there is \z here.
    assert Regex(pattern).search(text) is bool(re.search(pattern.replace("$", r"\Z"), text, re.ASCII))


@settings(max_examples=300, deadline=None)
@given(
    pattern=st.text(st.sampled_from(list("ab()[]{}|*+?^$\\.-,:PQEpdwxzi123<>_ é")), max_size=14),
    text=st.text(max_size=6),
)
def test_any_text_compiles_or_is_refused(pattern: str, text: str) -> None:
    try:
        regex = Regex(pattern)
    except RegexError:
        return
    assert regex.search(text) in (True, False)
