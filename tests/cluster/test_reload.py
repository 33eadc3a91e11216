"""What a real server takes over of its configuration while it runs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.servers import Server, cluster
from tests.patience import eventually
from tests.rpc.certificates import authority

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


def test_a_reload_that_is_wrong_anywhere_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "more.hcl"
    ca_file = authority(tmp_path / "ca").ca_file
    tls = f'tls {{ defaults {{ ca_file = "{ca_file}" }} internal_rpc {{ verify_outgoing = %s }} }}\n'
    file.write_text(tls % "false" + 'node_meta { zone = "cellar" }')
    with cluster(tmp_path, "a", flags=[f"-config-file={file}"]) as servers:
        servers.start()
        server = servers["a"]

        def tags() -> dict[str, str]:
            return dict(server.get("/v1/agent/members")[0]["Tags"])

        eventually(lambda: "wan_join_port" in tags(), "it is in gossip")
        meta = server.get("/v1/agent/self")["Meta"]
        other = tls % "true" + 'node_meta { zone = "attic" }\nservice { name = "s" }\n'
        file.write_text(other + 'check { name = "c" service_id = "nobody" ttl = "10s" }')
        status, body = server.ask("PUT", "/v1/agent/reload")
        assert status != 200
        assert b"nobody" in body
        assert "use_tls" not in tags()
        assert server.get("/v1/agent/self")["Meta"] == meta
        assert server.get("/v1/agent/services") == {}
        file.write_text(other)
        assert server.ask("PUT", "/v1/agent/reload")[0] == 200
        assert tags()["use_tls"] == "1"
        assert server.get("/v1/agent/self")["Meta"]["zone"] == "attic"
        assert list(server.get("/v1/agent/services")) == ["s"]
