"""A look of `lictor check`: whether the other datacenters answer."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.checks import Finding, ok, warning

SECTION = "datacenters"
REMEDY = (
    "Its servers need to run, and to be reached from this datacenter's servers at their ports.server and\n"
    "ports.serf_wan; `lictor members -wan` shows them. A datacenter that is gone for good is forgotten with\n"
    "`lictor force-leave -wan <server>.<datacenter>`."
)


def datacenters(client: api.Client) -> list[Finding]:
    """What there is to say of each: nothing where this is the only one."""
    try:
        names = client.get("/v1/catalog/datacenters").json()
    except api.ApiError as error:
        return [warning(SECTION, "cannot be asked for", str(error))]
    return [_answers(client, name) for name in names[1:]]


def _answers(client: api.Client, name: str) -> Finding:
    try:
        leader = client.get("/v1/status/leader", {"dc": name}).json()
    except api.ApiError as error:
        return warning(SECTION, f"{name} does not answer: {error.body.strip()}", REMEDY)
    if not leader:
        return warning(SECTION, f"{name} answers, and has no leader", "See `lictor check` there.")
    return ok(SECTION, f"{name} answers, and is led by {leader}")
