"""Authorities and leaves for tests, and OpenSSL's judgement of them."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lictor.ca import certificates
from lictor.ca.builtin import BuiltinProvider
from lictor.ca.provider import Surroundings
from lictor.model.spiffe import ServiceId, SigningId, SpiffeId, trust_domain

CLUSTER = "11111111-2222-3333-4444-555555555555"
DOMAIN = trust_domain(CLUSTER)
WEB = ServiceId(DOMAIN, "dc1", "web")
NOW = 1_800_000_000.0
DAY = 86400.0

openssl_is_there = shutil.which("openssl") is not None


class Root(NamedTuple):
    """A root and its key."""

    root: str
    key: str


def make_root(kind: str = "ec", bits: int = 256, seconds: float = 3650 * DAY, now: float = NOW) -> Root:
    """A new root."""
    key, serial = certificates.make_key(kind, bits), random.getrandbits(63) | 1
    name = certificates.authority_name("pri", f"{serial:x}", DOMAIN)
    return Root(certificates.make_root(key, SigningId(DOMAIN), name, seconds, now, serial), key)


def make_leaf(root: Root, identity: SpiffeId = WEB, seconds: float = 3 * DAY, now: float = NOW) -> str:
    """A leaf with a key of its own."""
    request = certificates.make_request(certificates.make_key(), identity)
    return certificates.sign_leaf(root.root, root.key, request, identity, seconds, now, random.getrandbits(63) | 1)


async def here(function: Callable[..., Any], *args: Any) -> Any:
    """Do work at once."""
    return function(*args)


def around(clock: Callable[[], float] = lambda: NOW) -> Surroundings:
    """The surroundings of a provider."""
    return Surroundings(DOMAIN, "dc1", clock, random.SystemRandom().getrandbits, here)


def builtin(config: dict[str, Any], state: dict[str, Any] | None = None, now: float = NOW) -> BuiltinProvider:
    """A built-in provider, not open yet."""
    return BuiltinProvider(config, state or {}, around(lambda: now))


def verifies(leaf: str, roots: Sequence[str], between: Sequence[str] = (), at: float = NOW) -> bool:
    """Whether OpenSSL trusts a leaf, as a server's and as a client's, by these roots and with what it is sent."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"leaf": leaf, "roots": "".join(roots), "between": "".join(between)}
        for name, content in files.items():
            Path(folder, name).write_text(content)
        options = ["-attime", str(int(at)), "-x509_strict", "-CAfile", "roots"]
        if between:
            options += ["-untrusted", "between"]
        outcomes = [
            subprocess.run(
                ["openssl", "verify", *options, "-purpose", purpose, "leaf"],
                cwd=folder,
                capture_output=True,
                check=False,
            ).returncode
            for purpose in ("sslserver", "sslclient")
        ]
    assert len(set(outcomes)) == 1
    return outcomes[0] == 0
