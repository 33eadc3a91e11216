"""`lictor operator raft`: the members of the consensus."""

SYNOPSIS = "Provides cluster-level tools for operators of Raft"

HELP = """\
Usage: lictor operator raft <subcommand> [options]

  Shows and changes which servers take part in the consensus: to see who leads,
  to hand leadership over, and, when quorum must be regained, to remove a
  server that is gone for good."""
