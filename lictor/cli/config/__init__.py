"""`lictor config`: the centralized configuration entries."""

SYNOPSIS = "Interact with the centralized configuration entries"

HELP = """\
Usage: lictor config <subcommand> [options] [args]

  Reads and writes the configuration entries that the servers keep for all
  agents and proxies.

      $ lictor config write web.service-defaults.hcl
      $ lictor config read -kind service-defaults -name web
      $ lictor config list -kind service-defaults
      $ lictor config delete -kind service-defaults -name web

  Each subcommand tells more with -h."""
