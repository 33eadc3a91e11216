"""`lictor services export`: lets peers and partitions use a service, by its `exported-services` config entry."""

from __future__ import annotations

import json
from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Export a service to other peers or partitions"

HELP = """\
Usage: lictor services export [options] -name <service> -consumer-peers <peers>

  Lets other clusters or partitions use a service. Those that may already use
  it go on to.

      $ lictor services export -name=web -consumer-peers=other-cluster"""

KIND = "exported-services"


def flags() -> FlagSet:
    """The HTTP API options, the service and its consumers."""
    flags = FlagSet("services export", HELP)
    api.client_flags(flags)
    api.tenancy_flags(flags)
    flags.string("name", "", "Name of the service.")
    flags.string("consumer-peers", "", "Peers that may use the service, separated by commas.")
    flags.string("consumer-partitions", "", "Partitions that may use the service, separated by commas.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Add the consumers to the entry; 1 when somebody else changed it meanwhile."""
    options = flags()
    options.parse(args)
    name = options["name"]
    if not name:
        raise CommandError("Missing the required -name flag")
    if not (options["consumer-peers"] or options["consumer-partitions"]):
        raise CommandError("Missing the required -consumer-peers flag")
    consumers = [{"Peer": peer} for peer in _names(options["consumer-peers"], "peer")]
    consumers += [{"Partition": partition} for partition in _names(options["consumer-partitions"], "partition")]
    client = api.connect(options, io)
    entry_name = options["partition"] or "default"
    with api.failing(f"Error reading config entry {KIND}/{entry_name}"):
        answer = client.get(f"/v1/config/{KIND}/{entry_name}", accept=frozenset({200, 404}))
    entry = answer.json() if answer.status == 200 else {"Kind": KIND, "Name": entry_name}
    add_consumers(entry, name, options["namespace"], consumers)
    with api.failing("Error writing config entry"):
        written = client.put("/v1/config", {"cas": str(entry.get("ModifyIndex", 0))}, api.encode(entry)).json()
    if written is not True:
        raise CommandError("Config entry was changed during update. Please try again")
    targets = [
        f"{what} {json.dumps(options[flag])}"
        for what, flag in (("peers", "consumer-peers"), ("partitions", "consumer-partitions"))
        if options[flag]
    ]
    io.out(f"Successfully exported service {json.dumps(name)} to {' and to '.join(targets)}")
    return 0


def add_consumers(entry: dict[str, Any], name: str, namespace: str, consumers: list[dict[str, str]]) -> None:
    """Let consumers use the service, beside those that the entry already names."""
    services = entry["Services"] = entry.get("Services") or []
    service = next((item for item in services if (item["Name"], item.get("Namespace", "")) == (name, namespace)), None)
    if service is None:
        service = {"Name": name, **({"Namespace": namespace} if namespace else {}), "Consumers": []}
        services.append(service)
    known = service["Consumers"] = service.get("Consumers") or []
    known += [consumer for consumer in consumers if not any(consumer.items() <= item.items() for item in known)]


def _names(text: str, what: str) -> list[str]:
    names = text.split(",") if text else []
    if "" in names:
        raise CommandError(f'Invalid {what} ""', "Names are separated by single commas: -consumer-peers=a,b")
    return names
