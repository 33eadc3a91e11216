"""`lictor intention`: who may connect to whom."""

SYNOPSIS = "Interact with Connect service intentions"

HELP = """\
Usage: lictor intention <subcommand> [options] [args]

  Intentions say which services may connect to which, through the mesh.

  Let "web" connect to "db":

      $ lictor intention create web db

  Ask whether it may, and why:

      $ lictor intention check web db
      $ lictor intention explain web db

  What holds for connections to "db":

      $ lictor intention match db

  Each subcommand tells more with -h."""
