"""Servers for the contract's cases: one of each kind and profile in a test session, started when first asked for.

Where the reference is absent its cases are skipped with the reason. Lictor's cases always run.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract import player, servers
from tests.contract.client import Api
from tests.contract.servers import Server

KINDS = ("reference", "lictor")


def pytest_configure(config: pytest.Config) -> None:
    """The marks of this folder."""
    config.addinivalue_line("markers", "newer(what): about a feature that the reference has not; runs on Lictor only")


class Servers:
    """Running servers by kind and profile."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], Server] = {}

    def get(self, kind: str, profile: str) -> Server:
        """The session's server; skips the test where the reference is absent."""
        key = (kind, profile)
        server = self._running.get(key)
        if server is not None and server.process.poll() is not None:
            # One case that ends the agent must not fail all that follow.
            del self._running[key]
            server.stop()
            server = None
        if server is None:
            server = self._running[key] = self.start(kind, profile)
        return server

    def start(self, kind: str, profile: str) -> Server:
        """A server of the caller's own, which the caller stops."""
        try:
            return servers.start(kind, profile)
        except servers.NotAvailable as error:
            pytest.skip(str(error))

    def stop(self) -> None:
        """Ends all of them."""
        for server in self._running.values():
            server.stop()


@pytest.fixture(scope="session")
def pool() -> Iterator[Servers]:
    """The session's servers."""
    running = Servers()
    yield running
    running.stop()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which server a case runs against: both, one after the other; `newer` cases only against Lictor."""
    chosen: str = request.param
    newer = request.node.get_closest_marker("newer")
    if chosen == "reference" and newer is not None:
        pytest.skip(f"newer than the reference: {newer.args[0]}")
    return chosen


@pytest.fixture
def server(kind: str, pool: Servers) -> Iterator[Server]:
    """The shared server with the plain configuration; what a case left behind is removed."""
    chosen = pool.get(kind, "plain")
    yield chosen
    if chosen.process.poll() is None:
        player.sweep(chosen)


@pytest.fixture
def tuned(kind: str, pool: Servers) -> Iterator[Server]:
    """The shared server with the tuned configuration."""
    chosen = pool.get(kind, "tuned")
    yield chosen
    if chosen.process.poll() is None:
        player.sweep(chosen)


@pytest.fixture
def own(kind: str, pool: Servers) -> Iterator[Server]:
    """A server for this case alone, for cases that end it or change what the others see."""
    chosen = pool.start(kind, "plain")
    yield chosen
    chosen.stop()


@pytest.fixture
def api(server: Server) -> Api:
    """HTTP to the shared server."""
    return server.api


@pytest.fixture
def name() -> str:
    """A name that no other case uses."""
    return player.unique_name()
