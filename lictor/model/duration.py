"""Durations in Go's notation: what configuration files, query parameters, checks, sessions and flags are written in.

Inside Lictor a duration is a number of seconds; this file is the only place that knows the notation. Its own file
because every floor reads or prints durations.
"""

from __future__ import annotations

import re

NANOSECONDS_PER_UNIT = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, the micro sign
    "μs": 1_000,  # U+03BC, the Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}

MAX_NANOSECONDS = 2**63 - 1
MAX_TEXT = 256
"""Characters of a duration beyond which it is refused unread."""

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

_TERM = re.compile(r"([0-9]*)(\.([0-9]*))?([^0-9.]*)")


def parse_nanoseconds(text: str) -> int:
    """`text` ("300ms", "-1.5h", "2h45m") as integer nanoseconds, by the grammar of Go's time.ParseDuration.

    Raises ValueError with Go's text: `time: invalid duration "x"`, `time: missing unit in duration "10"`,
    `time: unknown unit "d" in duration "1d"`.
    """
    shown = _quote(text)
    invalid = f"time: invalid duration {shown}"
    if len(text) > MAX_TEXT:
        raise ValueError(f"time: invalid duration of {len(text)} characters")
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    if not body:
        raise ValueError(invalid)
    total = 0
    position = 0
    while position < len(body):
        match = _TERM.match(body, position)
        if match is None:
            raise ValueError(invalid)
        whole, fraction, unit = match[1], match[3], match[4]
        if not whole and not fraction:
            raise ValueError(invalid)
        if not unit:
            raise ValueError(f"time: missing unit in duration {shown}")
        scale = NANOSECONDS_PER_UNIT.get(unit)
        if scale is None:
            raise ValueError(f"time: unknown unit {_quote(unit)} in duration {shown}")
        total += int(whole or "0") * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
        if total > MAX_NANOSECONDS + (text[0] == "-"):
            raise ValueError(invalid)
        position = match.end()
    return -total if text[0] == "-" else total


def parse_duration(text: str) -> float:
    """`text` ("1h2m3.5s") as seconds. Raises ValueError with Go's text, as `parse_nanoseconds`."""
    return parse_nanoseconds(text) / SECOND


def format_nanoseconds(nanoseconds: int) -> str:
    """Integer nanoseconds as Go prints a duration: "0s", "1.5ms", "1m0s", "-2h0m0.25s"."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    left = abs(nanoseconds)
    if left < SECOND:
        unit, scale = ("ns", 1) if left < 1_000 else ("µs", 1_000) if left < 1_000_000 else ("ms", 1_000_000)
        return f"{sign}{_decimal(left, scale)}{unit}"
    hours, left = divmod(left, HOUR)
    minutes, left = divmod(left, MINUTE)
    seconds = f"{_decimal(left, SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    if minutes:
        return f"{sign}{minutes}m{seconds}"
    return sign + seconds


def format_duration(seconds: float) -> str:
    """Seconds as Go prints a duration: 60 is "1m0s", 0.25 is "250ms", 0 is "0s"."""
    return format_nanoseconds(to_nanoseconds(seconds))


def to_nanoseconds(seconds: float) -> int:
    """Seconds as the integer nanoseconds that Consul's JSON carries for a duration."""
    return round(seconds * SECOND)


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    digits = str(rest).rjust(len(str(scale)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
