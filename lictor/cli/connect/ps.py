"""`lictor connect ps`: the sidecars of a node, and the processes that serve them."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import Io, at_most
from lictor.cli.table import columns
from lictor.model.goflags import FlagSet

SYNOPSIS = "Lists the proxies of an agent and how they fare"

HELP = """\
Usage: lictor connect ps [options]

  Prints the sidecars that are registered with an agent. Those that the agent
  has started itself are shown with their process; a sidecar whose proxy
  somebody else is to start has none. Health is that of the sidecar's own
  checks: a proxy that runs and does not listen is critical. A proxy that
  cannot listen on some of its addresses, since other programs have them, is
  shown as deaf to so many.

      $ lictor connect ps

  With why a proxy last ended, where it cannot listen, and where its output is:

      $ lictor connect ps -detailed"""

NONE = "-"


def flags() -> FlagSet:
    """The HTTP API options, and how much is shown."""
    flags = FlagSet("connect ps", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.bool("detailed", False, "Print why each last ended, where it cannot listen, and the file with its output.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the table, or say on stderr that there is no sidecar."""
    options = flags()
    at_most(options.parse(args), 0)
    with api.failing("Error listing proxies"):
        sidecars = api.connect(options, io).get("/v1/agent/connect/proxies").json()
    if not sidecars:
        io.error("No sidecars are registered with this agent: see connect.sidecar_service in a service's definition.")
        return 0
    io.out(columns(table(sidecars, detailed=options["detailed"])))
    return 0


def table(sidecars: list[dict[str, Any]], *, detailed: bool) -> list[list[str]]:
    """One row a sidecar, under a heading."""
    rows = [["ID", "Service", "Address", "Upstreams", "Health", "Proxy", "State", "PID", "For", "Restarts", "Memory"]]
    if detailed:
        rows[0] += ["Output", "Last ended", "Cannot listen on"]
    for sidecar in sidecars:
        process = sidecar["Process"] or {}
        host, deaf = sidecar["Address"], sidecar.get("Deaf") or []
        state = process.get("State", "not launched here")
        row = [
            sidecar["ID"],
            sidecar["Service"],
            f"[{host}]:{sidecar['Port']}" if ":" in host else f"{host}:{sidecar['Port']}",
            str(sidecar["Upstreams"]),
            sidecar["Status"],
            process.get("Kind", NONE),
            f"{state}, deaf to {len(deaf)}" if deaf else state,
            str(process.get("PID") or NONE),
            length(process["Seconds"]) if process else NONE,
            str(process["Restarts"]) if process else NONE,
            f"{process['Memory'] / 1e6:.0f} MB" if process.get("Memory") else NONE,
        ]
        if detailed:
            row += [process.get("Output") or NONE, process.get("Reason") or NONE]
            row.append("; ".join(f"{one['Address']} ({one['Reason']})" for one in deaf) or NONE)
        rows.append(row)
    return rows


def length(seconds: float) -> str:
    """A length of time in its two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
