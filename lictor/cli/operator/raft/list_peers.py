"""`lictor operator raft list-peers`: the servers that take part in the consensus."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import Io
from lictor.cli.table import columns
from lictor.model.goflags import FlagSet

SYNOPSIS = "Display the current Raft peer configuration"

HELP = """\
Usage: lictor operator raft list-peers [options]

  Prints the servers that take part in the consensus, which of them leads and
  how far the others are behind it."""

NOT_KNOWN = "_"


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("operator raft list-peers", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the table."""
    options = flags()
    options.parse(args)
    client = api.connect(options, io)
    with api.failing("Error getting peers: Failed to retrieve raft configuration"):
        servers = client.get("/v1/operator/raft/configuration").json()["Servers"]
    io.out(columns(rows(servers, last_indexes(client))))
    return 0


def last_indexes(client: api.Client) -> dict[str, int]:
    """Each server's last log index by its ID, as far as it is known: without a leader nobody knows."""
    # An unhealthy cluster answers with 429, and the same body.
    try:
        health = client.get("/v1/operator/autopilot/health", accept=frozenset({200, 429})).json()
    except api.ApiError:
        return {}
    return {server["ID"]: server["LastIndex"] for server in health.get("Servers") or ()}


def rows(servers: list[dict[str, Any]], indexes: dict[str, int]) -> list[list[str]]:
    """One row a server."""
    leading = next((indexes.get(server["ID"]) for server in servers if server["Leader"]), None)
    table = [["Node", "ID", "Address", "State", "Voter", "RaftProtocol", "Commit Index", "Trails Leader By"]]
    for server in servers:
        index = indexes.get(server["ID"])
        behind = None if server["Leader"] or index is None or leading is None else max(leading - index, 0)
        table.append(
            [
                server["Node"],
                server["ID"],
                server["Address"],
                "leader" if server["Leader"] else "follower",
                "true" if server["Voter"] else "false",
                server.get("ProtocolVersion") or "<=1",
                NOT_KNOWN if index is None else str(index),
                NOT_KNOWN if behind is None else f"{behind} Commit{'s' if behind > 1 else ''}",
            ]
        )
    return table
