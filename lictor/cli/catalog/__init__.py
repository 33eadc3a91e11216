"""`lictor catalog`: the datacenters, nodes and services that the servers know."""

SYNOPSIS = "Interact with the catalog"

HELP = """\
Usage: lictor catalog <subcommand> [options] [args]

  Reads the catalog: what is known in the whole datacenter. "lictor services"
  is about one agent.

      $ lictor catalog datacenters
      $ lictor catalog nodes
      $ lictor catalog services

  Each subcommand tells more with -h."""
