"""Where an agent finds others to join: what `retry_join` and `retry_join_wan` may hold.

An address is `host`, `host:port` or `[IPv6 address]:port`. A provider is `provider=NAME` and pairs `key=value`, a value
with blanks in double quotes, as Consul writes it. The one provider here is `exec`: a program that prints addresses.

    retry_join = ["10.0.0.5", "provider=exec args=\\"/usr/local/bin/servers --role consul\\" timeout=10s"]
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence

import msgspec

from lictor.model.duration import parse_duration
from lictor.model.goflags import nearest
from lictor.model.host_port import split_host_port

PROVIDER = "provider="
SECRET_WORDS = ("key", "secret", "token", "password")
EXEC_KEYS = ("provider", "args", "timeout")
LONGEST_TEXT = 4096

_PAIR = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)=(?:"((?:[^"\\]|\\.)*)"(?!\S)|([^\s"]*)(?!\S))')


class JoinAddress(msgspec.Struct, frozen=True):
    """A host, a name or an IP address, and its port; 0 where none was given and the usual one is meant."""

    host: str
    port: int = 0


class JoinProgram(msgspec.Struct, frozen=True):
    """A program and its arguments, run without a shell, that prints addresses separated by blanks; it has `timeout`
    seconds.
    """

    args: tuple[str, ...]
    timeout: float = 30.0


JoinSource = JoinAddress | JoinProgram


class UnknownProvider(ValueError):
    """A provider that Consul may know."""


def is_provider(text: str) -> bool:
    """Whether an element names a provider rather than an address."""
    return PROVIDER in text


def parse_join(text: str) -> JoinSource:
    """One element of `retry_join`. Raises `ValueError`, `UnknownProvider` for a provider that is not `exec`."""
    if not is_provider(text):
        return JoinAddress(*split_host_port(text, 0))
    pairs = _pairs(text)
    provider = pairs.get("provider", "")
    if provider != "exec":
        raise UnknownProvider(f'there is no provider "{provider}"')
    for key in pairs:
        if key not in EXEC_KEYS:
            near = nearest(key, EXEC_KEYS)
            raise ValueError(f'provider=exec has no key "{key}"' + (f' (did you mean "{near}"?)' if near else ""))
    try:
        args = tuple(shlex.split(pairs.get("args", "")))
    except ValueError as error:
        raise ValueError(f"the args of provider=exec cannot be read: {error}") from None
    if not args:
        raise ValueError('provider=exec needs args: the program and its arguments, as args="/path/program --flag"')
    if "timeout" not in pairs:
        return JoinProgram(args)
    try:
        timeout = parse_duration(pairs["timeout"])
    except ValueError as error:
        raise ValueError(f"the timeout of provider=exec: {error}") from None
    if timeout <= 0:
        raise ValueError("the timeout of provider=exec must be more than zero")
    return JoinProgram(args, timeout)


def without_secrets(text: str) -> str:
    """An element as it may be shown: the credentials that a provider is given are hidden, as Consul hides them."""
    if not is_provider(text):
        return text
    words = []
    for word in text.split():
        name, equals, _ = word.partition("=")
        secret = equals and any(part in word.lower() for part in SECRET_WORDS)
        words.append(f"{name}=hidden" if secret else word)
    return " ".join(words)


def read_sources(
    key: str, texts: Sequence[str], report: Callable[[tuple[str, ...], str], None], warnings: list[str]
) -> tuple[JoinSource, ...]:
    """The sources that a key holds; what is wrong is reported, what is left out is warned of."""
    found: list[JoinSource] = []
    for text in texts:
        try:
            found.append(parse_join(text))
        except UnknownProvider as unknown:
            warnings.append(
                f'{key}: "{without_secrets(text)}" is left out: {unknown}. Give addresses, or have a program print '
                'them: provider=exec args="/path/program"'
            )
        except ValueError as error:
            report((key,), f"{key}: {error}")
    return tuple(dict.fromkeys(found))


def _pairs(text: str) -> dict[str, str]:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{text[:40]!r}... is longer than {LONGEST_TEXT} characters")
    pairs: dict[str, str] = {}
    position = 0
    body = text.rstrip()
    while position < len(body):
        match = _PAIR.match(body, position)
        if match is None:
            raise ValueError(f"{body[position:].strip()[:40]!r} is no key=value; a value with blanks stands in quotes")
        position = match.end()
        key, quoted, bare = match.groups()
        if key in pairs:
            raise ValueError(f'"{key}" is given twice in {text[:40]!r}')
        pairs[key] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return pairs
