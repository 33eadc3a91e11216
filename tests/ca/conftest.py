"""One real Vault for all tests of the provider."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.ca.vaults import Vault, real_vault


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Generator[Vault]:
    with real_vault(tmp_path_factory.mktemp("vault")) as vault:
        yield vault
