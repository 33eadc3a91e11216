"""The reference's own command line drives a Lictor agent: every verb that talks to an agent, as people type them.

Takes part when LICTOR_REFERENCE_CONSUL names the reference's binary.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.contract import servers
from tests.contract.servers import NODE, NotAvailable, Server
from tests.patience import PATIENCE, eventually
from tests.ports import free_port


class Consul:
    """The reference's command with an agent's address. `close` ends what still runs."""

    def __init__(self, program: str, address: str) -> None:
        self.program = program
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("CONSUL_", "LICTOR_"))}
        self.env = {**clean, "CONSUL_HTTP_ADDR": address, "SHELL": "/bin/sh"}
        self._started: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """Run to the end with an expected exit code; gives what it wrote, to both streams."""
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(stdin, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise AssertionError(f"consul {' '.join(arguments)} did not end; it said:\n{output}") from None
        assert process.returncode == code, f"consul {' '.join(arguments)}: {process.returncode}\n{output}"
        return output

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start and leave running; what it writes to either stream is read from stdout."""
        process = subprocess.Popen(
            [self.program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.env,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """End every process that still runs, and what it has started."""
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def reference() -> str:
    """The reference's program; skips where there is none."""
    try:
        (program,) = servers.command("consul")
    except NotAvailable as error:
        pytest.skip(str(error))
    return program


@pytest.fixture
def consul(agent: Server) -> Iterator[Consul]:
    """The reference's command, talking to the Lictor agent."""
    command = Consul(reference(), f"127.0.0.1:{agent.ports['http']}")
    yield command
    command.close()


def test_kv_in_all_its_forms(consul: Consul, tmp_path: Path) -> None:
    assert consul("kv", "put", "app/one", "first") == "Success! Data written to: app/one\n"
    assert consul("kv", "put", "app/two", "-", stdin="second") == "Success! Data written to: app/two\n"
    (tmp_path / "value").write_bytes(b"third\n")
    consul("kv", "put", "-flags=42", "app/deep/three", f"@{tmp_path / 'value'}")
    consul("kv", "put", "-base64", "app/four", "Zm91cnRo")
    consul("kv", "put", "app/empty")
    assert consul("kv", "get", "app/one") == "first\n"
    assert consul("kv", "get", "-base64", "app/four") == "Zm91cnRo\n"
    detailed = consul("kv", "get", "-detailed", "app/deep/three")
    assert (
        "Flags            42" in detailed and "Session          -" in detailed and "Value            third" in detailed
    )
    recursed = consul("kv", "get", "-recurse", "app/")
    assert recursed.splitlines()[:4] == ["app/deep/three:third", "", "app/empty:", "app/four:fourth"]
    assert consul("kv", "get", "-keys", "app/").splitlines() == [
        "app/deep/",
        "app/empty",
        "app/four",
        "app/one",
        "app/two",
    ]
    assert consul("kv", "get", "-keys", "-separator=", "app/").splitlines()[0] == "app/deep/three"
    assert "No key exists at: app/none" in consul("kv", "get", "app/none", code=1)
    index = next(
        line.split()[1] for line in consul("kv", "get", "-detailed", "app/one").splitlines() if "ModifyIndex" in line
    )
    assert "CAS failed" in consul("kv", "put", "-cas", "-modify-index=1", "app/one", "no", code=1)
    consul("kv", "put", "-cas", f"-modify-index={index}", "app/one", "changed")
    exported = consul("kv", "export", "app/")
    assert [pair["key"] for pair in json.loads(exported)][:2] == ["app/deep/three", "app/empty"]
    assert "CAS failed" in consul("kv", "delete", "-cas", "-modify-index=1", "app/one", code=1)
    consul("kv", "delete", "app/one")
    consul("kv", "delete", "-recurse", "app/")
    assert consul("kv", "get", "-recurse", "app/") == ""
    imported = consul("kv", "import", "-", stdin=exported)
    assert "Imported: app/deep/three" in imported and consul("kv", "get", "app/one") == "changed\n"


def test_catalog_and_services(consul: Consul, tmp_path: Path) -> None:
    definition = tmp_path / "web.json"
    definition.write_text(json.dumps({"service": {"name": "web", "port": 80, "tags": ["v1"], "meta": {"team": "a"}}}))
    assert consul("services", "register", str(definition)) == "Registered service: web\n"
    consul("services", "register", "-name=api", "-id=api-1", "-port=81", "-tag=v2", "-meta=k=v", "-address=127.0.0.2")
    assert consul("catalog", "datacenters") == "dc1\n"
    eventually(lambda: "api" in consul("catalog", "services"), "the services are in the catalog")
    assert consul("catalog", "services").splitlines() == ["api", "consul", "web"]
    assert any(line.split() == ["api", "v2"] for line in consul("catalog", "services", "-tags").splitlines())
    assert consul("catalog", "nodes").splitlines()[0].split() == ["Node", "ID", "Address", "DC"]
    assert NODE in consul("catalog", "nodes", "-service=web", "-detailed", f"-near={NODE}")
    assert consul("catalog", "services", f"-node={NODE}") == "api\nconsul\nweb\n"
    assert consul("services", "deregister", "-id=api-1") == "Deregistered service: api-1\n"
    assert consul("services", "deregister", str(definition)) == "Deregistered service: web\n"


def test_two_contenders_take_the_lock_in_turn(consul: Consul, tmp_path: Path) -> None:
    held, go_on = tmp_path / "held", tmp_path / "go-on"
    first = consul.start(
        "lock", "jobs/one", f"touch {held}; while [ ! -e {go_on} ]; do sleep 0.05; done; echo first done"
    )
    eventually(held.exists, "the first holds the lock")
    second = consul.start("lock", "-child-exit-code", "jobs/one", f"test -e {go_on} && echo second done && exit 7")
    assert "timeout during lock acquisition" in consul("lock", "-try=300ms", "jobs/one", "true", code=1)
    assert second.poll() is None, "the second waits"
    go_on.touch()
    assert "first done" in first.communicate(timeout=PATIENCE)[0] and first.returncode == 0
    assert "second done" in second.communicate(timeout=PATIENCE)[0] and second.returncode == 2
    assert "several" in consul("lock", "-n=2", "jobs/several", "echo several")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-type=key", "-key=watched/a"], '"Key":"watched/a"'),
        (["-type=keyprefix", "-prefix=watched/"], '"Key":"watched/a"'),
        (["-type=services"], '"consul":'),
        (["-type=nodes"], f'"Node":"{NODE}"'),
        (["-type=service", "-service=consul"], '"Service":"consul"'),
        (["-type=service", "-service=consul", "-passingonly=true"], '"Status":"passing"'),
        (["-type=checks"], '"CheckID":"serfHealth"'),
        (["-type=checks", "-state=passing"], '"CheckID":"serfHealth"'),
        (["-type=event", "-name=watched"], '"Name":"watched"'),
    ],
    ids=lambda value: "-".join(value).replace("-type=", "") if isinstance(value, list) else "",
)
def test_watches_of_every_type(consul: Consul, arguments: list[str], expected: str, tmp_path: Path) -> None:
    consul("kv", "put", "watched/a", "b")
    consul("event", "-name=watched", "payload")
    shown = "".join(consul("watch", *arguments).split())
    assert expected in shown
    output = tmp_path / "handled"
    consul.start("watch", *arguments, f"cat >> {output}")
    eventually(lambda: output.exists() and expected in "".join(output.read_text().split()), "the handler was run")


