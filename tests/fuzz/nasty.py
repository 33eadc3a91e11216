"""Values and texts that break programs, and ways to spoil good ones. All randomness is the caller's."""

import copy
import json
from random import Random
from typing import Any

TEXTS = (
    "",
    " ",
    "a" * 300,
    "x" * 70_000,
    "\x00",
    "a\r\nX-Evil: yes\r\n\r\n",
    "../../../etc/passwd",
    "..",
    "/",
    "//evil.example/",
    "%2e%2e%2f",
    "\u00e4\u6f22\U0001f600",
    "\ufeff\u202e",
    "${match(1)}",
    "${",
    "((((((((((a*)*)*)*)*)*)*)*)*)*$",
    "a{1000}{1000}",
    "[[:alpha:",
    "-1",
    "1e309",
    "9" * 400,
    "NaN",
    "true",
    "0s",
    "-5s",
    "1ns",
    "9999999h",
    "300000h",
    "10s",
    "127.0.0.1:1",
    "[::1]:1",
    "::",
    "0.0.0.0",
    "http://127.0.0.1:1/",
    "http://[::1/",
    "unix:///nowhere",
    "11111111-1111-1111-1111-111111111111",
    "1" * 36,
    "_agent",
    "consul",
    "n1",
    "*",
    "release",
    "passing",
    "connect-proxy",
    "<hidden>",
)
NUMBERS = (0, 1, -1, 3, 65535, 65536, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1)
ODD_NUMBERS = (10**30, -(10**400), 0.5, -0.0, 1e308, 1e-308, 5e-324)
CONTAINERS: tuple[Any, ...] = (
    [],
    {},
    [None],
    [[]],
    {"": None},
    {"a": {"b": {"c": []}}},
    [{}, 1, "x", None],
    ["a"] * 300,
)
# JSON that no encoder writes.
RAW = (
    b"1e999",
    b"-1e999",
    b"NaN",
    b"Infinity",
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\xff\xfe"',
    b'"\xed\xa0\x80"',
    b'"\\u0000"',
    b"[" * 2_000 + b"]" * 2_000,
    b'{"a":' * 900 + b"1" + b"}" * 900,
    b"[" * 20_000,
    b'{"Name":"a","Name":"b","name":"c","NAME":null}',
    b"9" * 5_000,
    b"\x00",
    b"",
    b"\xef\xbb\xbf{}",
    b"{} {}",
    b"[1,]",
)
MARK = "@@raw@@"


def value(rng: Random) -> Any:
    """Something that does not belong where it is put."""
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(TEXTS)
    if kind < 5:
        return rng.choice(NUMBERS)
    if kind == 5:
        return rng.choice(ODD_NUMBERS)
    if kind == 6:
        return copy.deepcopy(rng.choice(CONTAINERS))
    return rng.choice((None, True, False))


def spoil(good: Any, rng: Random) -> Any:
    """A copy with one to three of its places spoiled."""
    spoiled = copy.deepcopy(good)
    for _ in range(rng.randrange(1, 4)):
        spoiled = _spoil_once(spoiled, rng)
    return spoiled


def _spoil_once(found: Any, rng: Random) -> Any:
    if isinstance(found, dict) and found and rng.random() < 0.9:
        name = rng.choice(list(found))
        how = rng.randrange(8)
        if how == 0:
            del found[name]
        elif how == 1:
            found[rng.choice(TEXTS)] = value(rng)
        elif how == 2:
            found[name.swapcase()] = value(rng)
        else:
            found[name] = _spoil_once(found[name], rng)
        return found
    if isinstance(found, list) and found and rng.random() < 0.9:
        at = rng.randrange(len(found))
        if rng.random() < 0.15:
            return found * rng.randrange(2, 40)
        found[at] = _spoil_once(found[at], rng)
        return found
    return MARK if rng.random() < 0.12 else value(rng)


def body(good: Any, rng: Random) -> bytes:
    """A request's body, near to a good one: most can be read as JSON, some cannot."""
    kind = rng.randrange(20)
    if kind == 0:
        return rng.choice(RAW)
    if kind == 1:
        return json.dumps(good).encode()
    encoded = json.dumps(spoil(good, rng)).encode()
    while f'"{MARK}"'.encode() in encoded:
        encoded = encoded.replace(f'"{MARK}"'.encode(), rng.choice(RAW), 1)
    if kind == 2:
        encoded = encoded[: rng.randrange(len(encoded) + 1)]
    elif kind == 3:
        data = bytearray(encoded)
        for _ in range(rng.randrange(1, 5)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        encoded = bytes(data)
    return encoded
