"""`lictor operator autopilot health`: whether the servers are well, as an exit code and a table."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import Io
from lictor.cli.operator.autopilot.formats import as_json, format_flag, wants_json
from lictor.cli.table import columns
from lictor.model.goflags import FlagSet

SYNOPSIS = "Display the health of the servers as Autopilot sees it"

HELP = """\
Usage: lictor operator autopilot health [options]

  Prints whether each server is healthy and how many may still fail. The exit
  code is 2 when the cluster is not healthy, for the use of scripts."""

EXIT_UNHEALTHY = 2


def flags() -> FlagSet:
    """The HTTP API options and -format."""
    flags = FlagSet("operator autopilot health", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    format_flag(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the servers' health; 2 when the cluster is not healthy."""
    options = flags()
    options.parse(args)
    in_json = wants_json(options)
    client = api.connect(options, io)
    with api.failing("Error querying Autopilot health"):
        # An unhealthy cluster answers with 429, and the same body.
        health = client.get("/v1/operator/autopilot/health", accept=frozenset({200, 429})).json()
    if in_json:
        io.out(as_json(health))
    else:
        io.out(f"Healthy:            {'true' if health['Healthy'] else 'false'}")
        io.out(f"Failure Tolerance:  {health['FailureTolerance']}\n")
        io.out(columns(rows(health.get("Servers") or [])))
    return 0 if health["Healthy"] else EXIT_UNHEALTHY


def rows(servers: list[dict[str, Any]]) -> list[list[str]]:
    """One row a server."""
    table = [["Node", "ID", "Address", "Serf", "Healthy", "Voter", "Leader", "Last Contact", "Last Index"]]
    for server in servers:
        truths = ["true" if server[name] else "false" for name in ("Healthy", "Voter", "Leader")]
        contact, index = str(server.get("LastContact", "")), str(server.get("LastIndex", ""))
        table.append([server["Name"], server["ID"], server["Address"], server["SerfStatus"], *truths, contact, index])
    return table
