"""The file that keeps a replica: when it is written, and what becomes of one that cannot be used."""

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lictor.agent.persistence import write_file
from lictor.agent.replica_file import LONGEST, NAME, QUIET, SOON, Debounce, ReplicaFile, forget
from lictor.agent.replica_image import Moment, read_image
from lictor.agent.worker import Worker
from lictor.model.command import ConfigWrite, CoordinateUpdate, Register
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.store.reads import coordinates, health, intentions
from tests.agent.replicas import Member, World, simulated, until


class AtOnce(Worker):
    """Does its work where it is: there are no threads in virtual time."""

    def __init__(self) -> None:
        super().__init__("none")

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> "asyncio.Future[Any]":
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            done.set_result(function(*args))
        except OSError as error:
            done.set_exception(error)
        return done


def web(port: int) -> Register:
    return Register(Node(node="n1", address="10.0.0.9"), NodeService(id="web", service="web", port=port))


def intention(action: str) -> ConfigWrite:
    sources = [{"Name": "api", "Action": action, "Type": "consul", "Precedence": 9}]
    return ConfigWrite("upsert", "service-intentions", "web", {"Sources": sources})


def file_of(folder: Path, member: Member) -> ReplicaFile:
    world = member.world
    return ReplicaFile(folder, member.replica, "dc1", moment=lambda: Moment(1e6 + world.loop.time()), worker=AtOnce())


def ports(path: Path) -> list[int]:
    found = read_image(path.read_bytes(), "dc1")
    return [row.service.port for one in found.topics for row in one.rows.get("services", ())]


def test_it_is_written_some_time_after_changes_and_never_without(tmp_path: Path) -> None:
    path = tmp_path / NAME

    async def scenario(world: World) -> None:
        world.server()
        world.write(web(0), intention("allow"), CoordinateUpdate((CoordinateEntry("n1"),)))
        member = Member(world, "10.0.1.1:1")
        file = file_of(tmp_path, member)
        file.load()
        await member.replica.read(health.service, "web", (), {})
        assert not path.exists()
        await until(lambda: file.writes == 1)
        assert ports(path) == [0]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

        began = world.loop.time()
        for port in range(1, 101):
            world.write(web(port))
            await asyncio.sleep(0.04)
        await until(lambda: file.writes == 2)
        assert world.loop.time() - began >= QUIET
        await until(lambda: file.current and ports(path) == [100])
        assert file.writes <= 3

        # Who may talk to whom is there at once, or nearly so.
        await member.replica.read(intentions.for_destination, "web")
        await until(lambda: file.current)
        writes, began = file.writes, world.loop.time()
        world.write(intention("deny"))
        await until(lambda: file.writes == writes + 1)
        assert world.loop.time() - began <= SOON + 0.2
        assert b"deny" in path.read_bytes()

        # Nodes move all the time.
        await member.replica.read(lambda v: coordinates.coordinates(v, None))
        for _ in range(50):
            world.write(CoordinateUpdate((CoordinateEntry("n1"),)))
            await asyncio.sleep(60.0)
        assert file.writes == writes + 1
        assert member.replica.age < 2.0

        # An end is the last word.
        world.write(web(200))
        await until(lambda: member.store.services.get(("n1", "web")).service.port == 200)  # type: ignore[union-attr]
        await file.close()
        await member.replica.close()
        assert ports(path) == [200]
        assert read_image(path.read_bytes(), "dc1").age < 2.0

    simulated(scenario)


def test_a_file_that_cannot_be_used_is_named_once_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / NAME

    async def scenario(world: World) -> None:
        world.server()
        world.write(web(1))
        for content in (b"", b"nonsense", b"lictor replica 1\n" + bytes(32), b"lictor replica 9\n" + bytes(99)):
            path.write_bytes(content)
            caplog.clear()
            member = Member(world, f"10.0.1.{len(content)}:1")
            file = file_of(tmp_path, member)
            file.load()
            (line,) = caplog.records
            assert line.levelno == logging.WARNING and str(path) in str(vars(line))
            assert member.replica.topics == 0
            await file.close()
            assert path.read_bytes() == content, "nothing is held that could take its place"
            await member.replica.close()
        path.unlink()
        os.mkfifo(path)
        caplog.clear()
        member = Member(world, "10.0.2.1:1")
        file_of(tmp_path, member).load()
        assert "it is no file" in str(vars(caplog.records[0])), "nobody waits for who writes into a pipe"
        await member.replica.close()

        path.unlink()
        member = Member(world, "10.0.1.200:1")
        file = file_of(tmp_path, member)
        file.load()
        await member.replica.read(health.service, "web", (), {})
        await file.close()
        await member.replica.close()
        assert ports(path) == [1]

    simulated(scenario)


def test_a_disk_that_takes_nothing_is_named_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    def full(path: Path, data: bytes) -> None:
        nonlocal tried
        tried += 1
        if tried < 4:
            raise OSError(28, "No space left on device")
        write_file(path, data)

    monkeypatch.setattr("lictor.agent.replica_file.write_file", full)

    async def scenario(world: World) -> None:
        world.server()
        world.write(web(1))
        member = Member(world, "10.0.1.1:1")
        file = file_of(tmp_path, member)
        file.load()
        await member.replica.read(health.service, "web", (), {})
        await until(lambda: file.writes == 1, seconds=600.0)
        assert tried == 4
        assert len([line for line in caplog.records if "No space left" in str(vars(line))]) == 1
        await file.close()
        await member.replica.close()

    simulated(scenario)


def test_where_nothing_is_to_be_kept_nothing_is_left(tmp_path: Path) -> None:
    forget(tmp_path)
    (tmp_path / NAME).write_bytes(b"of an earlier run")
    forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_is_written_seldom() -> None:
    debounce = Debounce()
    debounce.changed(0.0, urgent=False)
    debounce.changed(1.0, urgent=False)
    assert debounce.due == QUIET
    debounce.changed(2.0, urgent=True)
    assert debounce.due == 2.0 + SOON
    debounce.begun()
    debounce.written(3.0, 64 * 1024 * 1024)
    debounce.changed(4.0, urgent=False)
    assert debounce.due == 3.0 + LONGEST
    debounce.changed(5.0, urgent=True)
    assert debounce.due == 3.0 + 16.0
