"""An agent on disk that is killed: everything it acknowledged is there when it starts again."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lictor.raft.wal.frame import frame
from lictor.raft.wal.segment import Segment
from tests.agent.processes import Process
from tests.patience import PATIENCE, eventually


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Process]:
    """An agent of the test's own, not started."""
    process = Process(tmp_path)
    yield process
    process.close()


def test_what_was_registered_survives_a_kill(agent: Process) -> None:
    agent.start()
    agent.put(
        "/v1/agent/service/register",
        {
            "Name": "web",
            "Port": 80,
            "Meta": {"k": "v"},
            "Checks": [{"CheckID": "ttl", "TTL": "1h"}, {"CheckID": "tcp", "TCP": "127.0.0.1:1", "Interval": "10h"}],
            "Connect": {"SidecarService": {}},
        },
    )
    agent.put("/v1/agent/check/register", {"Name": "node-check", "TTL": "1h", "Status": "passing"})
    agent.put("/v1/agent/check/warn/ttl?note=so%20so")
    agent.put("/v1/agent/service/register", {"Name": "gone"})
    agent.put("/v1/agent/service/deregister/gone")
    agent.put("/v1/agent/service/maintenance/web?enable=true&reason=work")
    agent.put("/v1/kv/a/b", b"value")
    services, checks = agent.get("/v1/agent/services"), agent.get("/v1/agent/checks")
    agent.kill()
    agent.start()
    assert agent.get("/v1/agent/services") == services
    found = agent.get("/v1/agent/checks")
    assert set(found) == set(checks)
    assert (found["ttl"]["Status"], found["ttl"]["Output"]) == ("warning", "so so")
    assert found["_service_maintenance:web"]["Notes"] == "work"
    assert found["node-check"]["Status"] == "critical", "nobody has vouched for it since the start"
    assert agent.ask("GET", "/v1/kv/a/b?raw") == (200, b"value")
    (row,) = agent.get("/v1/health/service/web")
    assert {c["CheckID"]: c["Status"] for c in row["Checks"]}["ttl"] == "warning"
    assert "gone" not in agent.get("/v1/catalog/services")


def test_every_acknowledged_write_survives_a_kill_in_the_middle_of_many(agent: Process) -> None:
    agent.start()
    acknowledged: list[int] = []
    enough = threading.Event()

    def write(writer: int) -> None:
        for number in range(writer, 1 << 30, 8):
            try:
                if agent.ask("PUT", f"/v1/kv/k{number}", b"%d" % number) == (200, b"true"):
                    acknowledged.append(number)
            except OSError:
                return
            if len(acknowledged) > 200:
                enough.set()

    writers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in writers:
        thread.start()
    assert enough.wait(PATIENCE)
    agent.kill()
    for thread in writers:
        thread.join(PATIENCE)
    agent.start()
    keys = set(agent.get("/v1/kv/?keys"))
    assert {f"k{number}" for number in acknowledged} <= keys


def last_segment(agent: Process) -> Path:
    """The log's last file."""
    return max((agent.data / "raft" / "log").glob("*.wal"))


def test_a_torn_end_of_the_log_loses_nothing_that_was_acknowledged(agent: Process) -> None:
    agent.start()
    agent.put("/v1/kv/a", b"1")
    agent.kill()
    path = last_segment(agent)
    segment = Segment(path, path.read_bytes(), 1)
    assert list(segment.read(last=True))
    torn = frame(segment.next_frame, b"x" * 3000, segment.header.salt)[:700]
    with path.open("r+b") as file:
        file.seek(segment.end)
        file.write(torn)  # the beginning of a frame, as a write that was cut off leaves it
    agent.start()
    assert agent.ask("GET", "/v1/kv/a?raw") == (200, b"1")
    agent.put("/v1/kv/b", b"2")
    agent.kill()
    agent.start()
    assert agent.ask("GET", "/v1/kv/b?raw") == (200, b"2")


def test_a_damaged_log_keeps_the_agent_from_starting_and_is_left_as_it_is(agent: Process) -> None:
    agent.start()
    for number in range(5):
        agent.put(f"/v1/kv/k{number}", b"value")
    agent.kill()
    segment = last_segment(agent)
    damaged = bytearray(segment.read_bytes())
    damaged[len(damaged.rstrip(b"\0")) // 2] ^= 0x10
    segment.write_bytes(bytes(damaged))
    before = agent.log()
    assert agent.spawn().wait(PATIENCE) == 1
    told = agent.log()[len(before) :]
    assert f"{segment}: damaged at offset" in told
    assert "backup" in told
    assert "Traceback" not in told
    assert segment.read_bytes() == bytes(damaged)


def test_the_configuration_goes_before_what_was_registered(agent: Process) -> None:
    """A service in a file takes the place of one of the same id from the API, and goes when the file goes."""
    agent.start()
    agent.put("/v1/agent/service/register", {"Name": "web", "Port": 1})
    agent.put("/v1/agent/check/register", {"Name": "extra", "TTL": "1h", "ServiceID": "web"})
    agent.kill()
    file = agent.folder / "web.json"
    file.write_text('{"service": {"name": "web", "port": 2}}')
    agent.flags = (f"-config-file={file}",)
    agent.start()
    assert agent.get("/v1/agent/service/web")["Port"] == 2
    assert "extra" in agent.get("/v1/agent/checks"), "a check of it that came by the API stays"
    agent.kill()
    agent.flags = ()
    agent.start()
    assert agent.get("/v1/agent/services") == {}
    eventually(lambda: "web" not in agent.get("/v1/catalog/services"), "the catalog has it no more")


def test_services_that_are_well_do_not_notice_that_their_agent_restarts(agent: Process) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]
        agent.start()
        sidecar = {"Port": port, "Checks": [{"Name": "aliased", "AliasService": "web"}]}
        check = {"Name": "answers", "TCP": f"127.0.0.1:{port}", "Interval": "2s"}
        agent.put(
            "/v1/agent/service/register",
            {"Name": "web", "Port": port, "Check": check, "Connect": {"SidecarService": sidecar}},
        )

        def passing() -> list[tuple[str, int]]:
            """The checks that pass, with the index at which each last changed; none where any does not."""
            rows = agent.get("/v1/health/service/web") + agent.get("/v1/health/connect/web")
            checks = [check for row in rows for check in row["Checks"]]
            well = len(rows) == 2 and all(check["Status"] == "passing" for check in checks)
            return [(check["CheckID"], check["ModifyIndex"]) for check in checks] if well else []

        before = eventually(passing, "service and sidecar are well")
        agent.kill()
        service.settimeout(PATIENCE)
        while service_has_been_asked(service):
            pass
        agent.start()
        for _ in range(2):  # the checks have run again
            service.accept()[0].close()
        assert passing() == before


def service_has_been_asked(service: socket.socket) -> bool:
    """Take a connection that waits, if there is one."""
    readable, _, _ = select.select([service], [], [], 0)
    if readable:
        service.accept()[0].close()
    return bool(readable)
