"""The built-in proxy on one side and Envoy on the other, both ways."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connect_proxy.envoy.installed import ENVOY
from tests.connect_proxy.envoy.mesh import ENVIRONMENT, ROOT, Agent, Envoy, fetch, service
from tests.patience import PATIENCE, settles
from tests.ports import free_port

pytestmark = pytest.mark.skipif(not ENVOY, reason="envoy is not installed")


class BuiltIn:
    """`lictor connect proxy` for a service."""

    def __init__(self, folder: Path, agent: Agent, name: str) -> None:
        self._log = folder / f"proxy-{name}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lictor", "connect", "proxy", "-sidecar-for", name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, "CONSUL_HTTP_ADDR": agent.address},
                cwd=ROOT,
            )

    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


Proxy = type[Envoy] | type[BuiltIn]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent."""
    made = Agent(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(("of_client", "of_server"), [(Envoy, BuiltIn), (BuiltIn, Envoy)])
def test_one_proxy_talks_to_the_other_as_far_as_intentions_allow(
    agent: Agent, tmp_path: Path, of_client: Proxy, of_server: Proxy
) -> None:
    port = free_port()
    with service() as behind:
        agent.register("server", behind)
        agent.register("client", free_port(), {"server": port})
        proxies = [of_client(tmp_path, agent, "client"), of_server(tmp_path, agent, "server")]
        try:
            settles(lambda: fetch(port)[0], 200, "a request goes through")
            agent.intend("server", {"Name": "client", "Action": "deny"})
            settles(lambda: fetch(port)[0], 0, "an intention keeps it out")
            agent.intend("server", {"Name": "client", "Action": "allow"})
            settles(lambda: fetch(port)[0], 200, "and lets it in again")
        except BaseException:
            print(agent.log()[-5000:], *(one.log()[-5000:] for one in proxies), sep="\n----\n")
            raise
        finally:
            for one in proxies:
                one.close()
