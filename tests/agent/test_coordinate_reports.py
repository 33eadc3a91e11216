"""How often agents tell the servers where they are in the network."""

from __future__ import annotations

import asyncio
import random

from lictor.agent.coordinate_reports import INTERVAL, RATE, CoordinateReports, pause
from lictor.model.coordinate_entry import Coord, CoordinateEntry
from lictor.model.errors import NoLeader
from tests.agent.checks.virtual_time import run_virtually


def test_all_agents_of_a_large_datacenter_together_keep_to_one_rate() -> None:
    chance = random.Random(1)
    for members in (1, 100, 100_000):
        pauses = [pause(members, INTERVAL, chance) for _ in range(1000)]
        assert min(pauses) >= INTERVAL
        assert members / (sum(pauses) / len(pauses)) <= RATE
    assert max(pause(3, INTERVAL, chance) for _ in range(1000)) <= 2 * INTERVAL


def test_the_coordinate_is_reported_as_it_is_then_and_again_after_a_failure() -> None:
    sent: list[CoordinateEntry] = []
    tries = 0

    async def send(entry: CoordinateEntry) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            raise NoLeader
        sent.append(entry)

    async def scenario() -> None:
        reports = CoordinateReports(
            node="n1",
            coordinate=lambda: Coord(height=float(tries)),
            members=lambda: 3,
            send=send,
            chance=random.Random(1),
        )
        task = asyncio.create_task(reports.run())
        await asyncio.sleep(10 * INTERVAL)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtually(scenario())
    assert [entry.coord.height for entry in sent][:3] == [0.0, 2.0, 3.0]
    assert {entry.node for entry in sent} == {"n1"}
