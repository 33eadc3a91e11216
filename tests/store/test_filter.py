"""Filter expressions: the language, its errors, and agreement with a naive evaluator."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor.model.filter_syntax import MAX_DEPTH, MAX_LENGTH
from lictor.store.filter import FilterError, parse

START = "Failed to create boolean expression evaluator: "


class Proxy(msgspec.Struct, frozen=True, rename="pascal"):
    mode: str = ""
    upstreams: tuple[str, ...] = ()
    config: dict[str, Any] | None = None


class Check(msgspec.Struct, frozen=True, rename="pascal"):
    status: str = ""
    service_tags: tuple[str, ...] = ()


class Service(msgspec.Struct, frozen=True, rename="pascal"):
    id: str = msgspec.field(default="", name="ID")
    port: int = 0
    load: float = 0.0
    enabled: bool = False
    tags: tuple[str, ...] = ()
    numbers: list[int] = []
    meta: dict[str, str] | None = None
    proxy: Proxy | None = None
    note: str | msgspec.UnsetType = msgspec.UNSET
    modify_index: int = 0


class Entry(msgspec.Struct, frozen=True, rename="pascal"):
    service: Service
    checks: tuple[Check, ...] = ()
    addresses: dict[str, Check] = {}


WEB = Entry(
    Service(
        id="web-1",
        port=80,
        load=1.5,
        enabled=True,
        tags=("a", "b c"),
        numbers=[1, 2],
        meta={"env": "prod", "a b": "x", "v": "2.1", "a:b": "colon", "path": "/api"},
        proxy=Proxy("direct", ("db", "cache"), {"x": 1}),
    ),
    (Check("passing", ("t",)), Check("warning")),
    {"lan": Check("passing")},
)
BARE = Entry(Service())


@pytest.mark.parametrize(
    ("expression", "web", "bare"),
    [
        ("", True, True),
        ("Service.Port == 80", True, False),
        ('Service.Port == "0x50"', True, False),
        ("Service.Port == `+80`", True, False),
        ("Service.Port != 80", False, True),
        ("Service.Load == 1.5", True, False),
        ('Service.Load == "15e-1"', True, False),
        ("Service.Enabled == T", True, False),
        ("Service.Enabled == 0", False, True),
        ("Service.ID == `web-1`", True, False),
        ('Service.ID == "web-1" and Service.Port == 80', True, False),
        ('Service.ID == "we\\x62\\u002d1"', True, False),
        ("Service.ID==web or Service.Port==0", False, True),
        ("Service.ID == a or Service.ID == b or Service.Port == 80", True, False),
        ("web in Service.ID", True, False),
        ("Service.ID contains web", True, False),
        ("Service.ID not contains web", False, True),
        ('Service.ID matches "^web-[0-9]$"', True, False),
        ("Service.ID not matches `^web`", False, True),
        ("a in Service.Tags", True, False),
        ('Service.Tags contains "b c"', True, False),
        ("z not in Service.Tags", True, True),
        ("Service.Tags is empty", False, True),
        ("Service.Tags is not empty", True, False),
        ("Service.Tags.0 == a", True, False),
        ("Service.Tags.7 != a", True, True),
        ("2 in Service.Numbers", True, False),
        ("env in Service.Meta", True, False),
        ("Service.Meta contains env", True, False),
        ("Service.Meta.env == prod", True, False),
        ('Service.Meta["a b"] == x', True, False),
        ('Service.Meta[ "a b" ] == x', True, False),
        ('"/Service/Meta/a:b" == colon', True, False),
        ("Service.Meta.v == 2.1", True, False),
        ('Service.Meta.path == "/api"', True, False),
        ('"/api" in Service.Meta.path', True, False),
        ("Service.Meta is empty", False, True),
        ("Service.Meta is nil", False, True),
        ("Service.Meta is not nil", True, False),
        ("Service.Note == ``", True, True),
        # What a map does not have is unequal to everything. That it "matches" is Consul's behaviour.
        ("Service.Meta.none == x", False, False),
        ("Service.Meta.none != x", True, True),
        ("x in Service.Meta.none", False, False),
        ("x not in Service.Meta.none", True, True),
        ("Service.Meta.none matches x", True, True),
        ("Service.Meta.none not matches x", True, True),
        # A record that is not there counts as an empty one.
        ("Service.Proxy.Mode == direct", True, False),
        ('Service.Proxy.Mode == ""', False, True),
        ("Service.Proxy.Upstreams is empty", False, True),
        ("Service.Proxy is nil", False, True),
        # Through a list of records: any of them.
        ("Checks.Status == warning", True, False),
        ("Checks.Status != passing", True, False),
        ("not Checks.Status == warning", False, True),
        ("Checks.ServiceTags contains t", True, False),
        ("Checks.1.Status == warning", True, False),
        ("Checks is empty", False, True),
        ("Addresses.lan.Status == passing", True, False),
        ("not not Service.Port == 80", True, False),
        ("not (Service.Port == 80 or Service.Port == 81)", False, True),
        ("(Service.Port == 80) and (Service.Enabled == true)", True, False),
        ("( ( Service.Port == 80 ) )", True, False),
        ("\n Service.Port\t==\r\n80 ", True, False),
        ("Service.Port == 1 and Service.Port == 80 or Service.Enabled == true", True, False),
        ("any Service.Tags as tag { tag == a }", True, False),
        ("all Service.Tags as tag { tag != z }", True, True),
        ("all Service.Tags as tag { tag == a }", False, True),
        ("any Service.Tags as at, _ { at == 1 }", True, False),
        ('any Service.Meta as key { key == "a b" }', True, False),
        ("any Service.Meta as key, value { key == env and value == prod }", True, False),
        ("any Service.Meta as _, value {value == prod}", True, False),
        ("any Checks as check { check.Status == passing and check.ServiceTags is not empty }", True, False),
        ('any Checks as check { "/check/Status" == passing }', True, False),
        ("any Checks as check { any check.ServiceTags as tag { tag == t and Service.Port == 80 } }", True, False),
        ("Service.Port == 80 and not any Service.Tags as tag { tag == z }", True, False),
    ],
)
def test_an_expression_keeps_the_records_it_describes(expression: str, web: bool, bare: bool) -> None:
    keep = parse(expression).bind(Entry)
    assert keep(WEB) is web
    assert keep(BARE) is bare


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        (
            "Service.Port < 5",
            r'1:14 (13): no match found, expected: "!=", "==", "contains", "in", "is", "matches", "not" or '
            r"[ \t\r\n]",
        ),
        ("Service.ID == web-1", r'1:18 (17): no match found, expected: ".", "[", [ \t\r\n], [a-zA-Z0-9_] or EOF'),
        ("Service.ID == a or", r"1:19 (18): no match found, expected: [ \t\r\n]"),
        ("(Service.ID==a)and(Service.ID==b)", r"1:16 (15): no match found, expected: [ \t\r\n] or EOF"),
        ("Service.ID ==\n ü", r'2:2 (15): no match found, expected: "-", "0", "\"", "`", [ \t\r\n], [1-9] or [a-zA-Z]'),
        ("Service.ID == 1.2.3", '1:18 (17): rule "number": Invalid number literal'),
        ('Service.ID == "web', '1:19 (18): rule "string": Unterminated string literal'),
        (r'Service.ID == "w\eb"', '1:15 (14): rule "string": invalid syntax'),
        ("( Service.ID == a", '1:18 (17): rule "grouping": Unmatched parentheses'),
        ("Service.Meta[env] == 1", '1:14 (13): rule "index": Invalid index'),
        ('Service.Meta["env" == 1', '1:20 (19): rule "index": Unclosed index expression'),
        ('Service.ID in "x"', '1:15 (14): rule "match": Invalid selector'),
        ("any Service.Tags as a, a { a == 1 }", '1:21 (20): rule "collection-identifiers": "a" cannot be used'),
        ("any Service.Tags as a { a == 1", '1:31 (30): rule "collection": Unmatched braces'),
        ("any Service.Port as a { a == 1 }", "Service.Port is not a list or a map (column 5)"),
        ("Service.Prot == 80", 'Selector "Service.Prot" is not valid (column 1), did you mean "Port"?'),
        ("Service.port == 80", 'Selector "Service.port" is not valid (column 1), did you mean "Port"?'),
        ("Service.ModifyIndex == 80", 'Selector "Service.ModifyIndex" is not valid'),
        ("Service.Proxy.Config.x == 1", 'Selector "Service.Proxy.Config" is not valid'),
        ("Service.ID.x == 1", 'Selector "Service.ID.x" is not valid'),
        ("Service == 1", 'Invalid match operator "Equal" for selector "Service"'),
        ("Service.Port matches 8", 'Invalid match operator "Matches" for selector "Service.Port"'),
        ("8 in Service.Port", 'Invalid match operator "In" for selector "Service.Port"'),
        ("Service.Tags == a", 'Invalid match operator "Equal" for selector "Service.Tags"'),
        ("Service.ID is empty", 'Invalid match operator "Is Empty" for selector "Service.ID"'),
        (
            "Service.Port == 1.5",
            'Failed to coerce value "1.5" for selector "Service.Port": strconv.ParseInt: parsing "1.5": invalid syntax',
        ),
        (
            "Service.Port == 9223372036854775808",
            'Failed to coerce value "9223372036854775808" for selector "Service.Port": '
            'strconv.ParseInt: parsing "9223372036854775808": value out of range',
        ),
        (
            "Service.Enabled == yes",
            'Failed to coerce value "yes" for selector "Service.Enabled": '
            'strconv.ParseBool: parsing "yes": invalid syntax',
        ),
        (
            'Service.ID matches "("',
            'Failed to compile regular expression "(": error parsing regexp: missing closing ): ',
        ),
    ],
)
def test_an_error_says_where_and_what_in_consuls_words(expression: str, error: str) -> None:
    with pytest.raises(FilterError) as raised:
        parse(expression).bind(Entry)
    assert str(raised.value).startswith(START + error)
    assert raised.value.status == 400


def test_size_and_depth_are_bounded() -> None:
    for text in (
        "Service.ID == " + "a" * MAX_LENGTH,
        "(" * (MAX_DEPTH + 1) + "Service.ID == a" + ")" * (MAX_DEPTH + 1),
        "any Checks as a { any Checks as b { any Checks as c { Service.ID == a } } }",
    ):
        with pytest.raises(FilterError, match="at most|more than"):
            parse(text)


@pytest.mark.parametrize(
    "text",
    ["not " * 4000, "(" * 60 + "not " * 3000, "a == 1 or " * 1500, "(a == 1 and " * 60, "any " * 4000, "a." * 8000],
)
def test_hostile_texts_are_refused_quickly(text: str) -> None:
    started = time.process_time()
    with pytest.raises(FilterError):
        parse(text)
    assert time.process_time() - started < 2


def test_long_chains_evaluate() -> None:
    keep = parse(" or ".join(["Service.Port == 1"] * 700 + ["Service.Port == 80"])).bind(Entry)
    assert keep(WEB)
    assert not keep(BARE)


def test_a_map_may_be_the_record() -> None:
    assert parse("lan.Status == passing").bind(dict[str, Check])({"lan": Check("passing")})


def test_a_simple_row_takes_about_a_microsecond() -> None:
    keep = parse("Service.Meta.env == prod and Service.Tags contains a").bind(Entry)
    best = min(_seconds_of(lambda: [keep(WEB) for _ in range(1000)]) for _ in range(20))
    assert best / 1000 < 10e-6, f"{best * 1e3:.2f} us a row"


def _seconds_of(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


# -- a naive evaluator, built beside the text it evaluates -------------------------------------------------------------

Naive = tuple[str, Callable[[Entry], bool]]


def _case(text: str, test: Callable[[Entry], bool]) -> Naive:
    return text, test


def _negated(case: Naive) -> Naive:
    return _case(f"not ({case[0]})", lambda entry: not case[1](entry))


def _joined(cases: list[Naive], word: str) -> Naive:
    combine = all if word == "and" else any
    return _case(
        f" {word} ".join(f"({text})" for text, _ in cases), lambda entry: combine(test(entry) for _, test in cases)
    )


_WORDS = st.sampled_from(["a", "b c", "prod", "web-1", "", "passing", "x", "/api", "é\n"])
_KEYS = st.sampled_from(["env", "a b", "none"])


Leaf = tuple[str, str, bool, Callable[[Entry], bool | None]]
"""The positive and negative text, whether both hold for a key that is not there, and the test (None: no such key)."""


def _leaf(positive: str, negative: str, test: Callable[[Entry], bool | None], both_if_missing: bool = False) -> Leaf:
    return positive, negative, both_if_missing, test


def _match(leaf: Leaf, negative: bool) -> Naive:
    positive_text, negative_text, both_if_missing, test = leaf

    def run(entry: Entry) -> bool:
        found = test(entry)
        return (negative or both_if_missing) if found is None else found != negative

    return negative_text if negative else positive_text, run


def _id_is(word: str) -> Leaf:
    return _leaf(f"Service.ID == `{word}`", f"Service.ID != `{word}`", lambda entry: entry.service.id == word)


def _in_id(word: str) -> Leaf:
    return _leaf(f"`{word}` in Service.ID", f"`{word}` not in Service.ID", lambda entry: word in entry.service.id)


def _tagged(word: str) -> Leaf:
    texts = f"Service.Tags contains `{word}`", f"Service.Tags not contains `{word}`"
    return _leaf(*texts, lambda entry: word in entry.service.tags)


def _port_is(number: int) -> Leaf:
    return _leaf(f"Service.Port == {number}", f"Service.Port != {number}", lambda entry: entry.service.port == number)


def _numbered(number: int) -> Leaf:
    texts = f"{number} in Service.Numbers", f"{number} not in Service.Numbers"
    return _leaf(*texts, lambda entry: number in entry.service.numbers)


def _meta(entry: Entry, key: str) -> str | None:
    return (entry.service.meta or {}).get(key)


def _has_key(key: str) -> Leaf:
    texts = f"`{key}` in Service.Meta", f"`{key}` not in Service.Meta"
    return _leaf(*texts, lambda entry: _meta(entry, key) is not None)


def _key_is(key: str, word: str) -> Leaf:
    texts = f"Service.Meta[`{key}`] == `{word}`", f"Service.Meta[`{key}`] != `{word}`"
    return _leaf(*texts, lambda entry: None if _meta(entry, key) is None else _meta(entry, key) == word)


def _key_matches(key: str) -> Leaf:
    def test(entry: Entry) -> bool | None:
        value = _meta(entry, key)
        return None if value is None else re.search("^p", value) is not None

    return _leaf(f"Service.Meta[`{key}`] matches `^p`", f"Service.Meta[`{key}`] not matches `^p`", test, True)


_LEAVES: st.SearchStrategy[Leaf] = st.one_of(
    st.builds(_id_is, _WORDS),
    st.builds(_in_id, _WORDS),
    st.builds(_tagged, _WORDS),
    st.builds(_port_is, st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 80])),
    st.builds(_numbered, st.integers(-1, 3)),
    st.builds(_has_key, _KEYS),
    st.builds(_key_is, _KEYS, _WORDS),
    st.builds(_key_matches, _KEYS),
    st.just(_leaf("Service.Meta is empty", "Service.Meta is not empty", lambda entry: not entry.service.meta)),
    st.just(_leaf("Checks is empty", "Checks is not empty", lambda entry: not entry.checks)),
)

_EXPRESSIONS: st.SearchStrategy[Naive] = st.recursive(
    st.builds(_match, _LEAVES, st.booleans()),
    lambda inner: st.one_of(
        inner.map(_negated),
        st.builds(_joined, st.lists(inner, min_size=2, max_size=4), st.sampled_from(["and", "or"])),
        inner.map(lambda case: _case(f"any Checks as c {{ {case[0]} }}", lambda e: bool(e.checks) and case[1](e))),
    ),
    max_leaves=8,
)

_ENTRIES = st.builds(
    Entry,
    st.builds(
        Service,
        id=_WORDS,
        port=st.sampled_from([0, 80]),
        tags=st.lists(_WORDS, max_size=2).map(tuple),
        numbers=st.lists(st.integers(0, 3), max_size=2),
        meta=st.none() | st.dictionaries(st.sampled_from(["env", "a b"]), _WORDS),
    ),
    st.lists(st.builds(Check, status=_WORDS), max_size=2).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(case=_EXPRESSIONS, entry=_ENTRIES)
def test_generated_expressions_evaluate_as_a_naive_evaluator_does(case: Naive, entry: Entry) -> None:
    text, expected = case
    if text.count("any Checks") > 2:
        return
    assert parse(text).bind(Entry)(entry) is expected(entry)


_SYMBOLS = '. [ ] { } ( ) " ` == != 5 - 0x 1.5 \\ é / _ , ~1 *'
_NAMES = "Service Port Tags Meta Checks in not contains is empty nil matches and or any all as"
_FRAGMENTS = st.sampled_from((*_SYMBOLS.split(" "), *_NAMES.split(" "), " ", "\n", "\ud800"))


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.lists(_FRAGMENTS, max_size=25).map("".join),
        st.lists(_FRAGMENTS, max_size=25).map(" ".join),
        st.text(max_size=40),
    )
)
def test_any_text_gives_a_filter_or_an_error(text: str) -> None:
    try:
        keep = parse(text).bind(Entry)
    except FilterError as error:
        assert str(error).startswith(START)
        return
    assert keep(WEB) in (True, False)
    assert keep(BARE) in (True, False)
