"""`lictor monitor`: shows an agent's log as it is written."""

from __future__ import annotations

from lictor.cli import api, child
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Stream logs from an agent"

HELP = """\
Usage: lictor monitor [options]

  Shows the log of the agent that is asked from now on, until interrupted. The
  level may be lower than the one that the agent itself logs at.

      $ lictor monitor -log-level=debug"""


def flags() -> FlagSet:
    """The HTTP API options, the level and the form of the log."""
    flags = FlagSet("monitor", HELP)
    api.client_flags(flags)
    flags.bool("log-json", False, "Show each message as JSON.")
    flags.string("log-level", "INFO", "Lowest level to show: trace, debug, info, warn or error.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Copy the log to stdout until the user interrupts, which is no failure, or the agent ends, which is."""
    options = flags()
    options.parse(args)
    client = api.connect(options, io)
    query = {"loglevel": options["log-level"], "logjson": "true" if options["log-json"] else None}
    started = False
    try:
        with child.attentive(), client.stream("/v1/agent/monitor", query) as pieces:
            started = True
            for piece in pieces:
                io.stdout.write(piece)
                io.stdout.flush()
    except KeyboardInterrupt:
        return 0
    except api.ApiError as error:
        if not started:
            raise CommandError(f"Error starting monitor: {error}", error.hint) from None
    io.out("\nThe log has ended: the agent has exited or crashed.")
    return 1
