"""`lictor agent`: runs an agent in the foreground until it is told to stop."""

from __future__ import annotations

from lictor.cli.command import Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Runs a Lictor agent"

HELP = """\
Usage: lictor agent [options]

  Starts the agent and runs until an interrupt is received. With -dev it is a
  server on its own that keeps everything in memory: HTTP on 8500, DNS on 8600."""


def flags() -> FlagSet:
    """Every flag of the agent, from the table of configuration keys."""
    from lictor.agent.config import flag_set

    return flag_set()


def run(args: list[str], io: Io) -> int:
    """Load the configuration, run the agent. Returns when it has stopped."""
    from lictor.cli.agent_process import run_agent

    return run_agent(args, io)
