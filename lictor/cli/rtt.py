"""`lictor rtt`: the round trip time between two nodes, estimated from their network coordinates."""

from __future__ import annotations

from typing import Any

import msgspec

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.model.coordinate import distance
from lictor.model.coordinate_entry import Coord
from lictor.model.goflags import FlagSet

SYNOPSIS = "Estimates network round trip time between nodes"

HELP = """\
Usage: lictor rtt [options] node1 [node2]

  Estimates the round trip time between two nodes from the coordinates that
  the members of the cluster keep of each other. Nothing is sent between the
  two. Without node2, the node of the agent that is asked takes its place.

  Node names are those of "lictor members". With -wan, servers of different
  datacenters are compared, and a name is node.datacenter ("myserver.dc1").
  LAN and WAN coordinates have nothing in common and cannot be mixed."""


def flags() -> FlagSet:
    """The HTTP API options, and -wan."""
    flags = FlagSet("rtt", HELP)
    api.client_flags(flags)
    flags.bool("wan", False, "Use the coordinates of the servers in all datacenters instead of those of this one.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the estimate; an unknown node is exit code 1."""
    options = flags()
    names = options.parse(args)
    if len(names) not in (1, 2):
        raise CommandError("One or two node names must be specified", f"\n{options.help_text()}")
    client = api.connect(options, io)
    wan = options["wan"]
    if len(names) == 1:
        with api.failing("Unable to look up agent info"):
            config = client.get("/v1/agent/self").json()["Config"]
        names.append(f"{config['NodeName']}.{config['Datacenter']}" if wan else config["NodeName"])
    if wan and not all("." in name for name in names):
        raise CommandError("Node names must be specified as <node name>.<datacenter> with -wan")
    with api.failing("Error getting coordinates"):
        groups = _wan_groups(client) if wan else _lan_groups(client)
    known = {name for group in groups.values() for name in group}
    for name in names:
        if name not in known:
            raise CommandError(f'Could not find a coordinate for node "{name}"')
    for group in groups.values():
        if names[0] in group and names[1] in group:
            milliseconds = distance(group[names[0]], group[names[1]]) * 1000
            kind = "WAN" if wan else "LAN"
            io.out(f"Estimated {names[0]} <-> {names[1]} rtt: {milliseconds:.3f} ms (using {kind} coordinates)")
            return 0
    raise CommandError(f'"{names[0]}" and "{names[1]}" have no coordinates in common: they are in different segments')


_Groups = dict[str, dict[str, Coord]]
"""Coordinates that can be compared with each other, by the name of their area or segment and by node."""


def _wan_groups(client: api.Client) -> _Groups:
    groups: _Groups = {}
    for datacenter in client.get("/v1/coordinate/datacenters").json() or []:
        group = groups.setdefault(datacenter.get("AreaID", ""), {})
        for entry in datacenter.get("Coordinates") or []:
            group[f"{entry['Node']}.{datacenter['Datacenter']}"] = _coord(entry)
    return groups


def _lan_groups(client: api.Client) -> _Groups:
    groups: _Groups = {}
    for entry in client.get("/v1/coordinate/nodes").json() or []:
        groups.setdefault(entry.get("Segment", ""), {})[entry["Node"]] = _coord(entry)
    return groups


def _coord(entry: dict[str, Any]) -> Coord:
    try:
        return msgspec.convert(entry.get("Coord"), Coord)
    except msgspec.ValidationError as error:
        raise CommandError(f'The coordinate of node "{entry.get("Node")}" cannot be read: {error}') from None