def test_a_watch_runs_its_handler_at_every_change(consul: Consul, tmp_path: Path) -> None:
    output = tmp_path / "handled"
    consul("kv", "put", "followed", "0")
    consul.start("watch", "-type=key", "-key=followed", f"cat >> {output}; echo >> {output}")

    def handled(value: str) -> bool:
        return output.exists() and f'"Value":"{value}"' in output.read_text()

    for value in ("MQ==", "Mg=="):
        consul("kv", "put", "-base64", "followed", value)
        eventually(partial(handled, value), f"{value} is handled")


def test_events_and_remote_execution(consul: Consul) -> None:
    assert consul("event", "-name=deploy", "-service=consul", "1.2").startswith("Event ID: ")
    for wait in ("1s", "5s", "30s"):  # on a machine that stands still the node is given up
        output = consul("exec", f"-wait={wait}", "-wait-repl=200ms", f"-node={NODE}", "echo remotely $((40 + 2))")
        if "remotely 42" in output:
            break
    assert "remotely 42" in output and "1 / 1 node(s) completed / acknowledged" in output


def test_snapshot(consul: Consul, tmp_path: Path) -> None:
    archive = str(tmp_path / "backup.snap")
    consul("kv", "put", "kept", "yes")
    assert consul("snapshot", "save", archive).startswith("Saved and verified snapshot to index ")
    consul("kv", "delete", "kept")
    assert consul("snapshot", "restore", archive) == "Restored snapshot\n"
    assert eventually(lambda: consul("kv", "get", "kept"), "the pair is back") == "yes\n"
    Path(archive).write_bytes(Path(archive).read_bytes()[:-40])
    assert "Error" in consul("snapshot", "restore", archive, code=1)


def test_maintenance(consul: Consul) -> None:
    consul("services", "register", "-name=tended")
    assert consul("maint", "-enable", "-reason=disk").startswith("Node maintenance is now enabled")
    assert f"Name:   {NODE}" in consul("maint") and "disk" in consul("maint")
    consul("maint", "-disable")
    assert "enabled" in consul("maint", "-enable", "-service=tended", "-reason=upgrade")
    assert "upgrade" in consul("maint")
    consul("maint", "-disable", "-service=tended")
    assert consul("maint") == ""
    consul("services", "deregister", "-id=tended")


