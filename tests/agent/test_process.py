"""The agent as a process: what its supervisor is told, what signals do, what a reload takes over."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.agent.processes import Process
from tests.patience import PATIENCE, eventually
from tests.ports import free_port


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Process]:
    """An agent whose configuration is `config.d`, not started."""
    (tmp_path / "config.d").mkdir()
    process = Process(tmp_path, f"-config-dir={tmp_path / 'config.d'}")
    yield process
    process.close()


def configure(agent: Process, **config: Any) -> None:
    """Write the agent's configuration file."""
    (agent.folder / "config.d" / "agent.json").write_text(json.dumps(config))


CHECK = {"id": "c", "name": "c", "ttl": "1h"}


def test_systemd_is_told_and_the_pid_file_comes_and_goes(agent: Process) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(agent.folder / "notify"))
        supervisor.settimeout(PATIENCE)
        pid_file = agent.folder / "pid"
        agent.environment = {"NOTIFY_SOCKET": str(agent.folder / "notify")}
        configure(agent, pid_file=str(pid_file))
        agent.start()
        assert supervisor.recv(100) == b"READY=1"
        assert agent.process is not None
        assert int(pid_file.read_text()) == agent.process.pid
        agent.put("/v1/agent/reload")
        assert supervisor.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert supervisor.recv(100) == b"READY=1"
        assert agent.end(signal.SIGTERM) == 0
        assert supervisor.recv(100) == b"STOPPING=1"
    assert not pid_file.exists()


def test_an_agent_that_cannot_start_leaves_anothers_pid_file(agent: Process) -> None:
    pid_file = agent.folder / "pid"
    pid_file.write_text("1\n")
    configure(agent, pid_file=str(pid_file))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", agent.ports["http"]))
        taken.listen()
        assert agent.spawn().wait(PATIENCE) == 1
    assert f"cannot listen on tcp://127.0.0.1:{agent.ports['http']}" in agent.log()
    assert "Traceback" not in agent.log()
    assert pid_file.read_text() == "1\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(agent: Process, number: int) -> None:
    agent.start()
    agent.put("/v1/kv/a", b"1")
    assert agent.end(number) == 0
    assert "Traceback" not in agent.log()


def test_leave_is_answered_before_it_ends(agent: Process) -> None:
    agent.start()
    assert agent.put("/v1/agent/leave") == b""
    assert agent.process is not None
    assert agent.process.wait(PATIENCE) == 0


def test_a_reload_takes_over_services_checks_and_the_log_level(agent: Process) -> None:
    """Checks keep their status; what came by the API stays; what left the file is gone."""
    configure(agent, services=[{"name": "web", "port": 1, "check": CHECK}, {"name": "old"}], log_level="info")
    agent.start()
    agent.put("/v1/agent/check/pass/c?note=fine")
    agent.put("/v1/agent/service/register", {"Name": "api"})
    agent.put("/v1/agent/check/register", {"Name": "api-check", "TTL": "1h", "ServiceID": "web", "Status": "passing"})
    configure(
        agent,
        services=[{"name": "web", "port": 2, "check": CHECK}, {"name": "new"}],
        checks=[{"id": "n", "name": "n", "ttl": "1h", "service_id": "new"}],
        log_level="debug",
    )
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    eventually(lambda: set(agent.get("/v1/agent/services")) == {"web", "api", "new"}, "the services are the file's")
    assert agent.get("/v1/agent/service/web")["Port"] == 2
    checks = agent.get("/v1/agent/checks")
    assert {i: c["Status"] for i, c in checks.items()} == {"c": "passing", "api-check": "passing", "n": "critical"}
    assert checks["c"]["Output"] == "fine"
    wanted = {"consul", "web", "api", "new"}
    eventually(lambda: set(agent.get("/v1/catalog/services")) == wanted, "the catalog has the file's services")
    assert "[DEBUG]" not in agent.log()
    agent.put("/v1/agent/check/fail/c")
    eventually(lambda: "[DEBUG]" in agent.log(), "debug lines in the log")


