"""What an operator sees and does of a cluster of real servers, on whichever of them; and the leader's duties when the
leader is lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.servers import Cluster, Server, cluster
from tests.patience import PATIENCE, eventually, settles
from tests.ports import agent_ports

NAMES = ("a", "b", "c")
REFERENCE = os.environ.get("LICTOR_REFERENCE_CONSUL", "")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers that no test harms."""
    with cluster(tmp_path_factory.mktemp("operator"), *NAMES) as servers:
        servers.start()
        yield servers


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    """Three servers."""
    with cluster(tmp_path, *NAMES) as servers:
        servers.start()
        yield servers


def follower(servers: Cluster) -> Server:
    """A server that does not lead."""
    leader = servers.leader()
    return next(server for server in servers if server is not leader)


def health(server: Server) -> tuple[int, dict[str, Any]]:
    """Status and body of autopilot's health."""
    status, body = server.ask("GET", "/v1/operator/autopilot/health")
    return status, json.loads(body) if status in (200, 429) else {}


def is_healthy(server: Server, voters: int = 3) -> bool:
    """Whether all servers are, and so many vote."""
    status, found = health(server)
    return status == 200 and sum(one["Voter"] for one in found["Servers"]) == voters


def passing(server: Server, *nodes: str) -> bool:
    """Whether these are the instances of `consul` whose servers are alive."""
    status, body = server.ask("GET", "/v1/health/service/consul?passing")
    return status == 200 and sorted(row["Node"]["Node"] for row in json.loads(body)) == sorted(nodes)


def test_every_server_tells_the_same(shared: Cluster) -> None:
    eventually(lambda: all(passing(server, *NAMES) for server in shared), "all three in the catalog")

    def wanted(leader: Server) -> list[object]:
        return [
            (0, [(name, name == leader.name, True) for name in NAMES]),
            (True, 1, {name: name == leader.name for name in NAMES}),
            (leader.node_id, sorted(server.node_id for server in shared)),
            dict.fromkeys(NAMES, 1),
        ]

    def told(server: Server) -> list[object]:
        configuration = server.get("/v1/operator/raft/configuration")
        peers = [(one["Node"], one["Leader"], one["Voter"]) for one in configuration["Servers"]]
        found = health(server)[1]
        leads = {one["Name"]: one["Leader"] for one in found.get("Servers") or []}
        status, body = server.ask("GET", "/v1/operator/autopilot/state")
        state = json.loads(body) if status == 200 else {"Leader": "", "Voters": []}
        return [
            (configuration["Index"], peers),
            (found.get("Healthy"), found.get("FailureTolerance"), leads),
            (state["Leader"], sorted(state["Voters"])),
            server.members(),
        ]

    def different() -> list[object]:
        """What a server tells that is not what it is; the leader may change, and the servers are not always well."""
        leader = shared.leader()
        return [(server.name, found) for server in shared if (found := told(server)) != wanted(leader)]

    settles(different, [], "every server tells the same")


def test_autopilot_is_configured_on_any_server(shared: Cluster) -> None:
    server = follower(shared)
    path = "/v1/operator/autopilot/configuration"
    before = server.get(path)
    changed = {**before, "MaxTrailingLogs": 333}
    assert server.put(f"{path}?cas={before['ModifyIndex']}", changed) == b"true"
    assert all(one.get(path)["MaxTrailingLogs"] == 333 for one in shared)
    assert server.put(f"{path}?cas={before['ModifyIndex']}", changed) == b"false"


@pytest.mark.parametrize("query", ["id=x", "address=127.0.0.9:8300"])
def test_an_unknown_peer_is_not_removed(shared: Cluster, query: str) -> None:
    kind, value = query.split("=")
    text = f'{kind} "{value}" was not found in the Raft configuration'
    path = f"/v1/operator/raft/peer?{query}"
    settles(lambda: shared.leader().ask("DELETE", path), (500, text.encode()), "the leader says so")
    passed_on = f"rpc error making call: {text}".encode()
    settles(lambda: follower(shared).ask("DELETE", path), (500, passed_on), "a follower passes it on")


