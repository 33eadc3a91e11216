"""The agents that other people's programs are pointed at.

`agent` is Lictor's. `either` is Lictor's and the reference's in turn: where a client's test passes with both, what the
test expects is what the client's authors had in front of them. The reference takes part when LICTOR_REFERENCE_CONSUL
names its binary.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract import servers
from tests.contract.servers import NotAvailable, Server

servers.PROFILES.setdefault(
    "clients",
    {
        "log_level": "info",
        "enable_script_checks": True,
        "disable_remote_exec": False,
        "session_ttl_min": "1s",
        "check_update_interval": "0s",
        "performance": {"raft_multiplier": 1, "leave_drain_time": "100ms"},
        "telemetry": {"prometheus_retention_time": "60s"},
    },
)


def _running(kind: str) -> Iterator[Server]:
    try:
        server = servers.start(kind, "clients")
    except NotAvailable as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def agent() -> Iterator[Server]:
    """A Lictor agent in development mode, one for all tests of a file."""
    yield from _running("lictor")


@pytest.fixture(scope="module", params=["lictor", "consul"])
def either(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A Lictor agent, then a reference agent."""
    yield from _running(request.param)
