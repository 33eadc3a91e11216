"""Durations in Go's notation."""

import random

import pytest

from lictor.model.duration import format_duration, format_nanoseconds, parse_duration, parse_nanoseconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h2m3.5s", 3723.5), ("300ms", 0.3), ("-1.5h", -5400.0), ("0", 0.0), (".5s", 0.5), ("1.s", 1.0), ("+5m", 300.0)],
)
def test_a_duration_reads_as_go_reads_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'time: invalid duration ""'),
        ("10", 'time: missing unit in duration "10"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
    ],
)
def test_a_bad_duration_is_refused_with_gos_text(text: str, error: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (60, "1m0s"), (0.25, "250ms"), (315360000, "87600h0m0s"), (-1.5, "-1.5s"), (1.5e-6, "1.5µs")],
)
def test_a_duration_prints_as_go_prints_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_what_is_printed_reads_back() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        nanoseconds = chance.randrange(-(2**62), 2**62) >> chance.randrange(62)
        assert parse_nanoseconds(format_nanoseconds(nanoseconds)) == nanoseconds


def test_random_text_never_raises_anything_but_value_error() -> None:
    chance = random.Random(2)
    for _ in range(3000):
        text = "".join(chance.choice('0123456789.hmsuµn+- x"') for _ in range(chance.randrange(12)))
        try:
            parse_duration(text)
        except ValueError:
            pass