def test_the_leadership_is_handed_over_from_any_server(shared: Cluster) -> None:
    eventually(lambda: is_healthy(shared["a"]), "three healthy voters")
    asked, before = follower(shared), shared.leader()
    wanted = next(server for server in shared if server not in (asked, before))
    path = "/v1/operator/raft/transfer-leader"

    def leads() -> bool:
        """After it was asked to; where the machine stands still, the time for that may run out."""
        status, body = asked.ask("POST", f"{path}?id={wanted.node_id}")
        assert status == 500 or (status, body) == (200, b'{"Success":true}')
        return all(server.leader() == wanted.address for server in shared)

    eventually(leads, "the other one leads")

    def refused() -> bool:
        status, body = asked.ask("POST", f"{path}?id={wanted.node_id}")
        return status == 500 and b"cannot find peer" in body

    eventually(refused, "who leads cannot be handed the leadership")
    eventually(lambda: asked.ask("POST", path)[0] == 200, "any other server can")


def test_sessions_outlive_their_leader_and_end_where_they_are_not_renewed(three: Cluster) -> None:
    server = follower(three)
    eventually(lambda: passing(server, *NAMES), "all three in the catalog")
    body = {"Node": server.name, "TTL": "10s"}
    kept, left = (json.loads(server.put("/v1/session/create", body))["ID"] for _ in range(2))
    three.leader().kill()

    def renewed() -> bool:
        status, answer = server.ask("PUT", f"/v1/session/renew/{kept}")
        assert status != 404, "the session that is renewed has ended"
        return status == 200 and json.loads(answer)[0]["ID"] == kept

    def ended() -> bool:
        eventually(renewed, "the session is renewed")
        return bool(server.get(f"/v1/session/info/{left}") == [])

    eventually(ended, "the other session ends")
    assert server.ask("PUT", f"/v1/session/renew/{left}")[0] == 404


def test_a_dead_server_is_seen_removed_and_back_as_a_voter(three: Cluster) -> None:
    eventually(lambda: is_healthy(three["a"]), "three healthy voters")
    dead = follower(three)
    rest = [server for server in three if server is not dead]
    config = rest[0].get("/v1/operator/autopilot/configuration")
    dead.kill()
    eventually(lambda: health(rest[0])[0] == 429, "the servers are not well")
    names = [server.name for server in rest]
    eventually(lambda: passing(rest[0], *names), "the dead one is critical")
    assert dead.name in rest[1].peers()
    rest[0].put("/v1/operator/autopilot/configuration", {**config, "CleanupDeadServers": True})
    eventually(lambda: set(rest[1].peers()) == set(names), "the dead one is removed")
    eventually(lambda: health(rest[0])[0] == 200, "those that are left are well")
    assert rest[1].members()[dead.name] in (3, 4)
    dead.start()
    dead.put("/v1/agent/service/register", {"Name": "web"})
    eventually(lambda: is_healthy(dead), "it votes again")
    eventually(lambda: passing(dead, *NAMES), "it is in the catalog again")
    eventually(lambda: dead.get("/v1/catalog/service/web"), "its services are too")


def test_a_removed_peer_is_gone_from_the_catalog(three: Cluster) -> None:
    eventually(lambda: passing(three["a"], *NAMES), "all three in the catalog")
    gone, leader = follower(three), three.leader()
    asked = next(server for server in three if server not in (gone, leader))
    path = f"/v1/operator/raft/peer?address={gone.address}"

    def removed() -> bool:
        """Again, where the leader was lost; what was done then may not have been answered."""
        return asked.ask("DELETE", path) == (200, b"") or gone.name not in (asked.peers() or {gone.name})

    eventually(removed, "it can be removed through any server")
    rest = [server.name for server in three if server is not gone]
    # The leader removed it; the server that passed the request on hears of that a moment later.
    eventually(lambda: set(asked.peers()) == set(rest), "it is gone from the configuration")
    eventually(lambda: passing(asked, *rest), "it is gone from the catalog")


# -- the command ------------------------------------------------------------------------------------------------------


