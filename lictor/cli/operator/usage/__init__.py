"""`lictor operator usage`: how much is registered."""

SYNOPSIS = "Provides cluster-level usage information"

HELP = """\
Usage: lictor operator usage <subcommand> [options]

  Counts what the cluster is used for."""
