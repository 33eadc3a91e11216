"""Real servers in redundancy zones, and real servers that take over from others of an older version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.servers import Server, cluster
from tests.cluster.test_operator import lictor
from tests.patience import eventually

SOON = 'autopilot { cleanup_dead_servers = false server_stabilization_time = "1s" %s }'


def state(server: Server) -> dict[str, Any]:
    """Autopilot's state; empty where there is no leader to tell it."""
    status, _ = server.ask("GET", "/v1/operator/autopilot/state")
    return dict(server.get("/v1/operator/autopilot/state")) if status == 200 else {}


def voters(server: Server) -> set[str]:
    """The names of those that vote."""
    return {name for name, peer in server.peers().items() if peer["Voter"]}


def test_a_zone_has_one_voter_and_its_mate_takes_over(tmp_path: Path) -> None:
    config = SOON % 'redundancy_zone_tag = "az"'
    with cluster(tmp_path, "a", "b", "c", flags=["-hcl", config]) as servers:
        for server in servers:
            server.flags.append(f"-node-meta=az:zone-{server.name}")
        servers.start()
        leader = servers.leader()
        failing = next(server for server in servers if server is not leader)
        mate = servers.add("mate", f"-node-meta=az:zone-{failing.name}").start()

        def stands_by() -> bool:
            found = state(leader).get("Servers", {}).get(mate.node_id, {})
            return bool(found.get("Healthy")) and found.get("NodeType") == "zone-standby"

        eventually(stands_by, "the mate is healthy and stands by")
        zone = state(leader)["RedundancyZones"][f"zone-{failing.name}"]
        assert zone["Voters"] == [failing.node_id]
        assert sorted(zone["Servers"]) == sorted([failing.node_id, mate.node_id])
        assert voters(leader) == {"a", "b", "c"}
        code, out, _ = lictor(mate, "operator", "autopilot", "state")
        assert code == 0 and f"   zone-{failing.name}:\n      Failure Tolerance: 1\n" in out
        failing.kill()
        expected = {"a", "b", "c", "mate"} - {failing.name}
        eventually(
            lambda: voters(leader) == expected,
            "the mate votes in its place",
        )
        leader.write("key", b"value")
        failing.start()

        def is_back() -> bool:
            found = state(leader).get("Servers", {}).get(failing.node_id, {})
            return bool(found.get("Healthy")) and found.get("NodeType") == "zone-standby"

        eventually(is_back, "who comes back stands by")
        assert voters(leader) == expected
        assert failing.read("key") == b"value"


def test_a_server_of_a_newer_version_takes_over(tmp_path: Path) -> None:
    config = SOON % 'upgrade_version_tag = "release"'
    with cluster(tmp_path, "old", flags=["-hcl", config]) as servers:
        old = servers["old"]
        old.flags.append("-node-meta=release:1.0")
        servers.start()
        old.write("key", b"value")
        new = servers.add("new", "-node-meta=release:1.1")
        new.flags = [flag for flag in new.flags if not flag.startswith("-bootstrap")]
        new.start()
        eventually(lambda: voters(new) == {"new"}, "only the newer one votes")
        eventually(lambda: new.leader() == new.address, "it leads")
        eventually(lambda: state(new).get("Upgrade", {}).get("Status") == "await-server-removal", "the end is near")
        assert state(new)["Upgrade"] == {
            "Status": "await-server-removal",
            "TargetVersion": "1.1",
            "TargetVersionVoters": [new.node_id],
            "OtherVersionNonVoters": [old.node_id],
        }
        assert state(new)["Servers"][old.node_id]["UpgradeVersion"] == "1.0"
        assert new.read("key") == b"value"
