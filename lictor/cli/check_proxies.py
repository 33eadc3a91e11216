"""A look of `lictor check`: whether the proxies of the agent listen where they should."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lictor.cli import api
from lictor.cli.check_identities import SECTION
from lictor.cli.checks import Finding, warning

REMEDY = "See which program has it (`ss -ltnp`), and end that or have another port in the registration."


def proxies(client: api.Client) -> list[Finding]:
    """What there is to say of the proxies of an agent: nothing where they all listen, or it does not tell."""
    try:
        sidecars = client.get("/v1/agent/connect/proxies").json()
    except api.ApiError:
        return []
    return deaf(sidecars)


def deaf(sidecars: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """A warning for each address that a proxy cannot listen on."""
    return [
        warning(SECTION, f"the proxy {sidecar['ID']!r} cannot listen on {one['Address']}: {one['Reason']}", REMEDY)
        for sidecar in sidecars
        for one in sidecar.get("Deaf") or ()
    ]
