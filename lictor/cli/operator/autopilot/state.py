"""`lictor operator autopilot state`: the servers as autopilot sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lictor.cli import api
from lictor.cli.command import Io
from lictor.cli.operator.autopilot.formats import as_json, format_flag, wants_json
from lictor.model.goflags import FlagSet

SYNOPSIS = "Display the current Autopilot state"

HELP = """\
Usage: lictor operator autopilot state [options]

  Prints how many servers may fail, who leads, who votes, and the state of
  every server."""

SERVER = (
    ("Name", "Name"),
    ("Address", "Address"),
    ("Version", "Version"),
    ("Status", "Status"),
    ("Node Type", "NodeType"),
    ("Node Status", "NodeStatus"),
    ("Healthy", "Healthy"),
    ("Last Contact", "LastContact"),
    ("Last Term", "LastTerm"),
    ("Last Index", "LastIndex"),
)
"""What is shown of every server: label and field."""

SERVER_IF_SET = (
    ("Redundancy Zone", "RedundancyZone"),
    ("Upgrade Version", "UpgradeVersion"),
    ("Read Replica", "ReadReplica"),
)
"""What is shown of a server that has it."""


def flags() -> FlagSet:
    """The HTTP API options and -format."""
    flags = FlagSet("operator autopilot state", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    format_flag(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the state."""
    options = flags()
    options.parse(args)
    in_json = wants_json(options)
    client = api.connect(options, io)
    with api.failing("Error querying Autopilot state"):
        state = client.get("/v1/operator/autopilot/state").json()
    io.out(as_json(state) if in_json else "\n".join(lines(state)) + "\n")
    return 0


def lines(state: dict[str, Any]) -> Iterator[str]:
    """The state for people."""
    yield f"{'Healthy:':<30}{_shown(state['Healthy'])}"
    yield f"{'Failure Tolerance:':<30}{state['FailureTolerance']}"
    yield f"{'Optimistic Failure Tolerance:':<30}{state.get('OptimisticFailureTolerance', 0)}"
    yield f"{'Leader:':<30}{state['Leader']}"
    yield "Voters:"
    yield from (f"   {server}" for server in state.get("Voters") or ())
    if state.get("ReadReplicas"):
        yield "Read Replicas:"
        yield from (f"   {server}" for server in state["ReadReplicas"])
    if state.get("RedundancyZones"):
        yield "Redundancy Zones:"
        for name, zone in sorted(state["RedundancyZones"].items()):
            yield f"   {name}:"
            yield f"      Failure Tolerance: {zone['FailureTolerance']}"
            yield from _listed("      Voters:", zone.get("Voters"))
            yield from _listed("      Servers:", zone.get("Servers"))
    if state.get("Upgrade"):
        yield from _upgrade(state["Upgrade"])
    yield "Servers:"
    for server_id, server in sorted((state.get("Servers") or {}).items()):
        yield f"   {server_id}"
        yield from _server(server)


def _upgrade(upgrade: dict[str, Any]) -> Iterator[str]:
    yield "Upgrade:"
    yield f"   Status:         {upgrade['Status']}"
    yield f"   Target Version: {upgrade.get('TargetVersion', '')}"
    for label, version in (("Target Version", "TargetVersion"), ("Other Version", "OtherVersion")):
        for role, field in (("Voters", "Voters"), ("Non-Voters", "NonVoters"), ("ReadReplicas", "ReadReplicas")):
            if upgrade.get(version + field):
                yield from _listed(f"   {label} {role}:", upgrade[version + field])


def _listed(title: str, servers: list[str] | None) -> Iterator[str]:
    yield title
    indent = " " * (len(title) - len(title.lstrip()) + 3)
    yield from (f"{indent}{server}" for server in servers or ())


def _server(server: dict[str, Any]) -> Iterator[str]:
    shown = [*SERVER, *(pair for pair in SERVER_IF_SET if server.get(pair[1]))]
    for label, field in shown:
        yield f"      {label + ':':<17}{_shown(server.get(field, ''))}"
    if server.get("Meta"):
        yield "      Meta"
        yield from (f"         {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(server["Meta"].items()))


def _shown(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)
