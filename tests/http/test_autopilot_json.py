"""Autopilot's state as the API and the command show it: redundancy zones, a migration, read replicas."""

from typing import Any

from lictor.cli.operator.autopilot.state import lines
from lictor.http.autopilot_json import state_json
from lictor.model.member import FAILED
from lictor.server.autopilot_config import Rules
from lictor.server.autopilot_state import NEVER, Seen, State, judge

RULES = Rules(version_tag="v", zone_tag="az")


def seen(name: str, zone: str, version: str, **given: Any) -> Seen:
    """A voter that is well."""
    meta = {"az": zone, "v": version}
    fields = {"version": "1.20.0", "contact": 0.001, "last_term": 3, "last_index": 41, "voter": True, "leader": False}
    return Seen(id=name, node=f"node {name}", address="10.0.0.1:8300", meta=meta, **{**fields, **given})


def shown(*servers: Seen, rules: Rules = RULES) -> dict[str, Any]:
    """The body of `state`."""
    state: State = judge(None, servers, rules, 0.0, 1000.0)
    return state_json(state)


SERVERS = (
    seen("a1", "a", "1", leader=True, contact=0.0),
    seen("a2", "a", "2", voter=False),
    seen("b1", "b", "1"),
    seen("b2", "b", "1"),
    seen("c1", "c", "1", status=FAILED, contact=NEVER),
    seen("r", "c", "1", voter=False, read_replica=True),
)


def test_redundancy_zones() -> None:
    body = shown(*SERVERS)
    assert body["RedundancyZones"] == {
        "a": {"Servers": ["a1", "a2"], "Voters": ["a1"], "FailureTolerance": 1},
        "b": {"Servers": ["b1", "b2"], "Voters": ["b1", "b2"], "FailureTolerance": 1},
        "c": {"Servers": ["c1"], "Voters": ["c1"], "FailureTolerance": 0},
    }
    assert (body["FailureTolerance"], body["OptimisticFailureTolerance"]) == (0, 1)
    assert {name: server["NodeType"] for name, server in body["Servers"].items()} == {
        "a1": "zone-voter",
        "a2": "zone-standby",
        "b1": "zone-voter",
        "b2": "zone-extra-voter",
        "c1": "zone-voter",
        "r": "read-replica",
    }
    assert {name: server.get("RedundancyZone") for name, server in body["Servers"].items()} == {
        "a1": "a",
        "a2": "a",
        "b1": "b",
        "b2": "b",
        "c1": "c",
        "r": None,
    }
    assert body["ReadReplicas"] == ["r"]
    assert body["Servers"]["a2"]["UpgradeVersion"] == "2"


def test_a_migration() -> None:
    assert shown(*SERVERS)["Upgrade"] == {
        "Status": "await-new-voters",
        "TargetVersion": "2",
        "TargetVersionNonVoters": ["a2"],
        "OtherVersionVoters": ["a1", "b1", "b2", "c1"],
        "OtherVersionReadReplicas": ["r"],
        "RedundancyZones": {
            "a": {"TargetVersionNonVoters": ["a2"], "OtherVersionVoters": ["a1"]},
            "b": {"OtherVersionVoters": ["b1", "b2"]},
            "c": {"OtherVersionVoters": ["c1"]},
        },
    }


def test_without_zones_and_tags_there_are_no_blocks_about_them() -> None:
    body = shown(*SERVERS[:3], rules=Rules())
    assert "RedundancyZones" not in body and "ReadReplicas" not in body
    assert body["Upgrade"] == {
        "Status": "idle",
        "TargetVersion": "1.20.0",
        "TargetVersionVoters": ["a1", "b1"],
        "TargetVersionNonVoters": ["a2"],
    }
    server = body["Servers"]["a1"]
    assert (server["NodeType"], server.keys() & {"RedundancyZone", "UpgradeVersion"}) == ("voter", set())
    assert shown(*SERVERS[:1], rules=Rules(migrate=False))["Upgrade"]["Status"] == "disabled"


def test_the_command_shows_both() -> None:
    text = "\n".join(lines(shown(*SERVERS)))
    assert (
        "Redundancy Zones:\n"
        "   a:\n"
        "      Failure Tolerance: 1\n"
        "      Voters:\n"
        "         a1\n"
        "      Servers:\n"
        "         a1\n"
        "         a2\n"
        "   b:\n"
    ) in text
    assert (
        "Upgrade:\n"
        "   Status:         await-new-voters\n"
        "   Target Version: 2\n"
        "   Target Version Non-Voters:\n"
        "      a2\n"
        "   Other Version Voters:\n"
        "      a1\n"
        "      b1\n"
        "      b2\n"
        "      c1\n"
        "   Other Version ReadReplicas:\n"
        "      r\n"
        "Servers:\n"
    ) in text
    assert "      Redundancy Zone: a\n      Upgrade Version: 2\n" in text
