"""`lictor services`: the services of one agent."""

SYNOPSIS = "Interact with services"

HELP = """\
Usage: lictor services <subcommand> [options] [args]

  Works on the services of the agent that is asked. "lictor catalog" reads
  those of the whole datacenter.

      $ lictor services register web.json
      $ lictor services deregister -id=web

  Each subcommand tells more with -h."""
