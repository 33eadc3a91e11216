"""The loop of the simulation: virtual time, clocks of their own for programs, pauses, sudden deaths."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.simulation.loop import Broken, Clock, Owner, SimLoop, Stuck, run


def new_loop() -> SimLoop:
    return SimLoop()  # type: ignore[abstract]


def program(loop: SimLoop, rate: float = 1.0, origin: float = 500.0) -> Owner:
    return loop.own("program", Clock(lambda: loop.now, rate, origin))


def test_hours_pass_in_a_moment_and_timers_fire_in_order() -> None:
    loop = new_loop()
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, loop.time()))

    async def main() -> None:
        await asyncio.gather(sleeper("late", 7200.0), sleeper("early", 1.0), sleeper("same", 1.0))

    run(loop, main())
    assert seen == [("early", 1.0), ("same", 1.0), ("late", 7200.0)]


def test_waiting_for_nothing_is_told() -> None:
    loop = new_loop()

    async def main() -> None:
        await loop.create_future()

    with pytest.raises(Stuck, match="waits in vain"):
        run(loop, main())


def test_spinning_while_time_stands_still_is_told() -> None:
    loop = new_loop()

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="no end of callbacks"):
        run(loop, main())


def test_an_error_that_nobody_handles_ends_the_run() -> None:
    loop = new_loop()

    def mistake() -> None:
        raise ValueError("a mistake")

    async def main() -> None:
        loop.call_later(1.0, mistake)
        await asyncio.sleep(10.0)

    with pytest.raises(Broken, match="a mistake"):
        run(loop, main())


def test_a_fast_clock_sees_more_seconds_and_its_timers_fire_sooner() -> None:
    loop = new_loop()
    owner = program(loop, rate=1.25, origin=500.0)
    seen: list[tuple[float, float]] = []

    async def work() -> None:
        started = loop.time()
        async with asyncio.timeout(100.0):
            await asyncio.sleep(5.0)
        seen.append((loop.time() - started, loop.now))

    async def main() -> None:
        loop.later(0.0, lambda: asyncio.ensure_future(work()), owner=owner)
        await asyncio.sleep(50.0)

    run(loop, main())
    assert seen[0] == pytest.approx((5.0, 4.0))


def test_a_timer_that_a_clock_overtook_or_fell_behind_goes_by_the_clock() -> None:
    loop = new_loop()
    owner = program(loop)
    fired: list[float] = []

    async def main() -> None:
        loop.later(0.0, lambda: loop.call_later(10.0, lambda: fired.append(loop.now)), owner=owner)
        await asyncio.sleep(5.0)
        owner.clock.turn(0.5)  # five of its seconds are left: ten true ones
        await asyncio.sleep(50.0)

    run(loop, main())
    assert fired == [pytest.approx(15.0)]


def test_a_paused_program_runs_nothing_and_then_everything_late() -> None:
    loop = new_loop()
    owner = program(loop)
    fired: list[tuple[str, float]] = []

    def begin() -> None:
        for seconds in (1.0, 3.0, 2.0):
            loop.call_later(seconds, lambda seconds=seconds: fired.append((f"after {seconds:g}", loop.now)))

    async def main() -> None:
        loop.later(0.0, begin, owner=owner)
        await asyncio.sleep(1.5)
        loop.pause(owner)
        await asyncio.sleep(10.0)
        loop.resume(owner)
        await asyncio.sleep(1.0)

    run(loop, main())
    assert fired == [("after 1", 1.0), ("after 2", 11.5), ("after 3", 11.5)]


def test_a_suspended_machine_has_two_clocks_and_its_timers_go_by_the_one_that_stood_still() -> None:
    loop = new_loop()
    owner = program(loop)
    fired: list[float] = []

    async def main() -> None:
        loop.later(0.0, lambda: loop.call_later(4.0, lambda: fired.append(loop.now)), owner=owner)
        await asyncio.sleep(1.0)
        loop.pause(owner)
        owner.clock.suspend()
        before = owner.clock.time(), owner.clock.steady()
        await asyncio.sleep(60.0)
        assert (owner.clock.time(), owner.clock.steady()) == (before[0], before[1] + 60.0)
        owner.clock.wake()
        loop.resume(owner)
        await asyncio.sleep(10.0)

    run(loop, main())
    assert fired == [pytest.approx(64.0)]


def test_a_killed_program_does_not_even_clean_up() -> None:
    loop = new_loop()
    owner = program(loop)
    done: list[str] = []

    async def pieces() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(5.0)
        finally:
            done.append("the generator ended")

    async def work() -> None:
        try:
            async for _ in pieces():
                done.append("a piece")
        finally:
            done.append("the task ended")

    async def main() -> None:
        loop.later(0.0, lambda: asyncio.ensure_future(work()), owner=owner)
        await asyncio.sleep(1.0)
        loop.kill(owner)
        await asyncio.sleep(10.0)
        assert done == ["a piece"]

    run(loop, main())


def test_whoever_is_called_from_outside_is_on_his_own_clock() -> None:
    loop = new_loop()
    owner = program(loop, origin=500.0)
    times: list[float] = []

    async def main() -> None:
        loop.later(1.0, lambda: times.append(loop.time()), owner=owner)
        loop.later(1.0, lambda: times.append(loop.time()))
        await asyncio.sleep(2.0)

    run(loop, main())
    assert times == [501.0, 1.0]
