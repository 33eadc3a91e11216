"""`/v1/agent/connect`: a service's certificate, and whether a connection may be let in."""

import asyncio
import re
from typing import Any

import pytest

from lictor.ca import certificates
from tests.http.conftest import Door
from tests.patience import PATIENCE, soon

LEAF = "/v1/agent/connect/ca/leaf"
BAD = "Bad request: "


async def authorize(door: Door, body: Any) -> tuple[int, Any]:
    options = {"data": body} if isinstance(body, bytes) else {"json": body}
    async with door.client.post(door.url("/v1/agent/connect/authorize"), **options) as response:
        return response.status, await (response.json() if response.status == 200 else response.text())


async def test_a_leaf_has_consuls_fields_and_belongs_to_the_roots(door: Door) -> None:
    status, headers, _ = await door.get(f"{LEAF}/web")
    assert status == 200 and headers["x-cache"] == "MISS"
    _, headers, _ = await door.get(f"{LEAF}/web")
    assert headers["x-cache"] == "HIT" and headers["age"] == "0"
    leaf = await door.json(f"{LEAF}/web")
    assert list(leaf) == [
        "SerialNumber",
        "CertPEM",
        "PrivateKeyPEM",
        "Service",
        "ServiceURI",
        "ValidAfter",
        "ValidBefore",
        "CreateIndex",
        "ModifyIndex",
    ]
    roots = await door.json("/v1/agent/connect/ca/roots")
    assert leaf["Service"] == "web"
    assert leaf["ServiceURI"] == f"spiffe://{roots['TrustDomain']}/ns/default/dc/dc1/svc/web"
    assert re.fullmatch(r"([0-9a-f]{2}:)*[0-9a-f]{2}", leaf["SerialNumber"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", leaf["ValidBefore"])
    assert int(headers["x-consul-index"]) == leaf["ModifyIndex"] >= leaf["CreateIndex"] > 0
    assert certificates.belongs_to(leaf["CertPEM"], leaf["PrivateKeyPEM"])
    assert certificates.signed_by(leaf["CertPEM"], roots["Roots"][0]["RootCert"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "URI must be either service or agent"),
        ("we/b", "SPIFFE ID is not in the expected format: spiffe://[^ ]*/svc/we/b"),
        ("web?dc=elsewhere", "No path to datacenter"),
    ],
)
async def test_a_leaf_that_cannot_be_is_refused_in_consuls_words(door: Door, name: str, words: str) -> None:
    await door.get(f"{LEAF}/other")
    status, _, body = await door.get(f"{LEAF}/{name}")
    assert status == 500 and re.fullmatch(words, body.decode())


async def test_a_leaf_is_waited_for_by_its_index_and_a_rotation_brings_it(door: Door) -> None:
    leaf = await door.json(f"{LEAF}/web")
    same = await door.json(f"{LEAF}/web?index={leaf['ModifyIndex']}&wait=10ms")
    assert same == leaf
    waiting = asyncio.ensure_future(door.json(f"{LEAF}/web?index={leaf['ModifyIndex']}&wait={PATIENCE:g}s"))
    key = certificates.make_key()
    status, answer = await door.put(
        "/v1/connect/ca/configuration", {"Provider": "consul", "Config": {"PrivateKey": key}}
    )
    assert status == 200, answer
    next_one = await waiting
    assert next_one["ModifyIndex"] > leaf["ModifyIndex"] and next_one["SerialNumber"] != leaf["SerialNumber"]
    roots = await door.json("/v1/agent/connect/ca/roots")
    active = next(root for root in roots["Roots"] if root["Active"])
    assert len(roots["Roots"]) == 2
    assert certificates.signed_by(next_one["CertPEM"], active["RootCert"])


async def test_whoever_waits_for_a_leaf_and_goes_away_costs_nothing_more(door: Door) -> None:
    leaf = await door.json(f"{LEAF}/web")
    waits = door.agent.leaves._waiting
    async with door.socket() as (_, writer):
        writer.write(f"GET {LEAF}/web?index={leaf['ModifyIndex']}&wait=10m HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await soon(lambda: waits.get("web"), "the request waits")
    await soon(lambda: not waits, "nobody waits")


async def test_a_connection_is_decided_by_intentions(door: Door) -> None:
    domain = (await door.json("/v1/agent/connect/ca/roots"))["TrustDomain"]
    web = {"Target": "db", "ClientCertURI": f"spiffe://{domain}/ns/default/dc/dc1/svc/web", "ClientCertSerial": "07"}
    assert await authorize(door, web) == (
        200,
        {"Authorized": True, "Reason": "Default behavior configured by ACLs"},
    )
    sources: list[Any] = [{"Name": "web", "Action": "deny"}, {"Name": "*", "Action": "allow"}]
    sources.append({"Name": "api", "Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]})
    await door.put("/v1/config", {"Kind": "service-defaults", "Name": "db", "Protocol": "http"})
    status, answer = await door.put("/v1/config", {"Kind": "service-intentions", "Name": "db", "Sources": sources})
    assert status == 200, answer
    assert await authorize(door, web) == (
        200,
        {
            "Authorized": False,
            "Reason": "Matched L4 intention: default/web => default/db (Precedence: 9, Action: DENY)",
        },
    )
    other = {**web, "ClientCertURI": web["ClientCertURI"].replace("svc/web", "svc/other")}
    assert (await authorize(door, other))[1]["Authorized"] is True
    api = {**web, "ClientCertURI": web["ClientCertURI"].replace("svc/web", "svc/api")}
    status, answer = await authorize(door, api)
    assert not answer["Authorized"] and answer["Reason"].startswith("Matched L7 intention: default/api => default/db")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "Request decode failed: EOF"),
        ({}, "Target service must be specified"),
        ({"Target": "db"}, "ClientCertURI not a valid Connect identifier"),
        ({"Target": "db", "ClientCertURI": "http://x"}, "ClientCertURI not a valid Connect identifier"),
        ({"Target": "db", "ClientCertURI": "spiffe://x.consul"}, "ClientCertURI not a valid Service identifier"),
        (
            {"Target": "db", "ClientCertURI": "spiffe://x.consul/agent/client/dc/dc1/id/n"},
            "ClientCertURI not a valid Service identifier",
        ),
    ],
)
async def test_what_cannot_be_decided_is_refused_in_consuls_words(door: Door, body: Any, words: str) -> None:
    assert await authorize(door, body) == (400, BAD + words)
