"""How a client agent's end looks to the others, by signal and configuration: it has left, or it has failed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lictor.model.member import ALIVE, FAILED, LEFT
from tests.cluster.servers import ClientAgent, Server
from tests.gossip.agents import PROBING
from tests.patience import eventually, settles

STAY = ("-hcl", "leave_on_terminate = false skip_leave_on_interrupt = true")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that looks on."""
    made = Server(tmp_path_factory.mktemp("server"), "server", "-bootstrap-expect=1", *PROBING)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("number", "flags", "leaves"),
    [
        (signal.SIGTERM, (), True),
        (signal.SIGINT, (), True),
        (signal.SIGTERM, STAY, False),
        (signal.SIGINT, STAY, False),
    ],
    ids=["terminated", "interrupted", "terminated, to stay", "interrupted, to stay"],
)
def test_an_agent_that_is_told_to_end_leaves_unless_it_is_to_stay(
    server: Server, tmp_path: Path, number: int, flags: tuple[str, ...], leaves: bool
) -> None:
    name = f"{'leaver' if leaves else 'stayer'}-{tmp_path.name}"
    agent = ClientAgent(tmp_path, name, f"-retry-join={server.at('serf-lan')}", "-retry-interval=1s", *PROBING, *flags)
    try:
        agent.start()
        eventually(agent.leader, "it has found the server")
        agent.put("/v1/agent/service/register", {"Name": name, "Port": 80})
        eventually(lambda: server.get(f"/v1/health/service/{name}?passing"), "its service is healthy")
        assert agent.end(number) == 0
        settles(lambda: server.members().get(name), LEFT if leaves else FAILED, "how it has gone is seen")
        settles(lambda: server.get(f"/v1/health/service/{name}?passing"), [], "its service is not offered")
        if leaves:
            settles(lambda: server.get(f"/v1/catalog/service/{name}"), [], "what it had registered is gone")
        else:
            assert server.get(f"/v1/catalog/service/{name}"), "what it has registered waits for it"
        agent.start()
        settles(lambda: server.members().get(name), ALIVE, "it is back")
        eventually(lambda: server.get(f"/v1/health/service/{name}?passing"), "so is its service")
    finally:
        agent.close()
