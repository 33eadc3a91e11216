"""`/v1/connect/ca`: the roots as they change, the configuration without its secrets, and a mesh that is turned off."""

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lictor.ca import certificates
from lictor.model.spiffe import ServiceId, SigningId
from tests.http.conftest import Door, open_agent
from tests.patience import soon

ROOTS, AGENT_ROOTS = "/v1/connect/ca/roots", "/v1/agent/connect/ca/roots"
CONFIGURATION = "/v1/connect/ca/configuration"


@pytest.fixture
async def mesh() -> AsyncIterator[Door]:
    """An agent whose authority is made."""
    async with open_agent() as door:
        await soon(lambda: len(door.agent.store.ca_roots), "a root")
        yield door


async def test_the_first_root(mesh: Door) -> None:
    found = await mesh.json(ROOTS)
    [root] = found["Roots"]
    said = certificates.read_certificate(root["RootCert"])
    assert found["ActiveRootID"] == root["ID"] == said.id
    assert found["TrustDomain"] == f"{root['ExternalTrustDomain']}.consul"
    assert (root["SerialNumber"], root["SigningKeyID"]) == (said.serial, said.signing_key_id)
    assert said.uris == (f"spiffe://{found['TrustDomain']}",)
    assert (root["Active"], root["IntermediateCerts"]) == (True, None)
    assert (root["PrivateKeyType"], root["PrivateKeyBits"]) == ("ec", 256)
    assert await mesh.json(AGENT_ROOTS) == found


async def test_roots_as_pem(mesh: Door) -> None:
    root = (await mesh.json(ROOTS))["Roots"][0]["RootCert"]
    status, headers, body = await mesh.get(f"{ROOTS}?pem=true")
    assert (status, headers["content-type"], body.decode()) == (200, "application/pem-certificate-chain", root)
    assert (await mesh.get(f"{ROOTS}?pem=x"))[0] == 400
    assert json.loads((await mesh.get(f"{ROOTS}?pem=false"))[2])["Roots"]


@pytest.mark.parametrize("path", [ROOTS, AGENT_ROOTS])
async def test_a_waiting_query_is_told_of_another_root(mesh: Door, path: str) -> None:
    _, headers, body = await mesh.get(path)
    waiting = asyncio.ensure_future(mesh.get(f"{path}?index={headers['x-consul-index']}&wait=100s"))
    assert (await mesh.put(CONFIGURATION, {"Provider": "consul", "Config": {"PrivateKeyBits": 384}}))[0] == 200
    status, later, changed = await waiting
    assert status == 200 and int(later["x-consul-index"]) > int(headers["x-consul-index"])
    before, after = json.loads(body), json.loads(changed)
    assert after["ActiveRootID"] != before["ActiveRootID"] and after["TrustDomain"] == before["TrustDomain"]
    assert [root["Active"] for root in after["Roots"]] == [False, True]
    [crossed] = after["Roots"][1]["IntermediateCerts"]
    assert certificates.signed_by(crossed, before["Roots"][0]["RootCert"])


async def test_the_configuration_is_shown_and_can_be_put_back(mesh: Door) -> None:
    found = await mesh.json(CONFIGURATION)
    assert found["Provider"] == "consul" and found["State"] is None and found["ForceWithoutCrossSigning"] is False
    assert found["Config"] == {
        "IntermediateCertTTL": "8760h",
        "LeafCertTTL": "72h",
        "RootCertTTL": "87600h",
        "RotationPeriod": "2160h",
    }
    assert (await mesh.put(CONFIGURATION, found))[0] == 200
    assert await mesh.json(CONFIGURATION) == found
    assert (await mesh.put(CONFIGURATION, {**found, "Config": {"LeafCertTTL": "24h"}}))[0] == 200
    status, body = await mesh.put(CONFIGURATION, found)
    assert status == 500 and b"could not atomically update" in body


async def test_a_key_that_no_provider_has_is_taken_and_told_in_the_log(
    mesh: Door, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"LeafCertTTL": "24h", "PrivateKeyTyp": "never-told"}
    assert (await mesh.put(CONFIGURATION, {"Provider": "consul", "Config": config}))[0] == 200
    assert (await mesh.json(CONFIGURATION))["Config"] == config
    assert 'unknown key "PrivateKeyTyp" (did you mean "PrivateKeyType"?)' in caplog.text
    assert "never-told" not in caplog.text


