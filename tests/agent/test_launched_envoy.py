"""The address that an Envoy wrote down is read with care: whoever it runs as may have put anything there."""

import os
import sys
from pathlib import Path

import pytest

from lictor.agent.launched_envoy import admin_port, drain_envoy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="agents start proxies on Linux only")


def test_a_port_of_this_machine_is_taken(tmp_path: Path) -> None:
    (tmp_path / "admin").write_text("127.0.0.1:19000\n")
    assert admin_port(tmp_path / "admin") == 19000


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "10.0.0.1:80", "evil:80", "\xff:1", "1" * 5000]
)
def test_nothing_else_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "admin").write_text(text)
    with pytest.raises(ValueError):
        admin_port(tmp_path / "admin")


async def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("127.0.0.1:19000")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("link", "fifo", "zeros", "missing"):
        with pytest.raises((OSError, ValueError)):
            admin_port(tmp_path / name)
        await drain_envoy(tmp_path / name)
