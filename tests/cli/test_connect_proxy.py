"""`lictor connect proxy`: what it refuses, in words and with its exit code, before it serves."""

from __future__ import annotations

import pytest

from tests.cli.command_line import here
from tests.ports import free_port


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "-service or -proxy-id must be specified so that proxy can configure itself."),
        (["extra"], "Should have no non-flag arguments."),
        (["-service=web", "-upstream=db"], 'Upstream value should be name:addr in "db"'),
        (["-service=web", "-upstream=db:x"], 'strconv.ParseInt: parsing "x": invalid syntax'),
        (["-service=web", "-listen=:80"], "-service-addr must be specified with -listen"),
        (["-service=web", "-listen=nothing", "-service-addr=:80"], "has no port"),
        (["-service=web", "-register"], "-register may only be specified with -service and -listen"),
        (["-node", "-service=web"], "-node serves all sidecars"),
        (["-node", "-admin-bind=0.0.0.0:19000"], "is no loopback address"),
        (["-proxy-id=web", "-log-level=loud"], "Invalid log level: loud"),
        (["-proxy-id=web", "-token-file=/nowhere/at/all"], "Error loading token file"),
    ],
)
def test_what_cannot_be_done_is_refused(args: list[str], said: str) -> None:
    result = here("connect", "proxy", *args)
    assert result.code == 1
    assert said in result.err


def test_an_agent_that_is_away_is_told() -> None:
    result = here("connect", "proxy", "-sidecar-for=web", f"-http-addr=127.0.0.1:{free_port()}")
    assert result.code == 1
    assert "Error preparing configuration: Failed looking up sidecar proxy info for web: Get" in result.err
    assert "connection refused" in result.err
