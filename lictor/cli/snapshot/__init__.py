"""`lictor snapshot`: backups of the state of the servers."""

SYNOPSIS = "Saves, restores and inspects snapshots of server state"

HELP = """\
Usage: lictor snapshot <subcommand> [options] [args]

  Saves the whole state of the servers, at one moment, into a file; restores
  it; and looks into such a file. With ACLs a management token is needed.

      $ lictor snapshot save backup.snap
      $ lictor snapshot inspect backup.snap
      $ lictor snapshot restore backup.snap

  Each subcommand tells more with -h."""
