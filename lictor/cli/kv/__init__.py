"""`lictor kv`: the key-value store from the command line."""

SYNOPSIS = "Interact with the key-value store"

HELP = """\
Usage: lictor kv <subcommand> [options] [args]

  Reads and writes the key-value store.

  Set the key "redis/config/connections" to 5, creating it if need be:

      $ lictor kv put redis/config/connections 5

  Read it back:

      $ lictor kv get redis/config/connections

  See everything that is known of it:

      $ lictor kv get -detailed redis/config/connections

  And remove it:

      $ lictor kv delete redis/config/connections

  Each subcommand tells more with -h."""
