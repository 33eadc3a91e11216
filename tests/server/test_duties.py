"""The leader's duties: begun behind the leadership, ended with it, each on its own."""

import asyncio
import logging

import pytest

from lictor.model.errors import NotLeader, Refused
from lictor.server.duties import PAUSE, Duties
from tests.agent.checks.virtual_time import run_virtually
from tests.server.group import Group, until


class Noted:
    """Duties that note what happens to them."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def going_on(self) -> None:
        self.events.append("begin")
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append("end")

    async def once(self) -> None:
        self.events.append("once")


def test_duties_run_from_gaining_the_leadership_to_losing_it() -> None:
    async def scenario() -> None:
        group, noted = Group("a", "b"), Noted()
        duties = Duties(group.places["a"].consensus)
        duties.add("going on", noted.going_on)
        duties.add_first("once", noted.once)
        await asyncio.sleep(60)
        assert noted.events == []
        group.lead("id-a")
        await duties.begun()
        assert noted.events == ["once", "begin"]
        group.lead("id-b")
        await asyncio.sleep(1)
        assert noted.events == ["once", "begin", "end"]
        group.lead("id-a")
        await duties.begun()
        await duties.close()
        assert noted.events == ["once", "begin", "end", "once", "begin", "end"]

    run_virtually(scenario())


def test_a_leadership_that_follows_at_once_begins_anew() -> None:
    async def scenario() -> None:
        group, noted = Group("a", "b"), Noted()
        duties = Duties(group.places["a"].consensus)
        duties.add("going on", noted.going_on)
        group.lead("id-a")
        await asyncio.sleep(1)
        group.lead("")
        group.lead("id-a")
        await asyncio.sleep(1)
        assert noted.events.count("begin") - noted.events.count("end") == 1
        await duties.close()
        assert noted.events.count("begin") == noted.events.count("end") == 2

    run_virtually(scenario())


@pytest.mark.parametrize("error", [Refused("no"), ValueError("a mistake"), NotLeader()])
def test_a_duty_that_fails_is_begun_again_and_takes_no_other_with_it(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> list[float]:
        group, noted, loop = Group("a"), Noted(), asyncio.get_running_loop()
        times: list[float] = []

        async def failing() -> None:
            times.append(loop.time())
            raise error

        duties = Duties(group.places["a"].consensus)
        duties.add("failing", failing)
        duties.add("going on", noted.going_on)
        group.lead("id-a")
        await until(lambda: len(times) == 3, "a third attempt")
        assert noted.events == ["begin"]
        group.lead("")
        await asyncio.sleep(60)
        assert len(times) == 3
        await duties.close()
        return times

    with caplog.at_level(logging.WARNING):
        first, second, third = run_virtually(scenario())
    assert (second - first, third - second) == pytest.approx((PAUSE, PAUSE))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (0 if isinstance(error, NotLeader) else 3)
    assert all("duty=failing" in text for text in told)
