"""Identities on a client agent, as the servers come and go."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from lictor.ca import certificates
from tests.cluster.datacenter import Datacenter, datacenter_in
from tests.cluster.servers import IMPATIENT, Server
from tests.patience import eventually, settles

LEAF = "/v1/agent/connect/ca/leaf"
ROOTS = "/v1/agent/connect/ca/roots"


@pytest.fixture
def datacenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Datacenter]:
    """A datacenter for one test: its servers are stopped."""
    with datacenter_in(tmp_path_factory.mktemp("dc")) as made:
        yield made


def authorized(agent: Server, uri: str, target: str) -> bool:
    status, body = agent.ask("POST", "/v1/agent/connect/authorize", {"Target": target, "ClientCertURI": uri})
    assert status == 200, body
    return b'"Authorized":true' in body


def leaf(agent: Server, service: str) -> Any:
    """A leaf; where the authority is still being made, again."""

    def have() -> Any:
        status, _ = agent.ask("GET", f"{LEAF}/{service}")
        return agent.get(f"{LEAF}/{service}") if status == 200 else None

    return eventually(have, f"a certificate for {service}")


def test_identities_outlast_the_servers_and_the_agent(datacenter: Datacenter) -> None:
    agent = datacenter.client("n1", "-hcl", IMPATIENT)
    web = leaf(agent, "web")
    roots = agent.get(ROOTS)
    assert certificates.signed_by(web["CertPEM"], roots["Roots"][0]["RootCert"])
    agent.put("/v1/connect/intentions/exact?source=web&destination=db", {"Action": "deny"})
    eventually(lambda: not authorized(agent, web["ServiceURI"], "db"), "the intention decides")

    for server in datacenter.servers:
        server.kill()
    assert agent.get(f"{LEAF}/web") == web
    assert agent.get(ROOTS) == roots
    assert not authorized(agent, web["ServiceURI"], "db")
    status, body = agent.ask("GET", f"{LEAF}/another")
    assert status == 500, body

    agent.kill()
    agent.start()
    assert agent.get(f"{LEAF}/web") == web
    assert agent.get(ROOTS) == roots
    assert agent.ask("GET", f"{LEAF}/third")[0] == 500
    agent.logs("no certificates are signed at present")
    assert web["PrivateKeyPEM"].splitlines()[1] not in agent.log()

    datacenter.servers.start()
    another = leaf(agent, "another")
    assert certificates.signed_by(another["CertPEM"], roots["Roots"][0]["RootCert"])
    assert agent.get(f"{LEAF}/web") == web
    for server in datacenter.servers:
        assert web["PrivateKeyPEM"].splitlines()[1] not in server.log()


def _revoked(agent: Server) -> Any:
    return agent.get(ROOTS).get("Revoked")


def test_what_is_deregistered_while_the_servers_are_away_is_revoked_once_they_are_back(datacenter: Datacenter) -> None:
    agent = datacenter.client("n1", "-hcl", IMPATIENT)
    other = datacenter.client("n2", "-hcl", IMPATIENT)
    agent.put("/v1/agent/service/register", {"Name": "web"})
    web, db = leaf(agent, "web"), leaf(agent, "db")
    assert "Revoked" not in other.get(ROOTS)
    for server in datacenter.servers:
        server.kill()
    agent.put("/v1/agent/service/deregister/web")
    agent.kill()
    agent.start()
    assert agent.ask("GET", f"{LEAF}/web")[0] == 500, "its key is forgotten"
    datacenter.servers.start()
    for place in (agent, other):
        settles(partial(_revoked, place), [web["SerialNumber"]], "all agents know")
    question = {"Target": "db", "ClientCertURI": web["ServiceURI"], "ClientCertSerial": web["SerialNumber"]}
    assert b"revoked" in other.ask("POST", "/v1/agent/connect/authorize", question)[1]
    assert agent.get(f"{LEAF}/db") == db
    [row] = agent.get("/v1/connect/ca/revoked")
    assert (row["Service"], row["Node"]) == ("web", "n1")


def test_a_thousand_services_asked_for_at_once_all_get_theirs(datacenter: Datacenter) -> None:
    agent = datacenter.client("n1")
    leaf(agent, "web")
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda number: leaf(agent, f"s{number}")["Service"], range(1000)))
    assert found == [f"s{number}" for number in range(1000)]
    assert agent.get(f"{LEAF}/s7") == leaf(agent, "s7")
