"""`lictor catalog nodes`: the nodes of a datacenter."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import Io, at_most
from lictor.cli.table import columns
from lictor.cli.values import node_meta
from lictor.model.goflags import FlagSet

SYNOPSIS = "Lists all nodes in the given datacenter"

HELP = """\
Usage: lictor catalog nodes [options]

  Prints the nodes of a datacenter.

      $ lictor catalog nodes

  With their whole IDs, addresses and metadata:

      $ lictor catalog nodes -detailed

  Only those that have a service, or metadata:

      $ lictor catalog nodes -service=web
      $ lictor catalog nodes -node-meta="rack=12"

  Nearest to a node first:

      $ lictor catalog nodes -near=web-1"""

SHORT_ID = 8
"""Characters of a node's ID that are shown without -detailed."""


def flags() -> FlagSet:
    """The HTTP API options, which nodes and how to print them."""
    flags = FlagSet("catalog nodes", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("detailed", False, "Print whole IDs, tagged addresses and metadata.")
    flags.string("filter", "", "Expression that selects nodes.", placeholder="expression")
    flags.string("near", "", 'Order nodes by round trip time from this one; "_agent" is the agent\'s own.')
    flags.strings("node-meta", (), "Only nodes with this metadata, as `key=value`. May be given several times.")
    flags.string("service", "", "Only nodes that have an instance of this service.", placeholder="name")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print a table of nodes, or say on stderr that there is none."""
    options = flags()
    at_most(options.parse(args), 0)
    meta = node_meta(options)
    client = api.connect(options, io)
    query: api.Query = {"filter": options["filter"] or None, "near": options["near"] or None, "node-meta": meta}
    path = f"/v1/catalog/service/{options['service']}" if options["service"] else "/v1/catalog/nodes"
    with api.failing("Error listing nodes"):
        nodes = client.get(path, query).json()
    if not nodes:
        io.error("No nodes match the given query - try expanding your search.")
        return 0
    io.out(columns(detailed(nodes) if options["detailed"] else short(nodes)))
    return 0


def short(nodes: list[dict[str, Any]]) -> list[list[str]]:
    """Rows of name, beginning of the ID, address and datacenter."""
    rows = [["Node", "ID", "Address", "DC"]]
    rows += [[node["Node"], node["ID"][:SHORT_ID], node["Address"], node["Datacenter"]] for node in nodes]
    return rows


def detailed(nodes: list[dict[str, Any]]) -> list[list[str]]:
    """Rows that show the whole ID, all addresses and all metadata too."""
    rows = [["Node", "ID", "Address", "DC", "TaggedAddresses", "Meta"]]
    for node in nodes:
        addresses, meta = node.get("TaggedAddresses"), node.get("Meta", node.get("NodeMeta"))
        fixed = [node["Node"], node["ID"], node["Address"], node["Datacenter"]]
        rows.append([*fixed, listed(addresses), listed(meta)])
    return rows


def listed(mapping: dict[str, str] | None) -> str:
    """`a=1, b=2`, sorted by key."""
    return ", ".join(f"{key}={value}" for key, value in sorted((mapping or {}).items()))
