"""The agent's own files: whole or not at all, private, and a bad one takes nothing else with it."""

import stat
from pathlib import Path

import pytest

from lictor.agent.checks.ttl import TtlState
from lictor.agent.persistence import AgentFiles, write_file
from lictor.agent.registration import CheckRegistration, ServiceRegistration, service_registrations
from lictor.model.check import Check
from lictor.model.service_definition import CheckDefinition, decode_service

FULL = {
    "Name": "web",
    "ID": "web/1 ü",
    "Port": 80,
    "Tags": ["a", "b"],
    "Meta": {"k": "v"},
    "Token": "secret",
    "Weights": {"Passing": 5, "Warning": 0},
    "EnableTagOverride": True,
    "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 1}},
    "Connect": {
        "SidecarService": {
            "Proxy": {
                "Config": {"a": {"b": [1, 2.5, None, True]}},
                "Upstreams": [{"DestinationName": "db", "LocalBindPort": 1234, "Config": {"x": 1}}],
                "Expose": {"Checks": True, "Paths": [{"Path": "/m", "ListenerPort": 2, "LocalPathPort": 3}]},
            }
        }
    },
    "Checks": [
        {"HTTP": "http://127.0.0.1/", "Interval": "10s", "Timeout": "1500ms", "Header": {"X-A": ["1", "2"]}},
        {"Args": ["sh", "-c", "true"], "Interval": "1m", "DeregisterCriticalServiceAfter": "90m"},
        {"H2PING": "127.0.0.1:1", "H2PingUseTLS": False, "Interval": "1s"},
    ],
}


def registrations() -> list[ServiceRegistration]:
    return service_registrations(decode_service(FULL), "n1", range(21000, 21010), ())


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    files = AgentFiles(tmp_path)
    for registration in registrations():
        files.save_service(registration)
        for check in registration.checks:
            files.save_check(check)
    state = TtlState("c1", "passing", "fine\n", 1234567890.5)
    files.save_ttl(state)
    again = AgentFiles(tmp_path)
    services = {r.service.id: r for r in again.services()}
    checks = {c.check.check_id: c for c in again.checks()}
    for registration in registrations():
        saved = services.pop(registration.service.id)
        assert (saved.service, saved.token, saved.sidecar_of) == (
            registration.service,
            registration.token,
            registration.sidecar_of,
        )
        for check in registration.checks:
            assert checks.pop(check.check.check_id) == check
    assert (services, checks) == ({}, {})
    assert again.ttl_states() == [state]


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    files = AgentFiles(tmp_path)
    files.node_id()
    files.save_service(registrations()[0])
    files.save_ttl(TtlState("c1", "passing", "", 1.0))
    files.save_tokens({"agent": "secret"})
    assert modes(tmp_path) == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*") if p.is_dir()} == {0o700}


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    files = AgentFiles(tmp_path)
    check = CheckRegistration(Check(check_id="c1"), CheckDefinition(id="c1", ttl=1.0))
    files.save_check(check)
    files.save_ttl(TtlState("c1", "passing", "", 1.0))
    files.save_service(registrations()[0])
    files.forget_check("c1")
    files.forget_check("never was")
    files.forget_service(registrations()[0].service.id)
    assert (files.services(), files.checks(), files.ttl_states()) == ([], [], [])


def test_a_file_that_cannot_be_read_is_passed_over_and_kept(tmp_path: Path) -> None:
    files = AgentFiles(tmp_path)
    files.save_service(registrations()[0])
    bad = tmp_path / "services" / "damaged"
    bad.write_bytes(b'{"service": {"ID": ')
    half = tmp_path / "services" / "abc.new"
    half.write_bytes(b"half")
    assert [r.service.id for r in files.services()] == [registrations()[0].service.id]
    assert bad.exists()


def test_the_node_id_is_made_once(tmp_path: Path) -> None:
    first = AgentFiles(tmp_path).node_id()
    assert AgentFiles(tmp_path).node_id() == first
    other = "11111111-2222-3333-4444-555555555555"
    assert AgentFiles(tmp_path).node_id(other) == other
    assert AgentFiles(tmp_path).node_id() == other
    (tmp_path / "node-id").write_bytes(b"\xff\xfe nonsense")
    assert AgentFiles(tmp_path).node_id() not in (first, other)


def test_tokens_come_back_and_a_bad_file_has_none(tmp_path: Path) -> None:
    files = AgentFiles(tmp_path)
    assert files.tokens() == {}
    files.save_tokens({"agent": "a"})
    assert AgentFiles(tmp_path).tokens() == {"agent": "a"}
    (tmp_path / "acl-tokens.json").write_text("[1]")
    assert AgentFiles(tmp_path).tokens() == {}


def test_without_a_folder_nothing_is_kept() -> None:
    files = AgentFiles(None)
    files.save_service(registrations()[0])
    files.save_ttl(TtlState("c1", "passing", "", 1.0))
    files.save_tokens({"agent": "a"})
    assert (files.services(), files.ttl_states(), files.tokens(), files.kept) == ([], [], {}, False)
    assert files.node_id("given") == "given"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    (tmp_path / "file.new").mkdir()
    with pytest.raises(OSError):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
