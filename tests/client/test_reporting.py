"""When a program tells its agent of those who are connected to it, on virtual time."""

import asyncio
import contextlib
from collections.abc import Callable

from lictor.client.errors import NoAgent
from lictor.client.reporting import EVERY, MOST, PAUSE, Reports
from tests.agent.checks.virtual_time import run_virtually


class Program:
    """One whose connections are what the test says; `told` are the reports, with their times."""

    def __init__(self) -> None:
        self.live: dict[str, int] = {}
        self.told: list[tuple[float, dict[str, int]]] = []
        self.away = False
        self._moved: Callable[[], None] | None = None
        self._begin = asyncio.get_running_loop().time()
        self.reports = Reports(self, self._send)
        self.task = asyncio.get_running_loop().create_task(self.reports.run())

    def inbound(self) -> dict[str, int]:
        return dict(self.live)

    def when_moved(self, moved: Callable[[], None]) -> None:
        self._moved = moved

    def has(self, **live: int) -> None:
        """The connections are others now."""
        self.live = live
        assert self._moved is not None
        self._moved()

    async def _send(self, live: dict[str, int]) -> None:
        if self.away:
            raise NoAgent("away")
        self.told.append((round(asyncio.get_running_loop().time() - self._begin, 2), live))

    async def close(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        await self.reports.close()


def test_changes_are_told_at_once_and_then_once_a_second_and_what_stays_each_half_minute() -> None:
    async def scenario() -> None:
        program = Program()
        await asyncio.sleep(100.0)
        assert program.told == [], "nobody is connected"
        for count in range(1, 6):
            program.has(web=count)
            await asyncio.sleep(0.3)
        assert program.told == [(100.0, {"web": 1}), (101.0, {"web": 4})]
        await asyncio.sleep(PAUSE)
        assert program.told[2:] == [(102.0, {"web": 5})]
        await asyncio.sleep(2 * EVERY)
        assert [live for _, live in program.told[3:]] == [{"web": 5}]
        program.has()
        await asyncio.sleep(PAUSE)
        assert program.told[-1][1] == {}
        count = len(program.told)
        await asyncio.sleep(10 * EVERY)
        assert len(program.told) == count, "there is nothing to say again"
        await program.close()
        assert len(program.told) == count

    run_virtually(scenario())


def test_a_program_that_ends_takes_back_what_it_may_have_told() -> None:
    async def scenario() -> None:
        program = Program()
        program.has(web=1)
        await asyncio.sleep(PAUSE)
        await program.close()
        assert program.told[-1][1] == {}

    run_virtually(scenario())


def test_an_agent_that_is_away_is_told_when_it_is_back() -> None:
    async def scenario() -> None:
        program = Program()
        program.away = True
        program.has(web=1)
        await asyncio.sleep(10 * EVERY)
        assert not program.task.done()
        program.away = False
        await asyncio.sleep(2 * EVERY)
        assert program.told[0][1] == {"web": 1}
        program.away = True
        await program.close()

    run_virtually(scenario())


def test_of_too_many_sources_those_with_most_connections_are_told() -> None:
    async def scenario() -> None:
        program = Program()
        program.has(**{f"s{number}": number + 1 for number in range(MOST + 3)})
        await asyncio.sleep(PAUSE)
        [(_, told)] = program.told
        assert (len(told), min(told.values())) == (MOST, 4)
        await program.close()

    run_virtually(scenario())
