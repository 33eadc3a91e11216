"""Every call of the npm package `consul`, made by node_consul.mjs against a running agent."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.programs import fetched, needed
from tests.contract.servers import NODE, Server
from tests.patience import PATIENCE

SCRIPT = Path(__file__).with_name("node_consul.mjs")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the package is installed."""
    needed("node", "Node.js 18 or newer")
    npm = needed("npm", "it comes with Node.js")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text("{}")
    fetched([npm, "install", "--no-audit", "--no-fund", "consul@2"], folder, "the npm package consul", 60)
    return folder


def test_every_call_of_the_package(either: Server, package: Path) -> None:
    """Each case of the script passes, and together they make every call that the package has."""
    node = needed("node", "Node.js 18 or newer")
    done = subprocess.run(
        [node, str(SCRIPT), str(package), str(either.ports["http"]), NODE],
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and outcomes, done.stderr
    assert outcomes[-1]["name"] == "every call is made"
    failed = {outcome["name"]: outcome["error"] for outcome in outcomes if outcome["error"]}
    assert not failed, "\n\n".join(f"{name}: {error}" for name, error in failed.items())
