"""Listeners handed from one process to the next: whoever else connects keeps nobody out and holds nothing up."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lictor.agent.logs import logger
from lictor.connect_proxy.handover import AT_ONCE, Handover, take_over
from tests.patience import PATIENCE, soon

LOG = logger("proxy")
NAME = "n" * 640  # of an address: a hundred of them fill a message


@pytest.fixture
def served() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def connected(path: str) -> socket.socket:
    """Somebody who connects, and says and reads nothing."""
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    silent.settimeout(PATIENCE)
    silent.connect(path)
    return silent


def names_for(successor: socket.socket) -> set[str]:
    """The names of all sockets that it is sent."""
    found: set[str] = set()
    while True:
        data, descriptors, _, _ = socket.recv_fds(successor, 1 << 17, 100)
        for descriptor in descriptors:
            socket.close(descriptor)
        message = json.loads(data)
        found.update(message["names"])
        if not message["more"]:
            return found


async def follow(path: str, wanted: set[str], dismissed: asyncio.Event) -> None:
    """Take the listeners over, as the next process does."""
    handed, former = await asyncio.to_thread(take_over, path, LOG)
    for sock in handed.values():
        sock.close()
    assert set(handed) == wanted
    assert former is not None
    assert not dismissed.is_set()
    former.dismiss()
    await soon(dismissed.is_set, "the former process is not needed any more")


async def test_who_reads_nothing_holds_nobody_up(tmp_path: Path, served: socket.socket) -> None:
    path, dismissed = str(tmp_path / "handover"), asyncio.Event()
    sockets = {f"{NAME}{number}": served for number in range(400)}  # more than waits for one who does not read
    handover = Handover(path, lambda: sockets, dismissed.set, LOG)
    handover.open()
    with connected(path) as slow:
        await soon(lambda: handover._successors, "it is being sent to")
        assert await asyncio.to_thread(names_for, slow) == set(sockets), "it gets them when it reads"
        with connected(path):
            await follow(path, set(sockets), dismissed)


async def test_who_says_nothing_keeps_nobody_out_and_of_many_the_first_is_let_go(
    tmp_path: Path, served: socket.socket
) -> None:
    path, dismissed = str(tmp_path / "handover"), asyncio.Event()
    handover = Handover(path, lambda: {"a": served}, dismissed.set, LOG)
    handover.open()
    silent = [connected(path) for _ in range(AT_ONCE)]
    await follow(path, {"a"}, dismissed)
    for one in silent:
        data, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, one, 1000, 10)
        assert b'"a"' in data
        for descriptor in descriptors:
            socket.close(descriptor)
        assert await asyncio.to_thread(one.recv, 1000) == b"", "the former process has let it go"
        one.close()


async def test_who_ends_without_a_word_changes_nothing(tmp_path: Path, served: socket.socket) -> None:
    path, dismissed = str(tmp_path / "handover"), asyncio.Event()
    handover = Handover(path, lambda: {"a": served}, dismissed.set, LOG)
    handover.open()
    connected(path).close()
    await follow(path, {"a"}, dismissed)
    handover.close()
