"""`lictor operator autopilot set-config`: changes how servers are looked after."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.cli.operator.autopilot.get_config import FAILURE, PATH
from lictor.model.duration import format_duration
from lictor.model.goflags import FlagSet

SYNOPSIS = "Modify the current Autopilot configuration"

HELP = """\
Usage: lictor operator autopilot set-config [options]

  Changes those rules that are given as options, and no others.

      $ lictor operator autopilot set-config -cleanup-dead-servers=false"""

FIELDS = {
    "cleanup-dead-servers": "CleanupDeadServers",
    "disable-upgrade-migration": "DisableUpgradeMigration",
    "last-contact-threshold": "LastContactThreshold",
    "max-trailing-logs": "MaxTrailingLogs",
    "min-quorum": "MinQuorum",
    "redundancy-zone-tag": "RedundancyZoneTag",
    "server-stabilization-time": "ServerStabilizationTime",
    "upgrade-version-tag": "UpgradeVersionTag",
}
"""The configuration's field for each flag."""

DURATIONS = frozenset({"last-contact-threshold", "server-stabilization-time"})


def flags() -> FlagSet:
    """The HTTP API options and one flag a rule."""
    flags = FlagSet("operator autopilot set-config", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.bool("cleanup-dead-servers", False, "Remove dead servers.")
    flags.bool("disable-upgrade-migration", False, "Promote servers of a newer version like any others.")
    flags.duration("last-contact-threshold", 0, "How long a healthy server may be without contact to the leader.")
    flags.uint("max-trailing-logs", 0, "How many log entries a healthy server may be behind the leader.")
    flags.uint("min-quorum", 0, "How many servers must remain when dead ones are removed.")
    flags.string("redundancy-zone-tag", "", "Node meta key that holds a server's redundancy zone.")
    flags.duration("server-stabilization-time", 0, "How long a new server must be healthy before it may vote.")
    flags.string("upgrade-version-tag", "", "Node meta key that holds a server's version.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Write the rules with the given ones changed; 1 when somebody else changed them meanwhile."""
    options = flags()
    options.parse(args)
    client = api.connect(options, io)
    with api.failing(FAILURE):
        config = client.get(PATH).json()
    changed = {**config, **changes(options)}
    index = {"cas": str(config["ModifyIndex"]) if "ModifyIndex" in config else None}
    with api.failing("Error setting Autopilot configuration"):
        written = client.put(PATH, index, api.encode(changed)).json()
    if written is not True:
        raise CommandError("Configuration could not be atomically updated, please try again")
    io.out("Configuration updated!")
    return 0


def changes(options: FlagSet) -> dict[str, Any]:
    """The given flags as fields of the configuration."""
    return {
        field: format_duration(options[flag]) if flag in DURATIONS else options[flag]
        for flag, field in FIELDS.items()
        if options.given(flag)
    }
