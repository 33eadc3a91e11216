"""The Go client of the API, in the program of go_api/, against a running agent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.programs import fetched, needed
from tests.contract.servers import NODE, Server
from tests.patience import PATIENCE

SOURCE = Path(__file__).with_name("go_api")
BUILD_SECONDS = 80.0


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built; Go's own cache keeps what was downloaded and compiled for the next time."""
    go = needed("go", "Go 1.23 or newer")
    folder = tmp_path_factory.mktemp("go") / "source"
    shutil.copytree(SOURCE, folder)
    fetched([go, "build", "-o", "../go_api", "."], folder, "the Go module of the API's client", BUILD_SECONDS)
    return folder.parent / "go_api"


def test_what_the_go_client_does(agent: Server, program: Path) -> None:
    """Key-values, transactions, locks, watches, catalog, health, registrations, events, queries and the operator's."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CONSUL_")}
    done = subprocess.run(
        [program, f"127.0.0.1:{agent.ports['http']}", NODE],
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
        env=environment,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(outcomes) > 20, done.stderr
    failed = {outcome["name"]: outcome["error"] for outcome in outcomes if outcome["error"]}
    assert not failed, "\n\n".join(f"{name}: {error}" for name, error in failed.items())
