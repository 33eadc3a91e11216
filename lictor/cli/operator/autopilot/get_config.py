"""`lictor operator autopilot get-config`: how servers are looked after."""

from __future__ import annotations

import json

from lictor.cli import api
from lictor.cli.command import Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Display the current Autopilot configuration"

HELP = """\
Usage: lictor operator autopilot get-config [options]

  Prints the rules by which servers are looked after."""

PATH = "/v1/operator/autopilot/configuration"
FAILURE = "Error querying Autopilot configuration"


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("operator autopilot get-config", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Print every rule, one a line."""
    options = flags()
    options.parse(args)
    client = api.connect(options, io)
    with api.failing(FAILURE):
        config = client.get(PATH).json()
    for name in ("CleanupDeadServers", "LastContactThreshold", "MaxTrailingLogs", "MinQuorum"):
        io.out(f"{name} = {_shown(config.get(name, 0))}")
    io.out(f"ServerStabilizationTime = {config['ServerStabilizationTime']}")
    io.out(f"RedundancyZoneTag = {json.dumps(config.get('RedundancyZoneTag', ''))}")
    io.out(f"DisableUpgradeMigration = {_shown(config.get('DisableUpgradeMigration', False))}")
    io.out(f"UpgradeVersionTag = {json.dumps(config.get('UpgradeVersionTag', ''))}")
    return 0


def _shown(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)
