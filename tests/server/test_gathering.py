"""What is proposed together, and when."""

import asyncio

import pytest

from lictor.server import gathering
from lictor.server.gathering import QUIET, TURNS, Gathering
from tests.patience import PATIENCE


class Proposed:
    """What was proposed."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gathering = Gathering[int](self.groups.append)

    async def until(self, count: int) -> None:
        """Return once so many groups were proposed."""
        async with asyncio.timeout(PATIENCE):
            while len(self.groups) < count:
                await asyncio.sleep(0)


@pytest.fixture
async def proposed() -> Proposed:
    return Proposed()


async def turns(count: int) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_comes_in_one_turn_and_the_next_ones_goes_together(proposed: Proposed) -> None:
    for number in range(3):
        proposed.gathering.add(number)
    assert proposed.groups == []
    await turns(1)
    proposed.gathering.add(3)
    await proposed.until(1)
    assert proposed.groups == [[0, 1, 2, 3]]


async def test_one_alone_waits_for_a_few_turns_only(proposed: Proposed) -> None:
    proposed.gathering.add(1)
    await turns(QUIET + 1)
    assert proposed.groups == [[1]]


async def test_what_never_ends_to_come_is_not_gathered_for_ever(proposed: Proposed) -> None:
    for number in range(TURNS + 2):
        proposed.gathering.add(number)
        await turns(1)
    assert len(proposed.groups) == 1


async def test_while_a_proposal_is_under_way_the_next_is_gathered(
    proposed: Proposed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "PATIENCE", 3600.0)
    proposed.gathering.add(1)
    await proposed.until(1)
    proposed.gathering.add(2)
    await turns(TURNS)
    proposed.gathering.add(3)
    await turns(TURNS)
    assert proposed.groups == [[1]]
    proposed.gathering.ended()
    proposed.gathering.add(4)
    await proposed.until(2)
    assert proposed.groups == [[1], [2, 3, 4]]


async def test_one_that_takes_long_is_not_waited_for(proposed: Proposed) -> None:
    proposed.gathering.add(1)
    await proposed.until(1)
    proposed.gathering.add(2)
    await proposed.until(2)
    proposed.gathering.add(3)
    await proposed.until(3)
    assert proposed.groups == [[1], [2], [3]]
    for _ in range(3):
        proposed.gathering.ended()
    proposed.gathering.add(4)
    await turns(QUIET + 1)
    assert proposed.groups[3:] == [[4]]


async def test_what_waits_can_be_proposed_at_once(proposed: Proposed) -> None:
    proposed.gathering.go()
    assert proposed.groups == []
    proposed.gathering.add(1)
    proposed.gathering.go()
    assert proposed.groups == [[1]]
    proposed.gathering.add(2)
    proposed.gathering.go()
    await turns(TURNS)
    assert proposed.groups == [[1], [2]]