def test_members_info_and_membership(consul: Consul, agent: Server) -> None:
    header, row = consul("members").splitlines()
    assert header.split() == ["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Segment"]
    assert row.split()[:4] == [NODE, f"127.0.0.1:{agent.ports['serf-lan']}", "alive", "server"]
    assert "role=consul" in consul("members", "-detailed")
    assert f"{NODE}.dc1" in consul("members", "-wan")
    assert (
        f"{NODE}" in consul("members", "-status=alive", "-segment=") and consul("members", "-status=left", code=2) == ""
    )
    info = consul("info")
    for section in ("agent:", "consul:", "raft:", "runtime:", "serf_lan:", "serf_wan:"):
        assert section in info
    assert "leader = true" in info and "server = true" in info
    assert "Successfully joined cluster by contacting 1 nodes." in consul(
        "join", f"127.0.0.1:{agent.ports['serf-lan']}"
    )
    assert "Error joining" in consul("join", "127.0.0.1:1", code=1)
    assert "No node found with name 'nobody'" in consul("force-leave", "nobody", code=1)
    assert "Estimated" in consul("rtt", NODE, NODE)
    assert consul("reload") == "Configuration reload triggered\n"
    assert "keyring" in consul("keyring", "-list", code=1).lower()


def test_operator(consul: Consul, agent: Server) -> None:
    header, row = consul("operator", "raft", "list-peers").splitlines()
    assert header.split() == ["Node", "ID", "Address", "State", "Voter", "RaftProtocol"]
    assert row.split() == [NODE, agent.node_id, f"127.0.0.1:{agent.ports['server']}", "leader", "true", "3"]
    assert "was not found in the Raft configuration" in consul(
        "operator", "raft", "remove-peer", "-address=127.0.0.9:1", code=1
    )
    assert "CleanupDeadServers = true" in consul("operator", "autopilot", "get-config")
    assert consul("operator", "autopilot", "set-config", "-cleanup-dead-servers=false") == "Configuration updated!\n"
    assert "CleanupDeadServers = false" in consul("operator", "autopilot", "get-config")
    consul("operator", "autopilot", "set-config", "-cleanup-dead-servers=true", "-max-trailing-logs=300")
    assert "MaxTrailingLogs = 300" in consul("operator", "autopilot", "get-config")


def test_configuration_entries(consul: Consul, tmp_path: Path) -> None:
    entry = tmp_path / "entry.hcl"
    entry.write_text('Kind = "service-defaults"\nName = "web"\nProtocol = "http"\n')
    assert consul("config", "write", str(entry)) == "Config entry written: service-defaults/web\n"
    assert consul("config", "list", "-kind=service-defaults") == "web\n"
    shown = json.loads(consul("config", "read", "-kind=service-defaults", "-name=web"))
    assert (shown["Kind"], shown["Name"], shown["Protocol"]) == ("service-defaults", "web", "http")
    index = shown["ModifyIndex"]
    consul("config", "write", "-cas", f"-modify-index={index}", "-", stdin=entry.read_text())
    assert "Config entry not updated" in consul(
        "config", "write", "-cas", "-modify-index=1", "-", stdin=entry.read_text().replace("http", "grpc"), code=1
    )
    assert (
        consul("config", "delete", "-kind=service-defaults", "-name=web")
        == "Config entry deleted: service-defaults/web\n"
    )
    assert "not found" in consul("config", "read", "-kind=service-defaults", "-name=web", code=1)


def test_monitor_shows_what_happens(consul: Consul) -> None:
    monitor = consul.start("monitor", "-log-level=debug")
    assert monitor.stdout is not None
    consul("services", "register", "-name=watched-by-monitor")
    assert monitor.stdout.readline()
    consul("services", "deregister", "-id=watched-by-monitor")


def test_debug_collects_an_archive(consul: Consul, tmp_path: Path) -> None:
    output = tmp_path / "debug"
    said = consul(
        "debug", "-interval=5s", "-duration=10s", f"-output={output}", "-capture=agent", "-capture=host",
        "-capture=cluster", "-capture=metrics",
    )  # fmt: skip
    assert "Saved debug archive" in said and (tmp_path / "debug.tar.gz").exists()


def test_leave_ends_the_agent() -> None:
    program = reference()
    own = servers.start("lictor", "clients")
    consul = Consul(program, f"127.0.0.1:{own.ports['http']}")
    try:
        assert consul("leave") == "Graceful leave complete\n"
        assert own.process.wait(PATIENCE) == 0
        assert "Error" in consul("members", code=1)
    finally:
        consul.close()
        own.stop()


def test_nobody_listens() -> None:
    consul = Consul(reference(), f"127.0.0.1:{free_port()}")
    assert "connection refused" in consul("catalog", "nodes", code=1)
    consul.close()
