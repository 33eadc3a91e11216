"""Shared by the configuration's tests: a machine's addresses, and loading from pieces of text."""

from collections.abc import Callable

import pytest

from lictor.agent.config import ConfigError, InterfaceAddress, RuntimeConfig, SourceFile, load, parse_flags

UP = frozenset({"up", "broadcast", "multicast"})
MACHINE = (
    InterfaceAddress("lo", "127.0.0.1", 8, frozenset({"up", "loopback"})),
    InterfaceAddress("eth0", "10.1.2.3", 24, UP, default=True),
    InterfaceAddress("eth1", "8.8.4.4", 16, UP),
    InterfaceAddress("lo", "::1", 128, frozenset({"up", "loopback"})),
    InterfaceAddress("eth0", "fe80::1", 64, UP, default=True),
)

Load = Callable[..., tuple[RuntimeConfig, list[str]]]
Problems = Callable[..., list[str]]


def load_text(
    *texts: str, argv: tuple[str, ...] = ("-data-dir=/d",), format: str = "hcl"
) -> tuple[RuntimeConfig, list[str]]:
    """Load texts as files c0, c1, ... over `argv`."""
    files = [SourceFile(f"c{position}.{format}", text, format) for position, text in enumerate(texts)]
    return load(parse_flags(argv), files, MACHINE, "host1")


@pytest.fixture
def loaded() -> Load:
    """`load_text`."""
    return load_text


@pytest.fixture
def problems() -> Problems:
    """The problems of texts, as people read them."""

    def find(*texts: str, argv: tuple[str, ...] = ("-data-dir=/d",), format: str = "hcl") -> list[str]:
        try:
            load_text(*texts, argv=argv, format=format)
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    return find
