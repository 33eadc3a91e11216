"""`lictor check` on the certificates of an agent's services: good, not renewed at present, ended."""

import pytest

from lictor.cli.check_identities import identities
from lictor.cli.checks import AgentView, Result
from tests.http.conftest import open_agent

GOOD = {"held": "3", "expired": "0", "next_ends": "2027-01-15T08:00:00Z", "trouble": ""}


@pytest.mark.parametrize(
    ("stats", "result", "text"),
    [
        (GOOD, Result.SUCCESS, "holds 3 certificates for services of this node"),
        (GOOD | {"held": "1"}, Result.SUCCESS, "holds 1 certificate for services of this node"),
        (
            GOOD | {"trouble": "No cluster leader"},
            Result.WARNING,
            "is not given certificates at present; the first of 3 that it holds ends at 2027-01-15T08:00:00Z",
        ),
        (
            GOOD | {"expired": "2", "trouble": "No cluster leader"},
            Result.ERROR,
            "has 2 certificates that ended, of 3 in all: nobody believes these services",
        ),
    ],
)
def test_what_is_told(stats: dict[str, str], result: Result, text: str) -> None:
    (found,) = identities(stats)
    assert (found.result, found.text) == (result, text)
    assert not stats["trouble"] or stats["trouble"] in found.remedy


def test_an_agent_without_identities_has_nothing_to_tell() -> None:
    assert identities({}) == identities(AgentView({}).leaves) == []


async def test_an_agent_tells_of_what_it_holds() -> None:
    async with open_agent() as door:
        assert "leaf_certs" not in (await door.json("/v1/agent/self"))["Stats"]
        leaf = await door.json("/v1/agent/connect/ca/leaf/web")
        view = AgentView(await door.json("/v1/agent/self"))
    assert view.leaves == {"held": "1", "expired": "0", "next_ends": leaf["ValidBefore"], "trouble": ""}
    assert identities(view.leaves)[0].result is Result.SUCCESS
