"""Real servers in one pool: found by their gossip or by their calls, what goes through it, who fails and leaves."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lictor.model.member import ALIVE, FAILED, LEFT
from tests.cluster.servers import Cluster, Server, cluster
from tests.gossip.agents import QUICK, STEADY
from tests.patience import eventually

KEY, OTHER_KEY = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
FLAGS = ["-hcl", f"gossip_lan {{ {QUICK} }} gossip_wan {{ {QUICK} }}"]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Cluster]:
    """Three servers that know where the first one's gossip is, as Consul's users tell them; not started."""
    with cluster(tmp_path, "a", "b", "c", flags=FLAGS) as made:
        first = made["a"]
        for server in made:
            join = f"-retry-join={first.host}:{first.ports['serf-lan']}"
            server.flags = ["-bootstrap-expect=3", join, "-retry-interval=1s", *FLAGS]
        yield made


def statuses(server: Server, query: str = "") -> dict[str, int]:
    return {member["Name"]: member["Status"] for member in server.get(f"/v1/agent/members{query}")}


def health(server: Server, node: str) -> list[str]:
    status, body = server.ask("GET", f"/v1/health/node/{node}")
    if status != 200:
        return []
    found: list[dict[str, Any]] = server.get(f"/v1/health/node/{node}")
    return [check["Status"] for check in found if check["CheckID"] == "serfHealth"]


def all_see(servers: Cluster, wanted: dict[str, int], query: str = "") -> None:
    for server in servers:
        eventually(partial(_sees, server, wanted, query), f"{server.name} sees {wanted}")


def _sees(server: Server, wanted: dict[str, int], query: str) -> bool:
    return statuses(server, query) == wanted


def _has_events(server: Server, wanted: list[str]) -> bool:
    return sorted(event["Name"] for event in server.get("/v1/event/list")) == wanted


def test_servers_that_are_told_of_one_s_gossip_form_a_cluster(servers: Cluster) -> None:
    servers.start()
    alive = dict.fromkeys("abc", ALIVE)
    all_see(servers, alive)
    all_see(servers, {f"{name}.dc1": ALIVE for name in "abc"}, "?wan=1")
    for server in servers:
        (own,) = [member for member in server.get("/v1/agent/members") if member["Name"] == server.name]
        assert own["Port"] == server.ports["serf-lan"]
        assert own["Tags"]["port"] == str(server.ports["server"])
        assert server.get("/v1/agent/self")["Member"] == own

    # An event reaches all, each once.
    servers["b"].put("/v1/event/fire/deploy", b"v1")
    servers["c"].put("/v1/event/fire/last", b"")
    for server in servers:
        eventually(partial(_has_events, server, ["deploy", "last"]), f"both events at {server.name}")

    # A failure is seen, and the return.
    leader = servers.leader()
    other = next(server for server in servers if server is not leader)
    other.kill()
    eventually(lambda: statuses(leader)[other.name] == FAILED, "the failure is seen")
    eventually(lambda: health(leader, other.name) == ["critical"], "the catalog has it")
    other.start()
    eventually(lambda: statuses(leader)[other.name] == ALIVE, "the return is seen")
    eventually(lambda: health(leader, other.name) == ["passing"], "the catalog has it")

    # One that leaves has left, is no server any more, and is gone from the catalog.
    other.put("/v1/agent/leave")
    eventually(lambda: statuses(leader)[other.name] == LEFT, "it has left")
    eventually(lambda: other.name not in leader.peers(), "it is no server any more")
    eventually(lambda: health(leader, other.name) == [], "it is gone from the catalog")


def test_servers_that_are_told_of_each_other_s_calls_meet_in_gossip(tmp_path: Path) -> None:
    with cluster(tmp_path, "a", "b", flags=FLAGS) as made:
        made.start()
        all_see(made, dict.fromkeys("ab", ALIVE))
        all_see(made, {f"{name}.dc1": ALIVE for name in "ab"}, "?wan=1")


def test_gossip_keys_are_replaced_on_all_servers(servers: Cluster) -> None:
    for server in servers:
        server.flags += [f"-encrypt={KEY}", "-hcl", f"gossip_lan {{ {STEADY} }} gossip_wan {{ {STEADY} }}"]
    servers.start()
    all_see(servers, dict.fromkeys("abc", ALIVE))
    all_see(servers, {f"{name}.dc1": ALIVE for name in "abc"}, "?wan=1")
    path, asked = "/v1/operator/keyring", servers["b"]

    def keys() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = eventually(
            lambda: asked.get(path) if asked.ask("GET", path)[0] == 200 else None, "all members answer"
        )
        return found

    def change(method: str, key: str) -> None:
        eventually(lambda: asked.ask(method, path, {"Key": key})[0] == 200, f"{method} of a key on all members")

    wan, lan = keys()
    assert (wan["WAN"], lan["WAN"], wan["Datacenter"], lan["NumNodes"]) == (True, False, "dc1", 3)
    assert wan["Keys"] == lan["Keys"] == wan["PrimaryKeys"] == lan["PrimaryKeys"] == {KEY: 3}
    change("POST", OTHER_KEY)
    change("PUT", OTHER_KEY)
    change("DELETE", KEY)
    assert [pool["Keys"] for pool in keys()] == [{OTHER_KEY: 3}] * 2
    status, text = asked.ask("DELETE", path, {"Key": OTHER_KEY})
    assert (status, b"Removing the primary key is not allowed" in text) == (500, True)
    # What was replaced stays replaced: the files count, and not the key of the configuration.
    for server in servers:
        server.kill()
    servers.start()
    all_see(servers, dict.fromkeys("abc", ALIVE))
    assert [pool["Keys"] for pool in keys()] == [{OTHER_KEY: 3}] * 2