async def given_root(door: Door) -> tuple[str, str]:
    domain = (await door.json(ROOTS))["TrustDomain"]
    key, now = certificates.make_key(), door.agent.server.clock() if door.agent.server is not None else 0.0
    return key, certificates.make_root(key, SigningId(domain), "mine", 1e7, now, 5)


async def test_keys_are_in_no_answer_and_no_log(mesh: Door, caplog: pytest.LogCaptureFixture) -> None:
    key, root = await given_root(mesh)
    secret = key.splitlines()[1]
    config = {"PrivateKey": key, "RootCert": root}
    assert (await mesh.put(CONFIGURATION, {"Provider": "consul", "Config": config}))[0] == 200
    other = certificates.make_key()
    status, refusal = await mesh.put(
        CONFIGURATION, {"Provider": "consul", "Config": {"PrivateKey": other, "RootCert": root}}
    )
    assert status == 500 and b"not the certificate of PrivateKey" in refusal
    shown = [refusal.decode()]
    for path in (ROOTS, AGENT_ROOTS, CONFIGURATION, "/v1/agent/self", "/v1/agent/metrics"):
        shown.append((await mesh.get(path))[2].decode())
    assert root in json.loads(shown[3])["Config"]["RootCert"]
    for text in (*shown, caplog.text):
        assert secret not in text and other.splitlines()[1] not in text and "PRIVATE KEY" not in text
    again = json.loads(shown[3])
    assert (await mesh.put(CONFIGURATION, {**again, "Config": {**again["Config"], "LeafCertTTL": "24h"}}))[0] == 200
    assert len((await mesh.json(ROOTS))["Roots"]) == 2


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, b"Bad request: Request decode failed: EOF"),
        (b"{}", 500, b'could not initialize provider: unknown CA provider ""'),
        ({"Provider": "consul", "Config": [1]}, 400, b"Request decode failed"),
        ({"Provider": "consul", "Config": {"LeafCertTTL": "1m"}}, 500, b"leaf cert TTL must be greater or equal"),
        ({"Provider": "consul", "Config": {"Foo": (1 << 63) + 1}}, 400, b"more than 64 bits"),
        ({"Provider": "consul", "ModifyIndex": -1, "Config": {}}, 400, b"Request decode failed"),
        ({"Provider": 5}, 400, b"Request decode failed"),
    ],
)
async def test_bodies_that_are_refused(mesh: Door, body: Any, status: int, words: bytes) -> None:
    before = await mesh.json(CONFIGURATION)
    answered, text = await mesh.put(CONFIGURATION, body)
    assert answered == status and words in text
    assert await mesh.json(CONFIGURATION) == before


async def test_a_deep_configuration_is_refused(mesh: Door) -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    status, text = await mesh.put(CONFIGURATION, {"Provider": "consul", "Config": {"Deep": deep}})
    assert status == 400 and b"levels of nesting" in text


async def test_without_a_mesh_all_of_it_is_refused_in_consuls_words() -> None:
    async with open_agent("-hcl=connect { enabled = false }") as door:
        words = b"Connect must be enabled in order to use this endpoint"
        for path in (ROOTS, f"{ROOTS}?pem=true", AGENT_ROOTS, CONFIGURATION):
            status, _, body = await door.get(path)
            assert (status, body) == (500, words)
        assert await door.put(CONFIGURATION, {"Provider": "consul"}) == (500, words)


async def test_the_metrics_say_how_long_it_lasts(mesh: Door) -> None:
    gauges = {one["Name"]: one["Value"] for one in (await mesh.json("/v1/agent/metrics"))["Gauges"]}
    for name in ("consul.mesh.active-root-ca.expiry", "consul.mesh.active-signing-ca.expiry"):
        assert 3649 * 86400 < gauges[name] <= 3650 * 86400
    assert gauges["consul.connect.ca.healthy"] == 1


AWAY = """connect {
  ca_provider = "vault"
  ca_config {
    address = "http://127.0.0.1:1"
    token = "TOP-SECRET"
    root_pki_path = "r"
    intermediate_pki_path = "i"
  }
}"""


