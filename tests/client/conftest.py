"""An agent for the tests of this folder, and clients of it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from lictor.client import AsyncClient, Client, Options
from tests.agent.processes import Process
from tests.patience import PATIENCE

PATIENT = Options(timeout=PATIENCE, connect_timeout=PATIENCE)


@pytest.fixture(scope="package")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server, running, for all tests that do not harm it."""
    process = Process(tmp_path_factory.mktemp("agent"))
    try:
        process.start()
        yield process
    finally:
        process.close()


def address(agent: Process) -> str:
    """Where an agent is reached."""
    return f"127.0.0.1:{agent.ports['http']}"


@pytest.fixture
def client(agent: Process) -> Iterator[Client]:
    """A client for threads."""
    with Client(address(agent), options=PATIENT, environment={}) as client:
        yield client


@pytest.fixture
async def loop_client(agent: Process) -> AsyncIterator[AsyncClient]:
    """A client for event loops."""
    async with AsyncClient(address(agent), options=PATIENT, environment={}) as client:
        yield client
