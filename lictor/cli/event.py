"""`lictor event`: fires an event that nodes can act upon."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet
from lictor.model.regex import Regex, RegexError

SYNOPSIS = "Fire a new event"

HELP = """\
Usage: lictor event [options] [payload]

  Fires an event with a name and perhaps a payload, for every node of the
  datacenter or those that the filters name.

      $ lictor event -name=deploy -service=web 1609030"""


def flags() -> FlagSet:
    """The HTTP API options, the event's name and its filters."""
    flags = FlagSet("event", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string("name", "", "Name of the event.")
    flags.string("node", "", "Regular expression that the names of nodes must match.")
    flags.string("service", "", "Regular expression: only nodes with a service whose name matches.")
    flags.string("tag", "", "Regular expression that a tag of that service must match. Needs -service.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Fire the event and print its ID."""
    options = flags()
    rest = options.parse(args)
    usage = f"\n{options.help_text()}"
    if not options["name"]:
        raise CommandError("Event name must be specified", usage)
    if options["tag"] and not options["service"]:
        raise CommandError("Cannot provide tag filter without service filter.")
    for name in ("node", "service", "tag"):
        try:
            Regex(options[name])
        except RegexError as error:
            raise CommandError(f"Failed to compile {name} filter regexp: error parsing regexp: {error}") from None
    if len(rest) > 1:
        raise CommandError("Too many command line arguments.", usage)
    client = api.connect(options, io)
    filters = {name: options[name] or None for name in ("node", "service", "tag")}
    payload = rest[0].encode("utf-8", "surrogateescape") if rest else b""
    with api.failing("Error firing event"):
        event = client.put(f"/v1/event/fire/{options['name']}", filters, payload).json()
    io.out(f"Event ID: {event['ID']}")
    return 0
