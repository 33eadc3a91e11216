"""`lictor reload`: makes an agent read its configuration again."""

from __future__ import annotations

from lictor.cli import api
from lictor.cli.command import Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Triggers the agent to reload configuration files"

HELP = """\
Usage: lictor reload [options]

  Makes the agent that is asked read its configuration files again, as the
  signal SIGHUP does. When they are wrong, the agent goes on with what it has,
  and this command says what is wrong."""


def flags() -> FlagSet:
    """The HTTP API options."""
    flags = FlagSet("reload", HELP)
    api.client_flags(flags)
    return flags


def run(args: list[str], io: Io) -> int:
    """Ask the agent to reload; 1 when it could not."""
    options = flags()
    options.parse(args)
    client = api.connect(options, io)
    with api.failing("Error reloading"):
        answer = client.put("/v1/agent/reload")
    io.out("Configuration reload triggered")
    told = answer.body.decode("utf-8", "replace").strip()
    if told:
        io.out(told)
    return 0
