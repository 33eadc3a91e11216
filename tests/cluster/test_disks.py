"""Real servers of a cluster whose disks are full or damaged: the others go on, and the one comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.agent.small_disk import small_disk
from tests.cluster.servers import cluster
from tests.patience import PATIENCE, eventually

ALL = ("a", "b", "c")
VALUE = 500_000  # bytes


def test_a_leader_with_a_full_disk_steps_down_and_comes_back(tmp_path: Path) -> None:
    with cluster(tmp_path, *ALL) as servers, small_disk(servers["a"].data, 80) as disk:
        servers.start()
        full, others = servers["a"], (servers["b"], servers["c"])

        def is_full() -> bool:
            return "the log cannot be written, waiting for room" in full.log()

        def leads() -> bool:
            """After it was asked to; whoever is asked may not know yet that the servers are stable."""
            if servers.leader() is not full:
                servers["b"].ask("POST", f"/v1/operator/raft/transfer-leader?id={full.node_id}")
            return servers.leader() is full

        acknowledged = 0
        while not is_full():
            # Its disk may be full at any moment, and then it leads no more.
            eventually(lambda: is_full() or leads(), "the one with the small disk leads")
            others[acknowledged % 2].write(f"k{acknowledged}", b"%d " % acknowledged * (VALUE // 5))
            acknowledged += 1
            assert acknowledged < 400, "the disk is full in the end"
        eventually(lambda: servers.leader() in others, "another server leads")
        assert "stepping down: no room for the log" in full.log()
        for number in range(10):
            others[number % 2].write(f"later{number}", b"%d" % number)
        assert full.runs
        assert full.ask("GET", "/v1/kv/k0?raw&stale")[0] == 200
        disk.resize(500)
        full.logs("there is room for the log again")
        eventually(lambda: full.ask("GET", "/v1/kv/later9?raw&stale") == (200, b"9"), "it has what came meanwhile")
        full.write("own", b"1")
        keys = set(full.get("/v1/kv/?keys"))
        assert {f"k{number}" for number in range(acknowledged)} | {"own"} <= keys


def test_a_server_with_a_damaged_log_is_refilled_by_the_others(tmp_path: Path) -> None:
    """What the documentation says to do about damage."""
    with cluster(tmp_path, *ALL) as servers:
        servers.start()
        servers["a"].write("key", b"value")
        damaged = servers["c"]
        damaged.kill()
        raft = damaged.data / "raft"
        segment = min((raft / "log").glob("*.wal"))
        content = bytearray(segment.read_bytes())
        content[60] ^= 1
        segment.write_bytes(bytes(content))
        assert damaged.spawn().wait(PATIENCE) == 1
        assert f"{segment}: damaged at offset 32" in damaged.log()
        servers["a"].write("key", b"another")
        shutil.move(raft, damaged.folder / "moved away")
        damaged.start()
        servers.settle()
        eventually(lambda: "c" in servers["a"].voters(), "it votes again")
        assert damaged.read("key") == b"another"
