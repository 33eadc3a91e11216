"""Vaults for tests: a real one (OpenBao or HashiCorp's), where there is one, and what a provider needs around it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lictor.ca.certificates import make_key, make_request
from lictor.ca.provider import Surroundings
from lictor.ca.vault import VaultProvider
from lictor.model.spiffe import ServiceId, trust_domain
from tests.ca.vault_standin import VaultStandin
from tests.patience import Waiting
from tests.ports import free_port

DOMAIN = trust_domain("11111111-2222-3333-4444-555555555555")
WEB = ServiceId(DOMAIN, "dc1", "web")
HOUR = 3600.0
_UNSEAL_KEY = re.compile(r"^Unseal Key: (\S+)\n", re.MULTILINE)


def around(clock: Callable[[], float] = time.time, work: Any = asyncio.to_thread, domain: str = DOMAIN) -> Surroundings:
    """The surroundings of a provider."""
    return Surroundings(domain, "dc1", clock, random.SystemRandom().getrandbits, work)


async def at_once(function: Callable[..., Any], *args: Any) -> Any:
    """Do blocking work where it is asked for: on virtual time nothing else may run meanwhile."""
    return function(*args)


def web_request() -> str:
    """A request for a leaf of the service web."""
    return make_request(make_key(), WEB)


class Refused(Exception):
    """Vault does not do what an operator asked for."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Vault:
    """A Vault and mounts in it that nobody else uses. `standin` is None for a real one; `unseal_key` is that of one
    that the tests have started, which may be sealed and reaches what listens here, empty for another.
    """

    def __init__(self, address: str, token: str, standin: VaultStandin | None = None, unseal_key: str = "") -> None:
        self.address = address
        self.token = token
        self.standin = standin
        self.unseal_key = unseal_key
        self.mounts = f"lictor-{uuid.uuid4().hex[:12]}"

    @property
    def config(self) -> dict[str, Any]:
        """A provider's configuration."""
        return {
            "Address": self.address,
            "Token": self.token,
            "RootPKIPath": f"{self.mounts}/root",
            "IntermediatePKIPath": f"{self.mounts}/leaves/",
        }

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, namespace: str = "") -> dict[str, Any]:
        """What an operator asks of it. Raises `Refused`."""
        headers = {"X-Vault-Token": self.token} | ({"X-Vault-Namespace": namespace} if namespace else {})
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.address}/v1/{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode()) from None
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    def is_up(self) -> bool:
        """Whether it answers to its token."""
        try:
            self.ask("GET", "auth/token/lookup-self")
        except (OSError, Refused):
            return False
        return True

    def provider(self, state: dict[str, Any] | None = None, **other: Any) -> VaultProvider:
        """A provider that uses it; `other` are further keys of its configuration."""
        return VaultProvider(self.config | other, state or {}, around())


@contextmanager
def real_vault(folder: Path) -> Generator[Vault]:
    """The Vault that VAULT_ADDR and VAULT_TOKEN name, else a `bao` or `vault` of our own; skips where there is none."""
    address, token = os.environ.get("VAULT_ADDR", ""), os.environ.get("VAULT_TOKEN", "")
    if address and token:
        yield Vault(address, token)
        return
    program = shutil.which("bao") or shutil.which("vault")
    if program is None:
        pytest.skip("needs a real Vault: `bao` or `vault` on PATH, or VAULT_ADDR and VAULT_TOKEN")
    address, token = f"127.0.0.1:{free_port()}", uuid.uuid4().hex
    arguments = [
        program,
        "server",
        "-dev",
        "-dev-no-store-token",
        f"-dev-root-token-id={token}",
        f"-dev-listen-address={address}",
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (folder / "vault.log").open("wb") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd="/")
    try:
        vault = Vault(f"http://{address}", token)
        waiting = Waiting()
        while not (vault.is_up() and (told := _UNSEAL_KEY.search((folder / "vault.log").read_text()))):
            pause = waiting.pause()
            assert process.poll() is None and pause is not None, (folder / "vault.log").read_text()
            time.sleep(pause)
        vault.unseal_key = told[1]
        yield vault
    finally:
        process.terminate()
        process.wait()
