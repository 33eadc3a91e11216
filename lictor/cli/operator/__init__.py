"""`lictor operator`: tools for those who run the cluster."""

SYNOPSIS = "Provides cluster-level tools for operators"

HELP = """\
Usage: lictor operator <subcommand> [options]

  Tools that work on the cluster as a whole. Used without care they can cause
  an outage and the loss of data. Requests are forwarded to the leader, so any
  agent can be asked; with ACLs a token with operator privileges is needed.

  Each subcommand tells more with -h."""
