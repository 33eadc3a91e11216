"""The mesh's authority on real servers: one for all of them, through crashes, rotations and a snapshot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lictor.ca import certificates
from tests.ca.authorities import openssl_is_there, verifies
from tests.cluster.datacenter import Datacenter, datacenter_in
from tests.cluster.servers import Server
from tests.patience import eventually, settles

ROOTS, CONFIGURATION = "/v1/connect/ca/roots", "/v1/connect/ca/configuration"


@pytest.fixture
def datacenter(tmp_path: Path) -> Iterator[Datacenter]:
    """A datacenter for one test."""
    with datacenter_in(tmp_path) as made:
        yield made


def roots(agent: Server) -> Any:
    """The roots, once there is an active one; where there is no leader just now, again."""

    def have() -> Any:
        status, _ = agent.ask("GET", ROOTS)
        found = agent.get(f"{ROOTS}?stale") if status == 200 else {}
        return found if found.get("ActiveRootID") else None

    return eventually(have, f"{agent.name} knows a root")


def leaf(agent: Server, service: str) -> Any:
    """A leaf; where nobody can sign just now, again."""

    def have() -> Any:
        status, _ = agent.ask("GET", f"/v1/agent/connect/ca/leaf/{service}")
        return agent.get(f"/v1/agent/connect/ca/leaf/{service}") if status == 200 else None

    return eventually(have, f"a certificate for {service}")


def configure(agent: Server, config: dict[str, Any]) -> None:
    """Configure the authority anew; where there is no leader just now, again."""
    body = {"Provider": "consul", "Config": config}
    eventually(lambda: agent.ask("PUT", CONFIGURATION, body)[0] == 200, "the configuration is taken")


def trusts(known: Any, signed: Any) -> bool:
    first, *between = certificates.split_chain(signed["CertPEM"])
    return verifies(first, [root["RootCert"] for root in known["Roots"]], between, at=time.time())


@pytest.mark.skipif(not openssl_is_there, reason="openssl is not on PATH")
def test_a_rotation_is_everywhere_and_outlives_its_leader_and_all_servers(datacenter: Datacenter) -> None:
    servers = datacenter.servers
    agent = datacenter.client("n1")
    first, web = roots(servers["a"]), leaf(agent, "web")
    for server in servers:
        assert roots(server) == first
    assert trusts(first, web)

    leader = servers.leader()
    follower = next(server for server in servers if server is not leader)
    configure(follower, {"PrivateKeyBits": 384})
    leader.kill()
    second = roots(follower)
    assert second["ActiveRootID"] != first["ActiveRootID"] and second["TrustDomain"] == first["TrustDomain"]
    settles(lambda: agent.get("/v1/agent/connect/ca/roots")["ActiveRootID"], second["ActiveRootID"], "the agent has it")
    db = leaf(agent, "db")
    assert trusts(second, db) and trusts(first, db), "also for those who have not heard of the new root"
    assert trusts(second, web)

    leader.start()
    for server in servers:
        server.kill()
    servers.start()
    for server in servers:
        assert roots(server) == second
    assert trusts(first, leaf(agent, "third"))


def test_a_snapshot_brings_the_root_back_that_was_there(datacenter: Datacenter) -> None:
    servers = datacenter.servers
    first = roots(servers["a"])
    status, saved = servers["b"].ask("GET", "/v1/snapshot")
    assert status == 200
    configure(servers["c"], {"PrivateKeyBits": 521})
    assert roots(servers["a"])["ActiveRootID"] != first["ActiveRootID"]
    eventually(lambda: servers["a"].ask("PUT", "/v1/snapshot", saved)[0] == 200, "the snapshot is restored")
    settles(lambda: roots(servers["c"])["ActiveRootID"], first["ActiveRootID"], "the former root is the active one")
    signed = leaf(servers["b"], "web")
    assert certificates.signed_by(signed["CertPEM"], first["Roots"][0]["RootCert"])


def test_nothing_secret_of_it_reaches_an_agent_or_a_log(datacenter: Datacenter) -> None:
    agent = datacenter.client("n1")
    key = certificates.make_key()
    configure(agent, {"PrivateKey": key})
    roots(datacenter.servers["a"])
    body = {"Provider": "consul", "Config": {"PrivateKey": key, "RootCert": "x"}}
    status, refused = agent.ask("PUT", CONFIGURATION, body)
    assert status == 500
    shown = agent.ask("GET", CONFIGURATION)[1]
    secret = key.splitlines()[1]
    for text in (refused.decode(), shown.decode(), agent.log(), *(server.log() for server in datacenter.servers)):
        assert secret not in text and "PRIVATE KEY" not in text
    for file in agent.data.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes(), f"{file} holds the authority's key"
