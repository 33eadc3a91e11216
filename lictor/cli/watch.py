"""`lictor watch`: print the state of something once, or run a program each time it changes."""

from __future__ import annotations

import datetime
import json
import subprocess
import time
from typing import Any
from urllib.parse import unquote

from lictor.agent.watch import Change, Progress, WatchError, parse_plan
from lictor.cli import api, child
from lictor.cli.command import CommandError, Io
from lictor.model.duration import format_duration
from lictor.model.goflags import FALSE_WORDS, TRUE_WORDS, FlagSet

SYNOPSIS = "Watch for changes"

HELP = """\
Usage: lictor watch [options] [child...]

  Watches a view of the cluster. With a child command, the command is run
  whenever the view changes: it reads the new state as JSON on its standard
  input, and the index in CONSUL_INDEX (and LICTOR_INDEX). The watch goes on
  until the command fails or a signal comes. Without a child command, the
  present state is printed, and that is all.

  The type is required; other parameters depend on it:

    $ lictor watch -type=key -key=config/web ./reconfigure
    $ lictor watch -type=service -service=web -passingonly=true"""

NOT_HERE = frozenset({"connect_roots", "connect_leaf", "agent_service"})
"""Types of the agent's configuration that the command line leaves to it, as Consul's does."""

ANY_STATUS = frozenset(range(100, 600))


def flags() -> FlagSet:
    """The HTTP API options, the type, and what each type needs."""
    flags = FlagSet("watch", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string(
        "type", "", "What to watch: key, keyprefix, services, nodes, service, checks, or event. Always required."
    )
    flags.string("key", "", "The key to watch, for type 'key'.")
    flags.string("prefix", "", "The prefix of the keys to watch, for type 'keyprefix'.")
    flags.string("service", "", "The service to watch, for type 'service', and if wanted for type 'checks'.")
    flags.strings("tag", (), "A tag that the service must have, for type 'service'. May be given several times.")
    flags.string(
        "passingonly",
        "",
        "Whether only instances with passing checks count, for type 'service'. The default is false.",
        placeholder="[true|false]",
    )
    flags.string("state", "", "The state of the checks to watch, for type 'checks'. The default is any.")
    flags.string("name", "", "The name of the events to watch, for type 'event'. The default is every event.")
    flags.bool("shell", True, "Run the child command with a shell: the one that SHELL names, else /bin/sh.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print once, or watch until the child command fails (1) or a signal comes (0)."""
    options = flags()
    words = options.parse(args)
    kind = options["type"]
    if not kind:
        raise CommandError("Watch type must be specified", f"\n{options.help_text()}")
    if kind in NOT_HERE:
        raise CommandError(f"Type {kind} is not supported in the CLI tool")
    try:
        progress = Progress(parse_plan(parameters(options)))
    except WatchError as error:
        raise CommandError(str(error)) from None
    client = api.connect(options, io)
    client.get("/v1/agent/self")
    try:
        with child.interruptible():
            while True:
                change = _next(client, progress, io)
                if not words:
                    io.out(json.dumps(change.value, indent=4, ensure_ascii=False))
                    return 0
                trouble = _handle(child.arguments(words, options["shell"], io.env), change, io)
                if trouble:
                    io.error(trouble)
                    return 1
    except child.Interrupted:
        return 0


def parameters(options: FlagSet) -> dict[str, Any]:
    """The flags that were given, as the parameters of a watch."""
    values: dict[str, Any] = {
        name: options[name] for name in ("type", "key", "prefix", "service", "state", "name") if options[name]
    }
    if options["tag"]:
        values["tag"] = options["tag"]
    if options["stale"] and options["type"] != "event":
        values["stale"] = True
    passing = options["passingonly"]
    if passing:
        if passing not in TRUE_WORDS | FALSE_WORDS:
            raise CommandError(
                f'Failed to parse passingonly flag: strconv.ParseBool: parsing "{passing}": invalid syntax',
                "Use -passingonly=true or -passingonly=false.",
            )
        values["passingonly"] = passing in TRUE_WORDS
    return values


def _next(client: api.Client, progress: Progress, io: Io) -> Change:
    """Wait for the next change; failures are told on stderr and tried again."""
    while True:
        query: dict[str, list[str]] = {}
        for name, value in progress.query():
            query.setdefault(name, []).append(value)
        try:
            time.sleep(progress.pause())
            answer = client.call("GET", unquote(progress.plan.path), query, accept=ANY_STATUS)
            headers = {name: answer.headers.get(name, "") for name in ("X-Consul-Index", "X-Consul-ContentHash")}
            change = progress.absorb(answer.status, headers, answer.body)
            if change is not None:
                return change
        except (api.ApiError, WatchError) as error:
            delay = progress.failed()
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
            told = f"type={progress.plan.type} error={json.dumps(str(error))} retry={format_duration(delay)}"
            io.error(f"{stamp}Z [ERROR] watch: Watch errored: {told}")
            time.sleep(delay)


def _handle(argv: list[str], change: Change, io: Io) -> str | None:
    """Run the child command with a change; what went wrong, or None."""
    index = str(change.index)
    try:
        process = child.start(argv, io, {"CONSUL_INDEX": index, "LICTOR_INDEX": index}, subprocess.PIPE)
    except child.ChildError as error:
        return f"Error starting handler: {error}"
    try:
        process.communicate(change.payload())
    except BaseException:
        child.terminate(process)
        raise
    trouble = child.outcome(process.returncode)
    return f"Error executing handler: {trouble}" if trouble else None
