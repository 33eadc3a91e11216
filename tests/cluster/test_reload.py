"""What a real server takes over of its configuration while it runs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.servers import Server, cluster
from tests.patience import eventually

RARELY = 'raft_snapshot_interval = "100ms"\nraft_snapshot_threshold = 1000000\nraft_trailing_logs = 1000000\n'
OFTEN = 'raft_snapshot_interval = "200ms"\nraft_snapshot_threshold = 20\nraft_trailing_logs = 5\n'


def snapshot_index(server: Server) -> int:
    """The index of a server's latest snapshot."""
    return int(server.get("/v1/agent/self")["Stats"]["raft"]["last_snapshot_index"])


def test_when_snapshots_are_taken_follows_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "snapshots.hcl"
    file.write_text(RARELY)
    with cluster(tmp_path, "a", flags=[f"-config-file={file}"]) as servers:
        servers.start()
        server = servers["a"]
        for number in range(60):
            server.write(f"key/{number}", b"value")
        applied = int(server.get("/v1/agent/self")["Stats"]["raft"]["applied_index"])
        assert snapshot_index(server) <= 1 < applied, "the first is that of an empty cluster"
        file.write_text(OFTEN)
        server.put("/v1/agent/reload")
        eventually(lambda: snapshot_index(server) >= applied, "a snapshot, for the threshold was reached long ago")
        assert "needs a restart" not in server.log()
        shown = server.get("/v1/agent/self")["DebugConfig"]
        assert (shown["RaftSnapshotThreshold"], shown["RaftTrailingLogs"]) == (20, 5)
        assert shown["RaftSnapshotInterval"] == "200ms"


def test_autopilot_sees_a_server_s_new_meta(tmp_path: Path) -> None:
    file = tmp_path / "meta.hcl"
    file.write_text('node_meta { zone = "cellar" }')
    tag = 'autopilot { redundancy_zone_tag = "zone" }'
    with cluster(tmp_path, "a", flags=[f"-config-file={file}", "-hcl", tag]) as servers:
        servers.start()
        server = servers["a"]

        def zones() -> list[str]:
            status, body = server.ask("GET", "/v1/operator/autopilot/state")
            return list(json.loads(body).get("RedundancyZones", {})) if status == 200 else []

        eventually(lambda: zones() == ["cellar"], "the zone of the configuration")
        file.write_text('node_meta { zone = "attic" }')
        server.put("/v1/agent/reload")
        eventually(lambda: zones() == ["attic"], "the other zone")
