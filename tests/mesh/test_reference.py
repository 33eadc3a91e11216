"""The reference's own proxy on this agent: it has its certificates from here, asks here who may connect, and speaks
with the proxies and programs of the mesh.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lictor.ca import certificates
from lictor.client import Client, Options
from tests.connect_proxy.envoy.mesh import Agent, fetch, service
from tests.connect_proxy.envoy.test_mixed import BuiltIn
from tests.mesh.test_native import answers
from tests.patience import PATIENCE, eventually, settles
from tests.ports import free_port

REFERENCE = os.environ.get("LICTOR_REFERENCE_CONSUL", "")

pytestmark = pytest.mark.skipif(not REFERENCE, reason="LICTOR_REFERENCE_CONSUL does not name the reference's binary")


class ReferenceProxy:
    """`consul connect proxy` for a service."""

    def __init__(self, folder: Path, agent: Agent, name: str) -> None:
        self._log = folder / f"reference-{name}.log"
        arguments = ["connect", "proxy", "-sidecar-for", name, "-http-addr", agent.address, "-log-level", "debug"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [REFERENCE, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent."""
    made = Agent(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(("of_client", "of_server"), [(BuiltIn, ReferenceProxy), (ReferenceProxy, BuiltIn)])
def test_it_speaks_with_the_built_in_proxy_as_far_as_intentions_allow(
    agent: Agent,
    tmp_path: Path,
    of_client: type[BuiltIn] | type[ReferenceProxy],
    of_server: type[BuiltIn] | type[ReferenceProxy],
) -> None:
    port = free_port()
    with service() as behind, ExitStack() as stack:
        agent.register("server", behind)
        agent.register("client", free_port(), {"server": port})
        proxies = [of_client(tmp_path, agent, "client"), of_server(tmp_path, agent, "server")]
        for one in proxies:
            stack.callback(one.close)
        try:
            settles(lambda: fetch(port)[0], 200, "a request goes through")
            agent.intend("server", {"Name": "client", "Action": "deny"})
            settles(lambda: fetch(port)[0], 0, "an intention keeps it out")
            agent.intend("server", {"Name": "client", "Action": "allow"})
            settles(lambda: fetch(port)[0], 200, "and lets it in again")
            first = agent.get("/v1/agent/connect/ca/leaf/server")["SerialNumber"]
            agent.put(
                "/v1/connect/ca/configuration",
                {"Provider": "consul", "Config": {"PrivateKey": certificates.make_key()}},
            )
            eventually(
                lambda: agent.get("/v1/agent/connect/ca/leaf/server")["SerialNumber"] != first, "a new certificate"
            )
            settles(lambda: fetch(port)[0], 200, "a request goes through with it")
        except BaseException:
            print(agent.log()[-5000:], *(one.log()[-5000:] for one in proxies), sep="\n----\n")
            raise


def test_a_program_calls_a_service_behind_it(agent: Agent, tmp_path: Path) -> None:
    options = Options(timeout=PATIENCE)
    with service() as behind, Client(agent.address, options=options, environment={}) as client, ExitStack() as stack:
        agent.register("server", behind)
        proxy = ReferenceProxy(tmp_path, agent, "server")
        stack.callback(proxy.close)
        try:
            eventually(lambda: answers(client), "the service answers")
            agent.intend("server", {"Name": "native", "Action": "deny"})
            eventually(lambda: not answers(client), "an intention keeps it out")
        except BaseException:
            print(agent.log()[-5000:], proxy.log()[-5000:], sep="\n----\n")
            raise
