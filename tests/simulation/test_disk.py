"""Work on a simulated disk: in order, in time, and never half acknowledged."""

import asyncio
import random
from pathlib import Path

from tests.simulation.disk import Drive, Worker
from tests.simulation.loop import Clock, Owner, SimLoop, run

PATH = Path("/data/file")


class Machine:
    """A process with a drive."""

    def __init__(self) -> None:
        self.loop = SimLoop()  # type: ignore[abstract]
        self.drive = Drive(self.loop, random.Random(3))
        self.owner: Owner = self.loop.own("process", Clock(lambda: self.loop.now, 1.0, 0.0))
        self.worker = Worker(self.drive, lambda: self.loop.kill(self.owner))
        self.done: list[int] = []

    def write(self, number: int) -> int:
        file = self.drive.disk.create(PATH)
        file.write(0, b"%d" % number)
        file.sync()
        self.drive.disk.sync_folder(PATH.parent)
        return number

    async def ask(self, number: int) -> None:
        self.done.append(await self.worker(self.write, number))


def test_work_is_done_one_piece_after_the_other_and_takes_time() -> None:
    machine = Machine()

    async def main() -> None:
        for number in range(10):
            machine.loop.later(0.0, lambda n=number: asyncio.ensure_future(machine.ask(n)), owner=machine.owner)
        await asyncio.sleep(60.0)

    run(machine.loop, main())
    assert machine.done == list(range(10))
    assert machine.drive.disk.content(PATH) == b"9"


def test_a_stalled_drive_holds_everything_up() -> None:
    machine = Machine()
    machine.drive.stalled_until = 7.0

    async def main() -> None:
        machine.loop.later(0.0, lambda: asyncio.ensure_future(machine.ask(1)), owner=machine.owner)
        await asyncio.sleep(7.0)
        assert not machine.done
        await asyncio.sleep(5.0)

    run(machine.loop, main())
    assert machine.done == [1]


def test_a_burnt_fuse_ends_the_process_in_the_midst_of_its_work() -> None:
    machine = Machine()
    machine.drive.disk.fuse = 2

    async def main() -> None:
        machine.loop.later(0.0, lambda: asyncio.ensure_future(machine.ask(1)), owner=machine.owner)
        await asyncio.sleep(60.0)

    run(machine.loop, main())
    assert machine.owner.dead
    assert not machine.done
    machine.drive.disk.lose_power()
    assert machine.drive.disk.paths() == [] or machine.drive.disk.content(PATH) in (b"", b"1")