async def test_an_authority_that_cannot_be_made_is_told_of() -> None:
    async with open_agent(f"-hcl={AWAY}") as door:
        gauges = {one["Name"]: one["Value"] for one in (await door.json("/v1/agent/metrics"))["Gauges"]}
        assert gauges["consul.mesh.active-root-ca.expiry"] is None
        await soon(lambda: door.agent.leadership and door.agent.leadership.connect_ca.trouble, "trouble")
        assert "Vault" in (await door.json(CONFIGURATION))["State"]["Trouble"]
        for path in (CONFIGURATION, "/v1/agent/self"):
            assert b"TOP-SECRET" not in (await door.get(path))[2]


async def test_an_agent_signs_for_its_own_services(mesh: Door) -> None:
    root = (await mesh.json(ROOTS))["Roots"][0]
    identity = ServiceId((await mesh.json(ROOTS))["TrustDomain"], "dc1", "web")
    signed = await mesh.agent.sign_leaf(certificates.make_request(certificates.make_key(), identity))
    assert certificates.signed_by(signed.certificate, root["RootCert"]) and signed.root == root["ID"]


REVOKED = "/v1/connect/ca/revoked"


@pytest.mark.parametrize("path", [ROOTS, AGENT_ROOTS])
async def test_a_revoked_certificate_wakes_those_who_wait_for_the_roots(mesh: Door, path: str) -> None:
    _, headers, body = await mesh.get(path)
    assert "Revoked" not in json.loads(body)
    waiting = asyncio.ensure_future(mesh.get(f"{path}?index={headers['x-consul-index']}&wait=100s"))
    assert (await mesh.put(REVOKED, {"SerialNumber": "0A:01"}))[0] == 200
    status, later, changed = await waiting
    assert status == 200 and int(later["x-consul-index"]) > int(headers["x-consul-index"])
    assert json.loads(changed) == {**json.loads(body), "Revoked": ["0a:01"]}


async def test_a_certificate_is_revoked_by_hand_and_listed(mesh: Door) -> None:
    leaf = await mesh.json("/v1/agent/connect/ca/leaf/web")
    assert await mesh.json(REVOKED) == []
    for _ in range(2):
        assert (await mesh.put(REVOKED, {"CertPEM": leaf["CertPEM"]}))[0] == 200
    [found] = await mesh.json(REVOKED)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf["CertPEM"])).hexdigest()
    assert (found["SerialNumber"], found["Fingerprint"]) == (leaf["SerialNumber"], digest)
    assert (found["Service"], found["ValidBefore"]) == ("web", leaf["ValidBefore"])
    asked = {"Target": "db", "ClientCertURI": leaf["ServiceURI"]}
    plain = leaf["SerialNumber"].replace(":", "").upper()
    for serial, allowed in ((leaf["SerialNumber"], False), (plain, False), ("0b", True)):
        question = {**asked, "ClientCertSerial": serial}
        _, _, body = await mesh.call("POST", "/v1/agent/connect/authorize", json=question)
        assert json.loads(body)["Authorized"] is allowed


@pytest.mark.parametrize("body", [{}, {"SerialNumber": "x"}, {"CertPEM": "x"}, {"SerialNumber": "0a", "CertPEM": "x"}])
async def test_what_is_no_certificate_is_not_revoked(mesh: Door, body: dict[str, str]) -> None:
    assert (await mesh.put(REVOKED, body))[0] == 400
    root = (await mesh.json(ROOTS))["Roots"][0]["RootCert"]
    assert (await mesh.put(REVOKED, {"CertPEM": root}))[0] == 400
    assert await mesh.json(REVOKED) == []


async def test_a_deregistered_service_has_its_certificate_revoked_and_another_one_next_time(mesh: Door) -> None:
    assert (await mesh.put("/v1/agent/service/register", {"Name": "web", "Connect": {"SidecarService": {}}}))[0] == 200
    first = await mesh.json("/v1/agent/connect/ca/leaf/web")
    assert (await mesh.put("/v1/agent/service/deregister/web", None))[0] == 200
    await soon(lambda: len(mesh.agent.store.ca_revoked), "it is revoked")
    [found] = await mesh.json(REVOKED)
    assert (found["SerialNumber"], found["Service"]) == (first["SerialNumber"], "web")
    assert found["Node"] == mesh.agent.node_name
    assert (await mesh.put("/v1/agent/service/register", {"Name": "web"}))[0] == 200
    second = await mesh.json("/v1/agent/connect/ca/leaf/web")
    assert second["PrivateKeyPEM"] != first["PrivateKeyPEM"]