def test_a_reload_says_what_needs_a_restart(agent: Process) -> None:
    configure(agent, node_meta={"a": "1"})
    agent.start()
    configure(agent, node_meta={"a": "2"}, domain="other.")
    assert agent.put("/v1/agent/reload") == b"Reloaded; these keys need a restart to take effect: domain\n"
    assert agent.get("/v1/agent/self")["Meta"]["a"] == "2"
    eventually(lambda: agent.get("/v1/catalog/node/n1")["Node"]["Meta"]["a"] == "2", "the catalog has the new meta")
    assert agent.get("/v1/agent/self")["DebugConfig"]["DNSDomain"] == "consul."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"services": [{"name": "new"}], "datacentre": "x"}', 'did you mean "datacenter"?'),
        ('{"services": [{"name": "new"}', "agent.json"),
        ('{"services": [{"name": "new"}], "checks": [{"name": "c", "ttl": "1h", "service_id": "nope"}]}', "nope"),
        ('{"services": [{"name": "new"}], "watches": [{"type": "nonsense", "args": ["true"]}]}', "nonsense"),
        (
            '{"services": [{"name": "new"}], "checks": [{"name": "c", "args": ["true"], "interval": "1s"}]}',
            "Scripts are",
        ),
    ],
)
def test_a_broken_file_changes_nothing(agent: Process, text: str, reason: str) -> None:
    configure(agent, service={"name": "web"})
    agent.start()
    before = agent.get("/v1/agent/services"), agent.get("/v1/agent/checks")
    (agent.folder / "config.d" / "agent.json").write_text(text)
    status, answer = agent.ask("PUT", "/v1/agent/reload")
    assert status == 500
    assert reason in answer.decode()
    assert (agent.get("/v1/agent/services"), agent.get("/v1/agent/checks")) == before
    assert agent.process is not None
    os.kill(agent.process.pid, signal.SIGHUP)
    eventually(lambda: "reload failed, nothing was changed" in agent.log(), "the failure in the log")
    assert (agent.get("/v1/agent/services"), agent.get("/v1/agent/checks")) == before
    assert "Traceback" not in agent.log()


def test_entries_of_the_configuration_are_stored_once(agent: Process) -> None:
    first = {"kind": "service-defaults", "name": "web", "protocol": "http"}
    configure(agent, config_entries={"bootstrap": [first]})
    agent.start()
    entry = agent.get("/v1/config/service-defaults/web")
    assert entry["Protocol"] == "http"
    agent.put("/v1/config", {"Kind": "service-defaults", "Name": "web", "Protocol": "grpc"})
    agent.kill()
    agent.start()
    assert agent.get("/v1/config/service-defaults/web")["Protocol"] == "grpc", "what is there stays"
    agent.kill()
    configure(agent, config_entries={"bootstrap": [{**first, "protocl": "http"}]})
    assert agent.spawn().wait(PATIENCE) == 1
    assert "config_entries.bootstrap[0]: 1 error occurred:" in agent.log()


def test_watches_that_cannot_run_keep_a_reload_from_being_half_taken_over(agent: Process) -> None:
    agent.ports["http"] = -1
    configure(agent)
    process = agent.spawn()
    eventually(lambda: "agent ready" in agent.log(), "it is ready, without a door that tells so")
    watch = {"type": "services", "args": ["true"]}
    configure(agent, log_level="debug", services=[{"name": "new"}], watches=[watch])
    process.send_signal(signal.SIGHUP)
    eventually(lambda: "watches need an HTTP listener" in agent.log(), "why it is refused")
    assert "reload failed, nothing was changed" in agent.log()
    assert "[DEBUG]" not in agent.log()
    assert "Synced service: service=new" not in agent.log()
    configure(agent, services=[{"name": "new"}])
    process.send_signal(signal.SIGHUP)
    eventually(lambda: "Synced service: service=new" in agent.log(), "what can be taken over is")


def test_a_reload_shows_the_certificate_that_the_files_hold_now(agent: Process, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    agent.ports["https"] = free_port()
    make_certificate(folder)
    agent.start()

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", agent.ports["https"]), timeout=PATIENCE)

    with pytest.raises(ssl.SSLError):
        shown()
    assert "HTTPS refuses every caller" in agent.log()
    configure(agent, tls={"https": {"cert_file": f"{folder}/cert.pem", "key_file": f"{folder}/key.pem"}})
    agent.put("/v1/agent/reload")
    first = shown()
    assert first == (folder / "cert.pem").read_text()
    (folder / "cert.pem").write_text("nonsense")
    status, answer = agent.ask("PUT", "/v1/agent/reload")
    assert (status, shown()) == (500, first)
    assert f"the HTTPS certificate {folder}/cert.pem" in answer.decode()
    make_certificate(folder)
    agent.put("/v1/agent/reload")
    assert shown() == (folder / "cert.pem").read_text() != first


def make_certificate(folder: Path) -> None:
    """A new certificate and its key, as `cert.pem` and `key.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "n1")])
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, end)
    certificate = builder.sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(pem)


def test_a_changed_status_is_in_the_log(agent: Process) -> None:
    configure(agent, service={"name": "web", "check": CHECK}, log_level="info")
    agent.start()
    agent.put("/v1/agent/check/pass/c")
    eventually(
        lambda: "[INFO]  agent: Check is now passing: check=c service=web" in agent.log(), "the status in the log"
    )
    agent.put("/v1/agent/check/fail/c")
    eventually(
        lambda: "[WARN]  agent: Check is now critical: check=c service=web" in agent.log(), "the status in the log"
    )
