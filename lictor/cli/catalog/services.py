"""`lictor catalog services`: the services of a datacenter or of one node."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import Io, at_most
from lictor.cli.table import columns
from lictor.cli.values import node_meta
from lictor.model.goflags import FlagSet

SYNOPSIS = "Lists all registered services in a datacenter"

HELP = """\
Usage: lictor catalog services [options]

  Prints the names of the services of a datacenter.

      $ lictor catalog services

  With their tags:

      $ lictor catalog services -tags

  Only those on one node, or on nodes with some metadata:

      $ lictor catalog services -node=web-1
      $ lictor catalog services -node-meta="rack=12\""""

GAP = " " * 6


def flags() -> FlagSet:
    """The HTTP API options, which services and how to print them."""
    flags = FlagSet("catalog services", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.string("node", "", "Only services on the node with this `id or name`.")
    flags.strings("node-meta", (), "Only services on nodes with this metadata, as `key=value`. May be repeated.")
    flags.bool("tags", False, "Print each service's tags beside it.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the services in order of their names, or say on stderr that there is none."""
    options = flags()
    at_most(options.parse(args), 0)
    meta = node_meta(options)
    client = api.connect(options, io)
    with api.failing("Error listing services"):
        if options["node"]:
            tags = on_node(client.get(f"/v1/catalog/node/{options['node']}", {"node-meta": meta}).json())
        else:
            tags = client.get("/v1/catalog/services", {"node-meta": meta}).json()
    if not tags:
        io.error("No services match the given query - try expanding your search.")
        return 0
    if options["tags"]:
        rows = ([name, ",".join(sorted(tags[name] or ()))] for name in sorted(tags))
        io.out(columns(rows, gap=GAP).rstrip())
    else:
        io.out("\n".join(sorted(tags)))
    return 0


def on_node(answer: dict[str, Any] | None) -> dict[str, list[str]]:
    """The services of a catalog node's answer, each with the tags of all its instances."""
    tags: dict[str, list[str]] = {}
    for instance in ((answer or {}).get("Services") or {}).values():
        known = tags.setdefault(instance["Service"], [])
        known += [tag for tag in instance.get("Tags") or () if tag not in known]
    return tags
