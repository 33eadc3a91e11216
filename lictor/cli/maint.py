"""`lictor maint`: takes a node or one of its services out of service and back, or shows what is out."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Controls node or service maintenance mode"

HELP = """\
Usage: lictor maint [options]

  Puts the node of the agent that is asked into maintenance, or one service
  on it: it gets a critical check, so that it is no longer found by those who
  look for healthy instances. Maintenance lasts until it is disabled, also
  across restarts of the agent.

      $ lictor maint -enable -reason="new disks"
      $ lictor maint -enable -service=web-1
      $ lictor maint -disable

  Without options, prints what is in maintenance; nothing, when nothing is."""

NODE_CHECK = "_node_maintenance"
SERVICE_CHECK = "_service_maintenance:"


def flags() -> FlagSet:
    """The HTTP API options, what to do and to which service."""
    flags = FlagSet("maint", HELP)
    api.client_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("disable", False, "End maintenance.")
    flags.bool("enable", False, "Begin maintenance.")
    flags.string("reason", "", "Why. Shown with the check.")
    flags.string("service", "", "ID of the service, instead of the whole node.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Begin, end or show maintenance."""
    options = flags()
    options.parse(args)
    enable, disable, reason, service = (options[name] for name in ("enable", "disable", "reason", "service"))
    if enable and disable:
        raise CommandError("Only one of -enable or -disable may be provided")
    if reason and not enable:
        raise CommandError("Reason may only be provided with -enable")
    if service and not (enable or disable):
        raise CommandError("Service requires either -enable or -disable")
    client = api.connect(options, io)
    if not (enable or disable):
        return show(client, io)
    path = f"/v1/agent/service/maintenance/{service}" if service else "/v1/agent/maintenance"
    query = {"enable": "true" if enable else "false", "reason": reason if enable else None}
    with api.failing(f"Error {'enabling' if enable else 'disabling'} {'service' if service else 'node'} maintenance"):
        client.put(path, query)
    state = "enabled" if enable else "disabled"
    io.out(f'Service maintenance is now {state} for "{service}"' if service else f"Node maintenance is now {state}")
    return 0


def show(client: api.Client, io: Io) -> int:
    """Print the node and the services that are in maintenance."""
    node = client.get("/v1/agent/self").json()["Config"]["NodeName"]
    with api.failing("Error querying checks"):
        checks: dict[str, dict[str, Any]] = client.get("/v1/agent/checks").json()
    for check_id, check in sorted(checks.items()):
        if check_id == NODE_CHECK:
            io.out(f"Node:\n  Name:   {node}\n  Reason: {check['Notes']}\n")
        elif check_id.startswith(SERVICE_CHECK):
            io.out(f"Service:\n  ID:     {check['ServiceID']}\n  Reason: {check['Notes']}\n")
    return 0
