"""`lictor connect ca`: the mesh's certificate authority."""

SYNOPSIS = "Interact with the mesh's certificate authority"

HELP = """\
Usage: lictor connect ca <subcommand> [options]

  Shows and changes how the mesh's certificate authority is configured: who
  signs, with what key, and how long certificates live."""
