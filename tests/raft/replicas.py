"""Replicas with real disks on one event loop, and a machine that keeps lines."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lictor.model.errors import InvalidRequest
from lictor.raft.consensus import Peer, ServerRecord
from lictor.raft.replica import Replica
from lictor.raft.settings import RaftSettings, World
from lictor.raft.wal import Files, OsFiles
from tests import patience
from tests.raft.wire import Wire

QUICK = RaftSettings(election_timeout=1.0, segment_bytes=1 << 16)


class Lines:
    """A state machine that keeps every proposal; a result is how many there are."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def apply(self, proposals: Sequence[bytes]) -> list[Any]:
        results = []
        for proposal in proposals:
            self.lines.append(proposal)
            results.append(len(self.lines))
        return results

    def image(self) -> "Lines":
        copy = Lines()
        copy.lines = list(self.lines)
        return copy

    def encode(self) -> Iterator[bytes]:
        yield b"\n".join(self.lines)

    def check(self, pieces: Iterator[bytes]) -> None:
        if b"no state" in b"".join(pieces):
            raise InvalidRequest("no lines")

    async def load(self, pieces: Iterator[bytes]) -> None:
        state = b"".join(pieces)
        self.lines = state.split(b"\n") if state else []


class Failed(AssertionError):
    """A replica wanted to end its process."""


def fatal(error: BaseException) -> None:
    raise Failed from error


async def work(function: Callable[..., Any], /, *args: Any) -> Any:
    return await asyncio.to_thread(function, *args)


class Place:
    """One server: its folder and address, and the replica that runs there now, if any."""

    def __init__(self, name: str, folder: Path, wire: Wire, settings: RaftSettings) -> None:
        self.name = name
        self.folder = folder / name
        self.address = f"{name}:8300"
        self.wire = wire
        self.settings = settings
        self.files: Files = OsFiles()
        self.machine = Lines()
        self.replica: Replica

    def record(self) -> ServerRecord:
        return ServerRecord(self.name, self.name, self.address, self.replica.number)

    async def start(self, recover: Sequence[Peer] | None = None) -> Replica:
        self.machine = Lines()
        world = World(log_work=work, snapshot_work=work, fatal=fatal, files=self.files, chance=random.Random())
        self.replica = Replica(
            self.machine, self.record, self.folder, self.wire.end(self.address), self.settings, world
        )
        await self.replica.start(recover)
        return self.replica

    async def stop(self) -> None:
        await self.replica.close()
        self.wire.ends.pop(self.address, None)


class Cluster:
    """Several places on one wire."""

    def __init__(self, folder: Path, settings: RaftSettings = QUICK) -> None:
        self.folder = folder
        self.settings = settings
        self.wire = Wire()
        self.places: list[Place] = []

    def place(self, name: str) -> Place:
        place = Place(name, self.folder, self.wire, self.settings)
        self.places.append(place)
        return place

    async def form(self, *names: str) -> None:
        for name in names:
            await self.place(name).start()
        records = [place.record() for place in self.places]
        await asyncio.gather(*(place.replica.form(records) for place in self.places))

    async def leader(self) -> Place:
        """The one that leads, once there is one."""
        found: list[Place] = []

        def look() -> bool:
            found[:] = [place for place in self.places if place.replica.is_leader]
            return bool(found)

        await until(look, "a leader")
        return max(found, key=lambda place: place.replica.term)

    async def same(self, lines: int, *places: Place) -> None:
        """Wait until all hold the same, at least so many lines."""
        all_of = places or tuple(self.places)
        await until(
            lambda: (
                all(len(p.machine.lines) >= lines for p in all_of)
                and len({tuple(p.machine.lines) for p in all_of}) == 1
            ),
            f"{lines} lines everywhere",
        )

    async def stop(self) -> None:
        for place in self.places:
            await place.stop()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    await patience.soon(condition, what)


async def soon(work_to_do: Awaitable[Any]) -> Any:
    """The result of something that must not take for ever."""
    async with asyncio.timeout(patience.PATIENCE):
        return await work_to_do
