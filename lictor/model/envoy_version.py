"""Which versions of Envoy work with what the agent serves."""

import re

OLDEST = (1, 34)
"""The oldest: one before it does not know all that intentions are made of."""
NEWEST = (1, 40)
"""The newest that was tried."""
TRIED = ("1.40.0",)

_VERSION = re.compile(r"/(\d+)\.(\d+)\.(\d+)(?:-[^/]*)?/")


def read_version(printed: str) -> tuple[int, int, int] | None:
    """The version in what `envoy --version` prints; None where it is not there."""
    found = _VERSION.search(printed)
    return (int(found[1]), int(found[2]), int(found[3])) if found is not None else None


def version_problem(version: tuple[int, int, int]) -> str:
    """Why a version cannot be used; empty where it can."""
    if version[:2] < OLDEST:
        return f"Envoy {_shown(version)} is too old: {_shown(OLDEST)} or newer is needed"
    return ""


def version_warning(version: tuple[int, int, int]) -> str:
    """What to say of a version that can be used; mostly nothing."""
    if version[:2] > NEWEST:
        return f"Envoy {_shown(version)} is newer than any that was tried, the newest of which is {_shown(NEWEST)}"
    return ""


def _shown(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
