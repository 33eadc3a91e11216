"""`lictor check`: what it finds with agents, without one, and on disks and clocks that are not well."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from lictor.cli import api, checks
from lictor.cli.check import as_json, as_text
from lictor.cli.checks import AgentView, Finding, Result
from lictor.cli.command import Io
from lictor.model.goflags import FlagSet
from tests.cli.command_line import CommandLine, Outcome, here
from tests.contract.servers import Server
from tests.patience import eventually, settles

Usage = namedtuple("Usage", "total used free")


def results(findings: list[Finding]) -> list[Result]:
    return [finding.result for finding in findings]


def well(cli: CommandLine, *args: str) -> Outcome:
    """A check that finds nothing broken; where the machine stands still it may give an answer up."""
    shown: list[str] = []

    def found() -> Outcome | None:
        done = cli.run("check", *args)
        shown.append(done.out)
        return done if done.code == 0 else None

    try:
        outcome: Outcome = eventually(found, "all is well")
    finally:
        print(shown[-1])
    return outcome


def test_a_running_agent_is_found_well(cli: CommandLine, agent: Server) -> None:
    done = well(cli)
    assert f"✓ answers at 127.0.0.1:{agent.ports['http']}: server contract" in done.out
    assert "✓ has a leader" in done.out
    assert "✓ agrees with the agent's" in done.out
    assert f"✓ answers over UDP at 127.0.0.1:{agent.ports['dns']}" in done.out
    assert f"✓ answers over TCP at 127.0.0.1:{agent.ports['dns']}" in done.out
    assert "‼ is not used: the agent runs with -dev" in done.out
    assert "×" not in done.out


def test_the_same_for_programs(cli: CommandLine) -> None:
    done = well(cli, "-format=json")
    report = json.loads(done.out)
    assert report["success"] is True
    names = [category["categoryName"] for category in report["categories"]]
    assert names == ["agent", "addresses", "cluster", "mesh", "clock", "DNS", "disk"]
    assert {check["result"] for category in report["categories"] for check in category["checks"]} <= {
        "success",
        "warning",
    }


def test_no_agent_is_told_with_the_remedy() -> None:
    done = here("check", "-http-addr=127.0.0.1:1")
    assert done.code == 1
    assert done.out.startswith("agent\n-----\n× does not answer at 127.0.0.1:1\n    Get ")
    assert "Start one with `lictor agent`" in done.out
    assert done.out.endswith("Status check results are ×\n")


def test_configuration_is_judged_without_an_agent(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.hcl", tmp_path / "bad.hcl"
    good.write_text(f'data_dir = "{tmp_path}/data"\nbind_addr = "127.0.0.1"\n')
    bad.write_text('datacentre = "x"\n')
    assert f"✓ is valid: {good}" in here("check", "-http-addr=127.0.0.1:1", f"-config-file={good}").out
    told = here("check", "-http-addr=127.0.0.1:1", f"-config-file={bad}").out
    assert "× is not valid\n" in told
    assert "bad.hcl:1" in told


def test_ports_that_are_taken_are_found_before_an_agent_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = {"data_dir": str(tmp_path), "bind_addr": "127.0.0.1", "ports": {"http": port, "dns": -1}}
        (tmp_path / "a.json").write_text(json.dumps(config))
        told = here("check", "-http-addr=127.0.0.1:1", f"-config-dir={tmp_path}").out
    assert f"× HTTP cannot listen on tcp://127.0.0.1:{port}: address already in use\n    Another program has it" in told
    assert f"are free in {tmp_path}" in told


def test_wrong_arguments() -> None:
    assert here("check", "-format=xml").err.startswith("Unknown format: xml")
    assert here("check", "extra").code == 1


def test_a_dns_that_does_not_answer() -> None:
    findings = checks.dns("127.0.0.1:1", "consul")[:2]
    assert results(findings) == [Result.ERROR, Result.ERROR]
    assert "Is TCP port 1 open" in findings[1].remedy
    assert results(checks.dns("", "consul")) == [Result.WARNING]


@pytest.mark.parametrize(
    ("address", "result"),
    [
        ("10.1.2.3", Result.SUCCESS),
        ("127.0.0.1", Result.WARNING),
        ("8.8.8.8", Result.WARNING),
        ("0.0.0.0", Result.ERROR),
        ("node1", Result.ERROR),
    ],
)
def test_an_address_that_others_cannot_use_is_found(address: str, result: Result) -> None:
    assert results(checks.addresses(AgentView({"Member": {"Addr": address}}))) == [result]


def test_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(checks, "SYNC_WARNING_SECONDS", 1000.0)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**12, 0, 10**12))
    assert results(checks.disk(str(tmp_path), False)) == [Result.SUCCESS] * 3
    assert os.listdir(tmp_path) == []
    tmp_path.chmod(0o755)
    assert results(checks.disk(str(tmp_path), False))[1] is Result.WARNING
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**12, 0, 10**9))
    assert results(checks.disk(str(tmp_path), False))[0] is Result.WARNING
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**12, 0, 10**6))
    assert results(checks.disk(str(tmp_path), False))[0] is Result.ERROR
    monkeypatch.setattr(checks, "SYNC_WARNING_SECONDS", 0.0)
    assert results(checks.disk(str(tmp_path), False))[2] is Result.WARNING
    monkeypatch.setattr(checks, "SYNC_ERROR_SECONDS", 0.0)
    assert results(checks.disk(str(tmp_path), False))[2] is Result.ERROR
    assert results(checks.disk(str(tmp_path / "nope"), False)) == [Result.WARNING]
    assert checks.disk("", in_memory=False) == []


def test_a_clock_that_differs_is_found(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    options = FlagSet("check")
    api.client_flags(options)
    options.parse([f"-http-addr={cli.address}"])
    client = api.connect(options, Io(BytesIO(), BytesIO(), BytesIO(), {}))
    now = time.time
    for ahead, result in ((0, Result.SUCCESS), (10, Result.WARNING), (-10, Result.WARNING), (100, Result.ERROR)):
        monkeypatch.setattr("time.time", lambda ahead=ahead: now() + ahead)
        settles(lambda: results(checks.clock(client)), [result], f"a clock that is {ahead} s ahead")


def test_a_cluster_without_a_leader_is_told_what_it_takes() -> None:
    told = {"/v1/status/leader": "", "/v1/status/peers": ["a", "b"], "/v1/agent/members": []}

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(told[self.path.partition("?")[0]]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Door) as door:
        thread = threading.Thread(target=door.serve_forever, daemon=True)
        thread.start()
        client = api.Client(api.parse_address(f"127.0.0.1:{door.server_port}"))
        leader, size, *_ = checks.cluster(client, AgentView({}))
        door.shutdown()
        thread.join()
    assert (leader.result, leader.text) == (Result.ERROR, "has no leader")
    assert "retry_join" in leader.remedy
    assert (size.result, size.text) == (Result.WARNING, "has 2 servers, and outlasts the loss of none")


def test_the_worst_finding_is_the_verdict() -> None:
    findings = [Finding("a", Result.SUCCESS, "fine"), Finding("b", Result.WARNING, "hm", "do\nthis")]
    assert as_text(findings) == "a\n-\n✓ fine\n\nb\n-\n‼ hm\n    do\n    this\n\nStatus check results are ‼"
    report: dict[str, Any] = json.loads(as_json(findings))
    assert report["categories"][1]["checks"] == [{"description": "hm", "result": "warning", "hint": "do\nthis"}]


def test_an_agent_that_says_nothing_of_itself_breaks_nothing() -> None:
    view = AgentView({})
    assert view.dns_address("h") == ""
    assert view.domain == "consul"
    assert results(checks.version(view)) == [Result.WARNING]
    assert AgentView({"DebugConfig": {"DNSAddrs": ["tcp://x:1", "udp://[::]:53"]}}).dns_address("h") == "h:53"
    assert AgentView({"DebugConfig": {"DNSPort": 8600}}).dns_address("h") == "h:8600"
