"""Flag values of the form key=value, as -node-meta, -meta and -tagged-address take them."""

from __future__ import annotations

from lictor.model.goflags import FlagError, FlagSet


def key_values(options: FlagSet, name: str) -> dict[str, str]:
    """What was given for a repeatable flag, by key; the last of several values wins.

    Raises FlagError for a value without "=".
    """
    pairs: dict[str, str] = {}
    for text in options[name]:
        key, equals, value = text.partition("=")
        if not equals:
            raise FlagError(f'invalid value "{text}" for flag -{name}: Missing "=" value in argument: {text}')
        pairs[key] = value
    return pairs


def node_meta(options: FlagSet) -> list[str]:
    """-node-meta as the API's parameter of that name wants it: `key:value` texts."""
    return [f"{key}:{value}" for key, value in key_values(options, "node-meta").items()]
