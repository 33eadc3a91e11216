"""What holds for every test: agents put their lookup maps into a folder of the test run, not among the machine's; no
property fails for having been slow to look at; and a test of real processes that fails is run once more, and named.

Such tests share a machine that may stand still for seconds with whatever else runs there. One whose first run fails is
listed as RERUN at the end: it has found a race, in itself or in the product, that is to be looked into. One that fails
again fails.
"""

import os
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

settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of real processes their second run."""
    for item in items:
        if item.nodeid.startswith(REAL_PROCESSES):
            item.add_marker(pytest.mark.flaky(reruns=1))


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
