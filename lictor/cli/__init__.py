"""The `lictor` command: the top floor, which talks to an agent over its HTTP API and prints what people read.

What lives here: `main` (the entry point), `commands` (the table of every verb), `command` (what a verb is given and
how it fails), `api` (the HTTP client with Consul's flags and environment), `table` (column output), and one module a
verb, in one package a family (`kv/get.py`, `operator/raft/list_peers.py`).

Every verb module has the same shape:

    SYNOPSIS   the line shown in the family's listing; the same text as in `commands.COMMANDS`
    HELP       the text of `-h`, without the options, which are appended from flags()
    flags()    the verb's FlagSet; `api.add_read_flags` or `api.add_flags` adds the HTTP API options
    run(args, io) -> int
               parses args with flags(), does the work, returns the exit code; raises `command.CommandError` (or lets
               an `api.ApiError` pass) for what it has to tell the user before exit code 1

A family (`kv`, `operator raft`) has only SYNOPSIS and HELP.

What may be imported: anything below, but lazily. `lictor kv get` must start fast, so modules on its path import only
the standard library and `lictor.model`'s small ones; aiohttp, cryptography and the agent are for the verbs that need
them.
"""
