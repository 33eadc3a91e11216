"""`lictor connect`: the mesh: its certificates, and the proxies that services talk through."""

SYNOPSIS = "Interact with the mesh"

HELP = """\
Usage: lictor connect <subcommand> [options]

  Runs proxies that give services an identity and mutual TLS, shows which run,
  and manages the certificate authority behind them."""
