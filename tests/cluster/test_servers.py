"""Real servers: they form a cluster, keep it over crashes and restarts, and leave it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.servers import IMPATIENT, Server, cluster
from tests.patience import PATIENCE, eventually, settles
from tests.rpc.certificates import Authority, authority

ALL = ("a", "b", "c")


def test_three_servers_form_a_cluster_and_a_fourth_joins(tmp_path: Path) -> None:
    with cluster(tmp_path, *ALL) as servers:
        servers.start()
        servers["a"].write("key", b"value")
        for server in servers:
            assert server.read("key") == b"value", "a default read shows what was acknowledged before, on any server"
        assert servers["b"].voters() == set(ALL)
        servers.add("d").start()
        servers.settle("a", "b", "c", "d")
        assert servers["d"].read("key") == b"value"
        servers["d"].put("/v1/agent/service/register", {"Name": "web", "Port": 80})
        (web,) = eventually(lambda: servers["a"].get("/v1/catalog/service/web"), "the service is in the catalog")
        assert (web["Node"], web["ServicePort"]) == ("d", 80)
        eventually(lambda: "d" in servers["d"].voters(), "autopilot promotes it")
        settles(servers["c"].members, dict.fromkeys([*ALL, "d"], 1), "every server shows all as alive members")

        def listed() -> list[str]:
            return [line.split()[0] for line in lictor(servers["b"], "members").splitlines()[1:]]

        settles(listed, [*ALL, "d"], "the command lists all")

        def instances() -> list[str]:
            return sorted(node["Node"] for node in servers["a"].get("/v1/catalog/service/consul"))

        settles(instances, [*ALL, "d"], "the catalog has all")


def test_everything_is_there_after_all_have_crashed(tmp_path: Path) -> None:
    with cluster(tmp_path, *ALL) as servers:
        servers.start()
        for number in range(20):
            servers["abc"[number % 3]].write(f"key/{number}", b"%d" % number)
        for server in servers:
            server.kill()
        servers.start()
        for number in range(20):
            assert servers["cab"[number % 3]].read(f"key/{number}") == b"%d" % number


def test_another_leads_when_the_leader_is_killed(tmp_path: Path) -> None:
    with cluster(tmp_path, *ALL) as servers:
        servers.start()
        first = servers.leader()
        first.write("key", b"before")
        first.kill()
        rest = [server for server in servers if server is not first]
        rest[0].write("key", b"after")
        assert rest[1].read("key") == b"after"
        eventually(lambda: rest[0].members()[first.name] == 4, "the others show that it has failed")
        first.start()
        servers.settle()
        assert first.read("key") == b"after"


def test_a_server_comes_back_under_another_address_and_one_with_nothing(tmp_path: Path) -> None:
    with cluster(tmp_path, *ALL) as servers:
        servers.start()
        servers["a"].write("key", b"value")
        moved, wiped = servers["a"], servers["b"]
        moved.kill()
        moved.move()
        moved.start()
        eventually(
            lambda: servers["c"].peers().get("a", {}).get("Address") == moved.address,
            "the configuration has the new address",
        )
        there = {"Name": "a", "Port": moved.ports["serf-lan"], "Status": 1}
        eventually(
            lambda: any(there.items() <= member.items() for member in servers["c"].get("/v1/agent/members")),
            "gossip has it there too",
        )
        servers.settle()
        wiped.kill()
        shutil.rmtree(wiped.data)
        wiped.start()
        servers.settle()
        assert wiped.read("key") == b"value"
        eventually(lambda: "b" in wiped.voters(), "it votes again")


def test_all_come_back_under_other_addresses(tmp_path: Path) -> None:
    with cluster(tmp_path, *ALL) as servers:
        servers.start()
        servers["a"].write("key", b"value")
        for server in servers:
            server.kill()
            server.move()
        for server in servers:
            server.flags = [flag for flag in server.flags if "retry-join" not in flag] + servers.joins()
        servers.start()
        addresses = {server.name: server.address for server in servers}
        eventually(
            lambda: {name: peer["Address"] for name, peer in servers["c"].peers().items()} == addresses,
            "the configuration has the new addresses",
        )
        assert servers["b"].read("key") == b"value"


def test_servers_leave_and_the_rest_goes_on(tmp_path: Path) -> None:
    with cluster(tmp_path, *ALL, flags=["-hcl", "skip_leave_on_interrupt = false"]) as servers:
        servers.start()
        first = servers.leader()
        assert lictor(first, "leave") == "Graceful leave complete\n"
        assert first.process is not None
        assert first.process.wait(PATIENCE) == 0
        rest = [server.name for server in servers if server is not first]
        second = servers.settle(*rest)
        second.write("key", b"two are left")
        last = next(server for server in servers if server.name in rest and server is not second)
        assert last.end(signal.SIGINT) == 0
        servers.settle(second.name)
        second.write("key", b"one is left")
        first.start()
        servers.settle(second.name, first.name)
        assert first.read("key") == b"one is left"
        assert second.end(signal.SIGTERM) == 0, "a server does not leave on SIGTERM"
        second.start()
        servers.settle(second.name, first.name)


def test_a_failed_server_is_forced_to_leave(tmp_path: Path) -> None:
    with cluster(tmp_path, *ALL) as servers:
        servers.start()
        gone = next(server for server in servers if server is not servers.leader())
        rest = [server for server in servers if server is not gone]
        assert lictor(rest[0], "force-leave", gone.name) == "", "a living one stays"
        servers.settle()
        gone.kill()
        eventually(lambda: rest[0].members()[gone.name] == 4, "it has failed")
        assert lictor(rest[0], "force-leave", gone.name) == ""
        servers.settle(*(server.name for server in rest))
        eventually(lambda: rest[0].members()[gone.name] == 3, "it has left")
        eventually(
            lambda: gone.name not in {node["Node"] for node in rest[1].get("/v1/catalog/nodes")},
            "the catalog does not have it any more",
        )


def test_a_lost_majority_is_recovered_by_peers_json(tmp_path: Path) -> None:
    with cluster(tmp_path, *ALL) as servers:
        servers.start()
        servers["a"].write("key", b"value")
        for server in servers:
            server.kill()
        left, *lost = servers
        peers = left.data / "raft" / "peers.json"
        entry = {"id": left.node_id, "address": left.address, "non_voter": False}
        wrong: list[tuple[Any, str]] = [
            ("[", "it must look like"),
            ([{**entry, "voter": True}], "voter"),
            ([{**entry, "address": "127.0.0.1"}], "an address with a port"),
            ([{**entry, "non_voter": True}], "at least one of the servers must be a voter"),
            ([{**entry, "id": lost[0].node_id}], f"this server, whose id is {left.node_id}, is not there"),
            (
                [entry, {**entry, "id": "11111111-2222-3333-4444-555555555555", "address": "127.0.0.1:1"}],
                "not known here",
            ),
        ]
        for body, reason in wrong:
            peers.write_text(body if isinstance(body, str) else json.dumps(body))
            assert left.spawn().wait(PATIENCE) == 1
            assert reason in left.log()
            assert peers.exists()
            assert "Traceback" not in left.log()
        peers.write_text(json.dumps([entry]))
        left.start()
        servers.settle(left.name)
        assert left.read("key") == b"value"
        assert not peers.exists()
        left.kill()
        left.start()
        servers.settle(left.name)
        for server in lost:
            shutil.rmtree(server.data)
            server.start()
        servers.settle()
        assert lost[1].read("key") == b"value"


def test_servers_that_are_not_alike_form_nothing_and_say_why(tmp_path: Path) -> None:
    with cluster(tmp_path, *ALL) as servers:
        servers["b"].flags[0] = "-bootstrap-expect=5"
        servers["c"].flags.append("-datacenter=dc2")
        servers["a"].flags += ["-hcl", IMPATIENT]
        for server in servers:
            server.start()
        servers["a"].logs("b has bootstrap_expect = 5, this server 3: set the same on all")
        servers["a"].logs("is of datacenter dc2, this server of dc1: refused")
        servers["c"].logs("is of datacenter dc1, this server of dc2: refused")
        assert servers["a"].ask("PUT", "/v1/kv/key", b"value") == (500, b"No cluster leader")
        assert servers["a"].ask("GET", "/v1/kv/key?stale") == (500, b"No cluster leader"), (
            "there is nothing to read yet"
        )
        assert servers["a"].leader() == ""
        servers["a"].put("/v1/agent/service/register", {"Name": "early"})
        for name in "bc":
            servers[name].kill()
        servers["b"].flags[0] = servers["a"].flags[0]
        servers["c"].flags.pop()
        servers.start()
        eventually(
            lambda: servers["c"].get("/v1/catalog/service/early"), "what was registered before there was a leader"
        )


def test_a_server_that_finds_nobody_ends_after_retry_max(tmp_path: Path) -> None:
    with cluster(tmp_path, "a") as servers:
        server = servers["a"]
        server.flags = ["-retry-join=127.0.0.1:1", "-retry-max=2", "-retry-interval=100ms"]
        assert server.spawn().wait(PATIENCE) == 1
        assert "max join retry exhausted" in server.log()


def test_an_agent_is_told_where_to_join(tmp_path: Path) -> None:
    with cluster(tmp_path, "a", "b") as servers:
        servers["a"].flags = ["-bootstrap-expect=1"]
        servers["b"].flags = []
        servers["a"].start()
        servers["b"].start()
        assert servers["b"].leader() == ""
        status, answer = servers["b"].ask("PUT", "/v1/agent/join/127.0.0.1:1")
        assert (status, b"Failed to join 127.0.0.1: dial tcp 127.0.0.1:1:" in answer) == (500, True)
        assert lictor(servers["b"], "join", servers["a"].address).startswith("Successfully joined cluster")
        servers.settle()


def test_servers_with_tls_let_in_only_servers_of_their_authority(tmp_path: Path) -> None:
    ours, theirs = authority(tmp_path / "ours"), authority(tmp_path / "theirs")
    with cluster(tmp_path, *ALL) as servers:
        for server in servers:
            server.flags += tls(ours, "-server", *STRICT, server=server)
        servers.start()
        servers["a"].write("key", b"value")
        assert servers["c"].read("key") == b"value"
        strangers = [servers.add("plain"), servers.add("other"), servers.add("client")]
        strangers[1].flags += tls(theirs, "-server", *STRICT, server=strangers[1])
        strangers[2].flags += tls(ours, "-client", *STRICT, server=strangers[2])
        for stranger in strangers:
            stranger.start()
        for name in ALL:
            strangers[0].logs(f"{servers[name].address}: it speaks TLS where a plain connection was expected")
            strangers[1].logs(
                f"{servers[name].address} (its certificate: self-signed certificate in certificate chain)"
            )
            strangers[2].logs(f"{servers[name].address} (server.hello needs a certificate for server.dc1.consul)")
        assert set(servers["a"].peers()) == set(ALL)
        assert all(stranger.leader() == "" for stranger in strangers)


def test_tls_comes_into_a_running_cluster_in_three_rounds(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours")
    rounds = ((), ("verify_outgoing",), STRICT)
    with cluster(tmp_path, *ALL) as servers:
        servers.start()
        plain = {server.name: list(server.flags) for server in servers}
        for number, verify in enumerate(rounds):
            for server in servers:
                assert server.end(signal.SIGTERM) == 0
                server.flags = plain[server.name] + tls(ours, "-server", *verify, server=server)
                server.start()
                servers.settle()
                server.write(f"{number}/{server.name}", b"value")
        for server in servers:
            assert server.read("2/c") == b"value"


STRICT = ("verify_incoming", "verify_outgoing", "verify_server_hostname")


def tls(made: Authority, kind: str, *verify: str, server: Server) -> list[str]:
    """Flags for TLS between servers with a new certificate of an authority."""
    settings = made.settings(kind)
    file = server.folder / "tls.json"
    keys = {"ca_file": settings.ca_file, "cert_file": settings.cert_file, "key_file": settings.key_file}
    file.write_text(json.dumps({"tls": {"internal_rpc": {**keys, **dict.fromkeys(verify, True)}}}))
    return [f"-config-file={file}"]


def lictor(server: Server, *arguments: str) -> str:
    """What a command prints that asks a server's agent."""
    address = f"-http-addr=127.0.0.1:{server.ports['http']}"
    command = [sys.executable, "-m", "lictor", arguments[0], address, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
