"""`lictor connect ca`: the configuration read, put back and changed, and another root made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lictor.cli import api
from tests.cli.command_line import CommandLine
from tests.contract.servers import Server
from tests.patience import eventually

# The reference takes no condition with a configuration, and makes no other root when told to.
pytestmark = pytest.mark.parametrize("agent", ["lictor"], indirect=True, scope="session")


@pytest.fixture
def roots(agent: Server) -> Any:
    """Gives the roots as they are; there is one by now."""
    client = api.Client(api.parse_address(f"127.0.0.1:{agent.ports['http']}"))

    def now() -> Any:
        return client.get("/v1/connect/ca/roots").json()

    eventually(lambda: now()["ActiveRootID"], "a root")
    return now


def test_the_configuration_is_read_put_back_and_changed(cli: CommandLine, roots: Any, tmp_path: Path) -> None:
    file, before = tmp_path / "ca.json", roots()
    done = cli.run("connect", "ca", "get-config")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["Provider"] == "consul" and found["Config"]["LeafCertTTL"]
    file.write_text(done.out)
    same = cli.run("connect", "ca", "set-config", "-config-file", str(file))
    assert (same.code, same.out) == (0, "Configuration updated!\n")
    assert roots() == before
    file.write_text(json.dumps({**found, "Config": {"LeafCertTTL": "50h"}}))
    assert cli.run("connect", "ca", "set-config", "-config-file", str(file)).code == 0
    assert json.loads(cli.run("connect", "ca", "get-config").out)["Config"] == {"LeafCertTTL": "50h"}
    late = cli.run("connect", "ca", "set-config", "-config-file", str(file))
    assert late.code == 1 and "could not atomically update" in late.err


def test_a_key_that_is_misspelt_is_kept_and_told(cli: CommandLine, tmp_path: Path) -> None:
    file, config = tmp_path / "ca.json", {"LeafCertTTL": "50h", "PrivateKeyTyp": "ec"}
    file.write_text(json.dumps({"Provider": "consul", "Config": config}))
    done = cli.run("connect", "ca", "set-config", "-config-file", str(file))
    assert (done.code, done.out) == (0, "Configuration updated!\n")
    assert done.err == 'warning: unknown key "PrivateKeyTyp" (did you mean "PrivateKeyType"?)\n'
    assert json.loads(cli.run("connect", "ca", "get-config").out)["Config"] == config


def test_a_certificate_is_revoked_and_listed(cli: CommandLine, agent: Server, roots: Any, tmp_path: Path) -> None:
    client = api.Client(api.parse_address(f"127.0.0.1:{agent.ports['http']}"))
    leaf = client.get("/v1/agent/connect/ca/leaf/stolen").json()
    file = tmp_path / "stolen.pem"
    file.write_text(leaf["CertPEM"])
    done = cli.run("connect", "ca", "revoke", "-cert", str(file))
    assert (done.code, done.out) == (0, "Revoked\n")
    assert cli.run("connect", "ca", "revoke", "0a:01").code == 0
    listed = cli.run("connect", "ca", "revoke").out
    assert f"{leaf['SerialNumber']}  stolen  -  {leaf['ValidBefore']}\n" in listed and "0a:01  -  -  " in listed
    assert {leaf["SerialNumber"], "0a:01"} <= set(roots()["Revoked"])


@pytest.mark.parametrize("words", [["x"], ["-cert", "/nowhere"], ["-cert", "a", "0a"], ["0a", "0b"]])
def test_what_is_no_certificate_is_not_revoked(cli: CommandLine, words: list[str]) -> None:
    assert cli.run("connect", "ca", "revoke", *words).code == 1


def test_another_root_is_made(cli: CommandLine, roots: Any) -> None:
    before = roots()
    done = cli.run("connect", "ca", "rotate")
    after = roots()
    assert (done.code, done.out) == (0, f"New root: {after['ActiveRootID']}\n")
    assert after["ActiveRootID"] != before["ActiveRootID"]
    assert before["ActiveRootID"] in {root["ID"] for root in after["Roots"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "Error reading config file: open"),
        ("x", "Error parsing config file"),
        ("[]", "Error parsing config file: expected an object"),
        ('{"Provider": "xx"}', 'could not initialize provider: unknown CA provider "xx"'),
    ],
)
def test_files_that_are_refused(cli: CommandLine, roots: Any, tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "ca.json"
    if content is not None:
        file.write_text(content)
    done = cli.run("connect", "ca", "set-config", "-config-file", str(file))
    assert done.code == 1 and words in done.err


def test_a_file_must_be_named(cli: CommandLine) -> None:
    done = cli.run("connect", "ca", "set-config")
    assert done.code == 1 and "The -config-file flag is required" in done.err
