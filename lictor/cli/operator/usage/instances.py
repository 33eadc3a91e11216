"""`lictor operator usage instances`: how many services and instances are registered."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io, at_most
from lictor.cli.table import columns
from lictor.model.goflags import FlagSet

SYNOPSIS = "Display service instance usage information"

HELP = """\
Usage: lictor operator usage instances [options]

  Prints how many services and instances of them are registered, those that
  clients registered and those that make up the mesh.

      $ lictor operator usage instances
      $ lictor operator usage instances -all-datacenters"""

GAP = " " * 6


def flags() -> FlagSet:
    """The HTTP API options and what to count."""
    flags = FlagSet("operator usage instances", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.bool("all-datacenters", False, "Count in every datacenter.")
    flags.bool("billable", False, "Only what clients registered, without the mesh's own and without the servers.")
    flags.bool("connect", False, "Only the instances that make up the mesh.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the counts."""
    options = flags()
    at_most(options.parse(args), 0)
    if options["billable"] and options["connect"]:
        raise CommandError("Cannot specify both -billable and -connect flags")
    client = api.connect(options, io)
    everywhere = options["all-datacenters"]
    with api.failing("Error fetching usage information"):
        usage = client.get("/v1/operator/usage", {"global": "" if everywhere else None}).json()["Usage"]
    if not options["connect"]:
        counts = {datacenter: usage[datacenter].get("BillableServiceInstances", 0) for datacenter in sorted(usage)}
        io.out(f"Billable Service Instances Total: {sum(counts.values())}")
        for datacenter, count in counts.items():
            io.out(f"{datacenter} Billable Service Instances: {count}")
        io.out("\nBillable Services")
        io.out(columns(services(usage, everywhere), gap=GAP) + "\n")
    if not options["billable"]:
        io.out("Connect Services")
        io.out(columns(mesh(usage, everywhere), gap=GAP))
    return 0


def services(usage: dict[str, dict[str, Any]], everywhere: bool) -> list[list[str]]:
    """Rows of services and instances, by datacenter when all were asked for."""
    rows = [
        [datacenter, str(counts.get("Services", 0)), str(counts.get("BillableServiceInstances", 0))]
        for datacenter, counts in sorted(usage.items())
    ]
    if not everywhere:
        return [["Services", "Service instances"], *(row[1:] for row in rows)]
    totals = [str(sum(int(row[column]) for row in rows)) for column in (1, 2)]
    return [["Datacenter", "Services", "Service instances"], *rows, [""], ["Total", *totals]]


def mesh(usage: dict[str, dict[str, Any]], everywhere: bool) -> list[list[str]]:
    """Rows of the mesh's instances by kind, and by datacenter when all were asked for."""
    rows = [
        [datacenter, kind, str(count)]
        for datacenter, counts in sorted(usage.items())
        for kind, count in sorted((counts.get("ConnectServiceInstances") or {}).items())
    ]
    if not everywhere:
        return [["Type", "Service instances"], *(row[1:] for row in rows)]
    total = str(sum(int(row[2]) for row in rows))
    return [["Datacenter", "Type", "Service instances"], *rows, [""], ["Total", "", total]]
