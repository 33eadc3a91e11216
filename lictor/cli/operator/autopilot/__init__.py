"""`lictor operator autopilot`: the automatic administration of servers."""

SYNOPSIS = "Provides tools for modifying Autopilot configuration"

HELP = """\
Usage: lictor operator autopilot <subcommand> [options]

  Shows and changes how servers are looked after: when a new one may vote and
  when a dead one is removed."""