def run(program: list[str], address: str, *args: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CONSUL_", "LICTOR_"))}
    done = subprocess.run(
        [*program, *args],
        env={**clean, "CONSUL_HTTP_ADDR": address},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def lictor(server: Server, *args: str) -> tuple[int, str, str]:
    """Lictor's command on a server."""
    return run([sys.executable, "-m", "lictor"], f"127.0.0.1:{server.ports['http']}", *args)


def test_the_command_shows_the_servers_and_hands_the_leadership_over(shared: Cluster) -> None:
    server = follower(shared)

    def leading() -> list[str]:
        """Who leads according to the list, after whom the servers take for their leader."""
        code, out, err = lictor(server, "operator", "raft", "list-peers")
        assert (code, err) == (0, "")
        header, *rows = out.splitlines()
        assert header.split()[:6] == ["Node", "ID", "Address", "State", "Voter", "RaftProtocol"]
        assert [row.split()[0] for row in rows] == list(NAMES)
        return [shared.leader().name, *(row.split()[0] for row in rows if row.split()[3] == "leader")]

    eventually(lambda: len(names := leading()) == 2 and names[0] == names[1], "the leader is shown")

    def well() -> tuple[int, list[str]]:
        code, out, _ = lictor(server, "operator", "autopilot", "health")
        return code, out.splitlines()[:2]

    settles(well, (0, ["Healthy:            true", "Failure Tolerance:  1"]), "three healthy voters")

    def roles() -> tuple[int, int, int]:
        code, out, _ = lictor(server, "operator", "autopilot", "state")
        return code, out.count("Status:          voter"), out.count("Status:          leader")

    settles(roles, (0, 2, 1), "two voters and a leader")
    transfer = ("operator", "raft", "transfer-leader", f"-id={server.node_id}")

    def handed_over() -> tuple[int, str, str]:
        if shared.leader() is server:
            server.ask("POST", "/v1/operator/raft/transfer-leader")
        return lictor(server, *transfer)

    settles(handed_over, (0, "Success\n", ""), "the leadership is handed over")
    refused = (
        "Error removing peer: Unexpected response code: 500 "
        '(rpc error making call: id "x" was not found in the Raft configuration)\n'
    )
    remove = ("operator", "raft", "remove-peer", "-id=x")
    settles(lambda: lictor(follower(shared), *remove)[::2], (1, refused), "a follower passes it on")


COMPARED = (
    ("operator", "raft", "list-peers"),
    ("operator", "raft", "remove-peer", "-id=x"),
    ("operator", "raft", "remove-peer", "-address=127.0.0.9:1"),
    ("operator", "autopilot", "get-config"),
    ("operator", "autopilot", "set-config", "-max-trailing-logs=300"),
    ("operator", "autopilot", "get-config"),
)


@pytest.fixture(params=["lictor", "reference"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A server of a healthy cluster of three, Lictor's or the reference's."""
    if not REFERENCE:
        pytest.skip("LICTOR_REFERENCE_CONSUL is not set (path of a Consul 1.8.7 binary)")
    if request.param == "lictor":
        yield from (f"127.0.0.1:{servers['b'].ports['http']}" for servers in request.getfixturevalue("started"))
    else:
        yield from _reference(tmp_path)


@pytest.fixture
def started(shared: Cluster) -> list[Cluster]:
    """The shared servers, when they are well."""
    eventually(lambda: is_healthy(shared["a"]), "three healthy voters")
    return [shared]


def _reference(folder: Path) -> Iterator[str]:
    ports = [agent_ports() for _ in NAMES]
    running = []
    try:
        for name, own in zip(NAMES, ports, strict=True):
            arguments = [REFERENCE, "agent", "-server", "-bootstrap-expect=3", f"-node={name}", "-bind=127.0.0.1"]
            arguments += [f"-data-dir={folder / name}", "-disable-host-node-id", "-log-level=err"]
            arguments += [f"-retry-join=127.0.0.1:{other['serf-lan']}" for other in ports]
            arguments += [f"-{kind}-port={port}" for kind, port in own.items()]
            running.append(subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        address = f"127.0.0.1:{ports[1]['http']}"
        healthy = ("operator", "autopilot", "set-config", "-max-trailing-logs=250")
        eventually(lambda: run([REFERENCE], address, *healthy)[0] == 0, "the reference has a leader")
        listed = ("operator", "raft", "list-peers")
        eventually(lambda: run([REFERENCE], address, *listed)[1].count("true") == 3, "the reference has three voters")
        yield address
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_the_command_says_what_the_reference_says(address: str) -> None:
    for args in COMPARED:
        ours = run([sys.executable, "-m", "lictor"], address, *args)
        assert _plain(*ours) == _plain(*run([REFERENCE], address, *args)), args


def _plain(code: int, out: str, err: str) -> tuple[int, list[list[str]], str]:
    """What later releases do not show differently: their columns of the log's indexes are left out."""
    rows = [line.split() for line in out.splitlines()]
    if rows and rows[0][:2] == ["Node", "ID"]:
        rows = [row[:6] for row in rows]
    return code, rows, err
