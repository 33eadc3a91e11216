"""An agent on a disk with less room than a segment of its log: it serves, fills it, and comes back with some more."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from tests.agent.processes import Process
from tests.agent.small_disk import small_disk
from tests.patience import eventually

MEGABYTES = 40
VALUE = 500_000  # bytes
NO_ROOM = "the log cannot be written, waiting for room"


def free(folder: Path) -> int:
    """Bytes that are left on its file system."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def take_all_room(folder: Path) -> Path:
    """Fill its file system; returns the file that does."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        while left := free(folder):
            with contextlib.suppress(OSError):  # the agent took some in between
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), left)
    return ballast


def fill(agent: Process, first: int) -> int:
    """Write until there is no room. Returns how many writes were acknowledged in all, of which `first` were before."""
    acknowledged, before = first, agent.log().count(NO_ROOM)

    def full() -> bool:
        """After one more write; it is not acknowledged in time also where the machine stands still."""
        nonlocal acknowledged
        written = agent.ask("PUT", f"/v1/kv/k{acknowledged}", b"%d " % acknowledged * (VALUE // 5))
        acknowledged += written == (200, b"true")
        return agent.log().count(NO_ROOM) > before

    eventually(full, "the disk is full")
    return acknowledged


def test_a_server_needs_no_more_room_than_what_it_holds(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MEGABYTES) as disk:
        agent = Process(disk.folder)
        agent.flags = ("-hcl", 'performance { rpc_hold_timeout = "1s" }')
        try:
            agent.start()
            assert free(disk.folder) > (MEGABYTES - 5) << 20, "it takes no room that is missing elsewhere"
            written = fill(agent, 0)
            assert written * VALUE > (MEGABYTES // 2) << 20, "it uses what there is"
            agent.kill()
            agent.start()  # all room is taken, and none is needed for this
            disk.resize(MEGABYTES + 4)
            eventually(lambda: agent.ask("PUT", "/v1/kv/later", b"y") == (200, b"true"), "writes are taken again")
            assert fill(agent, written) > written, "what there is more of is used, too"
            keys = set(agent.get("/v1/kv/?keys&stale"))
            assert {f"k{number}" for number in range(written)} | {"later"} <= keys
            assert "Traceback" not in agent.log()
        finally:
            agent.close()


def test_a_registration_that_a_full_disk_does_not_take_is_refused_with_the_reason(tmp_path: Path) -> None:
    def register(agent: Process, name: str) -> tuple[int, bytes]:
        body = json.dumps({"Name": name, "Check": {"TTL": "600s"}}).encode()
        return agent.ask("PUT", "/v1/agent/service/register", body)

    with small_disk(tmp_path / "disk", MEGABYTES) as disk:
        agent = Process(tmp_path)
        agent.data = disk.folder / "data"
        try:
            agent.start()
            assert register(agent, "kept")[0] == 200
            ballast = take_all_room(disk.folder)
            status, body = register(agent, "refused")
            assert status == 500
            assert b"No space left on device" in body
            status, body = agent.ask("PUT", "/v1/agent/check/pass/service:kept")
            assert status == 500
            assert b'failed persisting state for check "service:kept": ' in body
            assert b"No space left on device" in body
            assert agent.get("/v1/agent/checks")["service:kept"]["Status"] == "passing", "it counts nevertheless"
            agent.kill()
            agent.start()
            assert set(agent.get("/v1/agent/services")) == {"kept"}
            ballast.unlink()
            assert register(agent, "refused")[0] == 200
            assert "Traceback" not in agent.log()
        finally:
            agent.close()
