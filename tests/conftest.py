"""What holds for every test: agents put their lookup maps into a folder of the test run, not among the machine's; no
property fails for having been slow to look at; and a test of real processes that fails is run once more, and named.

Such tests share a machine that may stand still for seconds with whatever else runs there. One whose first run fails is
listed as RERUN at the end: it has found a race, in itself or in the product, that is to be looked into. One that fails
again fails.

Whole files are handed out to several processes (`make tests`), each of which takes the next when it is done with one.
So what takes longest comes first, and what is short last: none is left with a long file when the others have ended.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

REAL_PROCESSES = (
    "tests/agent/test_",
    "tests/cli/",
    "tests/clients/",
    "tests/client/",
    "tests/ca/",
    "tests/cluster/",
    "tests/connect_proxy/",
    "tests/contract/",
    "tests/gossip/",
    "tests/http/test_three_servers",
    "tests/jepsen/test_real",
    "tests/mesh/",
)

# Files that take half a minute or more, the longest first.
LONGEST = (
    "tests/jepsen/test_real_cluster.py",
    "tests/cluster/test_servers.py",
    "tests/mesh/test_vault.py",
    "tests/simulation/test_simulation.py",
    "tests/cluster/test_operator.py",
    "tests/cluster/test_client_agents.py",
    "tests/cluster/test_cut_off.py",
    "tests/cluster/test_identities.py",
    "tests/mesh/test_mesh.py",
    "tests/connect_proxy/envoy/test_envoys.py",
    "tests/agent/test_disk.py",
    "tests/cluster/test_client_faults.py",
    "tests/agent/test_process.py",
    "tests/agent/test_kill.py",
    "tests/gossip/test_agent_interop.py",
)

# Every program that a test starts would compile all of its modules again, where the environment has them not kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell has what it runs in the background ignore interrupts, and programs that tests interrupt would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of real processes their second run, and put long files first, then other real processes."""
    for item in items:
        if item.nodeid.startswith(REAL_PROCESSES):
            item.add_marker(pytest.mark.flaky(reruns=1))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """When a test's file has its turn; files with the same one stay in the order in which they were found."""
    file = item.nodeid.partition("::")[0]
    if file in LONGEST:
        return LONGEST.index(file)
    return len(LONGEST) + (not file.startswith(REAL_PROCESSES))


@pytest.fixture(scope="session", autouse=True)
def runtime_folder() -> Iterator[None]:
    """A runtime folder for this run and the processes that it starts."""
    before = os.environ.get("XDG_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="lictor-tests-", ignore_cleanup_errors=True) as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["XDG_RUNTIME_DIR"]
            else:
                os.environ["XDG_RUNTIME_DIR"] = before
