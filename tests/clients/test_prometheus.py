"""Prometheus finds its targets in the catalog with `consul_sd_configs`, and reads the agent's own metrics.

Debian's Prometheus is built without the discovery in Consul. There the discovery, which is Prometheus' own code, runs
in the program of go_prometheus/ and hands its targets to Prometheus in a file.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import fetched, needed, running
from tests.contract.servers import NODE, Server
from tests.patience import PATIENCE, eventually, settles
from tests.ports import free_port

INSTALL = "Debian's package prometheus"
SOURCE = Path(__file__).with_name("go_prometheus")
BUILD_SECONDS = 150.0
DISCOVERY = """
server: 127.0.0.1:{http}
tags: [scraped]
refresh_interval: 1s
"""
CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: services
    {discovery}
    relabel_configs:
      - {{source_labels: [__meta_consul_tags], regex: ".*,canary,.*", action: drop}}
      - {{source_labels: [__meta_consul_service], target_label: service}}
      - {{source_labels: [__meta_consul_service_id], target_label: id}}
      - {{source_labels: [__meta_consul_service_metadata_version], target_label: version}}
      - {{source_labels: [__meta_consul_node], target_label: node}}
      - {{source_labels: [__meta_consul_dc], target_label: dc}}
      - {{source_labels: [__meta_consul_tags], target_label: tags}}
      - {{source_labels: [__meta_consul_health], target_label: health}}
  - job_name: agent
    metrics_path: /v1/agent/metrics
    params: {{format: [prometheus]}}
    static_configs: [{{targets: ["127.0.0.1:{http}"]}}]
"""


class _Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"answered_total 1\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def target() -> Iterator[int]:
    """A server with a metric to scrape; yields its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metrics)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def register(agent: Server, identity: str, port: int, **more: Any) -> None:
    """Register a scraped service with the agent."""
    body = {"Name": "web", "ID": identity, "Address": "127.0.0.1", "Port": port, "Tags": ["scraped", "v1"], **more}
    answer = agent.api.put("/v1/agent/service/register", body)
    assert answer.status == 200, answer.text


@pytest.fixture(scope="module")
def discovery(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that discovers targets into a file; empty where Prometheus does so itself."""
    promtool = needed("promtool", INSTALL)
    folder = tmp_path_factory.mktemp("discovery")
    configuration = folder / "try.yml"
    configuration.write_text("scrape_configs: [{job_name: a, consul_sd_configs: [{server: '127.0.0.1:1'}]}]")
    tried = subprocess.run(
        [promtool, "check", "config", configuration], capture_output=True, timeout=PATIENCE, check=False
    )
    if tried.returncode == 0:
        return []
    go = needed("go", "Go 1.23 or newer; this Prometheus is built without consul_sd_configs")
    shutil.copytree(SOURCE, folder / "source")
    fetched(
        [go, "build", "-o", "../discover", "."], folder / "source", "Prometheus' module for discovery", BUILD_SECONDS
    )
    return [str(folder / "discover")]


@pytest.fixture
def prometheus(agent: Server, discovery: list[str], tmp_path: Path) -> Iterator[str]:
    """Prometheus with the agent as its source of targets; yields the address of its API."""
    program = needed("prometheus", INSTALL)
    (tmp_path / "discovery.yml").write_text(DISCOVERY.format(http=agent.ports["http"]))
    indented = DISCOVERY.format(http=agent.ports["http"]).strip().replace("\n", "\n        ")
    source = "file_sd_configs: [{files: [targets.json]}]" if discovery else f"consul_sd_configs:\n      - {indented}"
    (tmp_path / "prometheus.yml").write_text(CONFIGURATION.format(http=agent.ports["http"], discovery=source))
    port = free_port()
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    with contextlib.ExitStack() as programs:
        if discovery:
            (tmp_path / "discovery").mkdir()
            arguments = [*discovery, "../discovery.yml", "../targets.json"]
            programs.enter_context(running(arguments, tmp_path / "discovery"))
        log = programs.enter_context(running([*command, f"--web.listen-address=127.0.0.1:{port}"], tmp_path))
        address = f"http://127.0.0.1:{port}/api/v1"

        def ready() -> bool:
            try:
                return bool(ask(address, "/targets"))
            except OSError:
                return False

        try:
            eventually(ready, "Prometheus serves")
        except AssertionError as error:
            raise AssertionError(f"{error}; its log ends: {log.read_text()[-2000:]}") from None
        yield address


def ask(address: str, path: str) -> Any:
    """Prometheus' answer to a GET."""
    with urllib.request.urlopen(address + path, timeout=PATIENCE) as answer:
        return json.load(answer)["data"]


def targets(address: str, job: str) -> dict[str, Any]:
    """A job's active targets by their addresses."""
    found = ask(address, "/targets?state=active")["activeTargets"]
    return {t["labels"].get("id", t["labels"]["instance"]): t for t in found if t["labels"]["job"] == job}


def test_targets_come_and_go_with_their_registrations(agent: Server, prometheus: str) -> None:
    with target() as first, target() as second:
        register(agent, "web-1", first, Meta={"version": "1.2.3"})
        register(agent, "web-canary", second, Tags=["scraped", "canary"])
        register(agent, "web-unscraped", second, Tags=["v1"])

        def up(*identities: str) -> bool:
            found = targets(prometheus, "services")
            return found.keys() == set(identities) and all(t["health"] == "up" for t in found.values())

        eventually(lambda: up("web-1"), "the scraped service without the canary's tag is up")
        labels = targets(prometheus, "services")["web-1"]["labels"]
        expected = {
            "instance": f"127.0.0.1:{first}",
            "service": "web",
            "version": "1.2.3",
            "node": NODE,
            "dc": "dc1",
            "tags": ",scraped,v1,",
            "health": "passing",
        }
        assert {name: labels.get(name) for name in expected} == expected

        register(agent, "web-2", second)
        eventually(lambda: up("web-1", "web-2"), "a second instance appears")
        eventually(lambda: len(ask(prometheus, "/query?query=answered_total")["result"]) == 2, "both were scraped")
        assert agent.api.put("/v1/agent/service/deregister/web-1").status == 200
        eventually(lambda: up("web-2"), "the first instance disappears")
        for identity in ("web-2", "web-canary", "web-unscraped"):
            agent.api.put(f"/v1/agent/service/deregister/{identity}")


def test_the_agents_own_metrics_are_scraped(prometheus: str) -> None:
    def scraped() -> list[tuple[str, str]]:
        return [(found["health"], found["lastError"]) for found in targets(prometheus, "agent").values()]

    settles(scraped, [("up", "")], "the agent is scraped")


def test_promtool_finds_nothing_wrong_with_the_metrics(agent: Server) -> None:
    promtool = needed("promtool", INSTALL)
    agent.api.put("/v1/kv/metrics", "written")
    answer = agent.api.get("/v1/agent/metrics?format=prometheus")
    assert answer.status == 200
    done = subprocess.run(
        [promtool, "check", "metrics"], input=answer.body, capture_output=True, timeout=PATIENCE, check=False
    )
    # What it says of names that do not end in a unit is advice about names, and Consul's are what they are.
    assert done.returncode in (0, 3), done.stderr.decode()
    assert b"error while linting" not in done.stderr, done.stderr.decode()
    assert b"# TYPE " in answer.body
