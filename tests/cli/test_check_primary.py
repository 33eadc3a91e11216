"""`lictor check` on what a secondary datacenter has of the primary one."""

import pytest

from lictor.cli.check_primary import primary
from lictor.cli.checks import AgentView, Result

GOOD = {"datacenter": "dc1", "config_entries": "complete", "failure": "", "index": "12", "copied": "3"}


@pytest.mark.parametrize(
    ("stats", "result", "text"),
    [
        (GOOD, Result.SUCCESS, "has the config entries and intentions of datacenter dc1"),
        (
            GOOD | {"failure": "No path to datacenter"},
            Result.WARNING,
            "does not follow the config entries and intentions of datacenter dc1; those that are known hold",
        ),
        (
            GOOD | {"failure": "No path to datacenter", "config_entries": "incomplete"},
            Result.WARNING,
            "does not follow the config entries and intentions of datacenter dc1; none are known for certain",
        ),
        (
            GOOD | {"config_entries": "incomplete"},
            Result.WARNING,
            "has not all config entries and intentions of datacenter dc1 yet",
        ),
    ],
)
def test_what_is_told(stats: dict[str, str], result: Result, text: str) -> None:
    (found,) = primary(stats)
    assert (found.result, found.text) == (result, text)
    assert stats["failure"] in found.remedy


def test_where_there_is_no_other_primary_there_is_nothing_to_tell() -> None:
    assert primary({}) == primary(AgentView({}).primary) == []
