"""What systemd hears, through a real datagram socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lictor.agent.systemd import Notifier
from tests.patience import PATIENCE


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[socket.socket, str]:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    request.addfinalizer(channel.close)
    channel.settimeout(PATIENCE)
    if request.param == "path":
        name = str(tmp_path / "notify")
        channel.bind(name)
        return channel, name
    name = f"lictor-test-{os.getpid()}-{id(channel)}"
    channel.bind("\0" + name)
    return channel, "@" + name


def test_the_states_of_the_agent_are_told(listener: tuple[socket.socket, str]) -> None:
    channel, name = listener
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.ready()
    assert channel.recv(1000) == b"READY=1"
    assert notifier.reloading()
    state, stamp = channel.recv(1000).split(b"\n")
    assert state == b"RELOADING=1"
    assert int(stamp.removeprefix(b"MONOTONIC_USEC=")) > 0
    assert notifier.stopping()
    assert channel.recv(1000) == b"STOPPING=1"
    assert notifier.status("two\nlines")
    assert channel.recv(1000) == b"STATUS=two lines"


@pytest.mark.parametrize("name", ["", "relative", "/nonexistent/socket", "@nobody-listens-here", "/" + "x" * 500])
def test_without_a_listener_nothing_happens(name: str) -> None:
    assert not Notifier({"NOTIFY_SOCKET": name}).ready()
