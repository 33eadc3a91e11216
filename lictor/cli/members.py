"""`lictor members`: who the agent knows in its gossip pool."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.cli.table import columns
from lictor.model.goflags import FlagSet
from lictor.model.regex import Regex, RegexError

SYNOPSIS = "Lists the members of a cluster"

HELP = """\
Usage: lictor members [options]

  Prints the members of the cluster as the agent that is asked sees them:
  servers first, then clients. The exit code is 2 when none matches.

      $ lictor members
      $ lictor members -status=failed"""

ALL_SEGMENTS = "_all"
EXIT_NONE = 2

STATUS = ("none", "alive", "leaving", "left", "failed")
"""Words for the numbers of a member's status."""

ROLES = {"consul": "server", "node": "client"}
"""Words for the tag `role`."""


def flags() -> FlagSet:
    """The HTTP API options, which members and how to print them."""
    flags = FlagSet("members", HELP)
    api.client_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("detailed", False, "Print every tag of the members.")
    flags.string("filter", "", "Expression that selects members.", placeholder="expression")
    flags.string("segment", ALL_SEGMENTS, "Only members of this network segment.")
    flags.string("status", ".*", "Regular expression that the status must match: alive, leaving, left, failed.")
    flags.bool("wan", False, "The members of the pool between datacenters; the agent must be a server.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the table; 2 when no member matches."""
    options = flags()
    options.parse(args)
    try:
        wanted = Regex(options["status"])
    except RegexError as error:
        raise CommandError(f"Failed to compile status regexp: error parsing regexp: {error}") from None
    client = api.connect(options, io)
    query = {
        "segment": options["segment"] or None,
        "wan": "1" if options["wan"] else None,
        "filter": options["filter"] or None,
    }
    with api.failing("Error retrieving members"):
        members = client.get("/v1/agent/members", query).json()
    members = [member for member in members if wanted.search(status_of(member))]
    if not members:
        return EXIT_NONE
    for member in members:
        _show_segment(member["Tags"], options["segment"])
    members.sort(key=_rank)
    io.out(columns(detailed(members) if options["detailed"] else short(members)))
    return 0


def status_of(member: dict[str, Any]) -> str:
    """A member's status as a word."""
    number = member["Status"]
    return STATUS[number] if 0 <= number < len(STATUS) else f"unknown ({number})"


def _show_segment(tags: dict[str, str], asked: str) -> None:
    if asked == ALL_SEGMENTS and tags.get("role") == "consul":
        tags["segment"] = "<all>"
    elif not tags.get("segment"):
        tags["segment"] = "<default>"


def _rank(member: dict[str, Any]) -> tuple[bool, str, str]:
    tags = member["Tags"]
    return tags.get("role") != "consul", tags["segment"], member["Name"]


def _address(member: dict[str, Any]) -> str:
    """Host and port; the host alone for a server that has not told its port of gossip yet."""
    host = f"[{member['Addr']}]" if ":" in member["Addr"] else member["Addr"]
    return f"{host}:{member['Port']}" if member["Port"] else str(host)


def short(members: list[dict[str, Any]]) -> list[list[str]]:
    """Rows with what matters most; a member that is not of the cluster's kind has no more than name and status."""
    rows = [["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Partition", "Segment"]]
    for member in members:
        tags = member["Tags"]
        row = [member["Name"], _address(member), status_of(member), ROLES.get(tags.get("role", ""), "unknown")]
        if row[-1] != "unknown":
            build = tags.get("build", "").partition(":")[0] or "< 0.3"
            row += [build, tags.get("vsn", ""), tags.get("dc", ""), tags.get("ap") or "default", tags["segment"]]
        rows.append(row)
    return rows


def detailed(members: list[dict[str, Any]]) -> list[list[str]]:
    """Rows with every tag."""
    rows = [["Node", "Address", "Status", "Tags"]]
    for member in members:
        tags = ",".join(f"{name}={value}" for name, value in sorted(member["Tags"].items()))
        rows.append([member["Name"], _address(member), status_of(member), tags])
    return rows
