"""`lictor exec`: run a command on every node that a filter names, and show what each one says.

The protocol is Consul's, over the KV store and one event; `lictor.agent.remote_exec` describes it.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from lictor.cli import api, child
from lictor.cli.command import CommandError, Io
from lictor.cli.kv_lock import Session
from lictor.model.duration import to_nanoseconds
from lictor.model.goflags import FlagSet
from lictor.model.regex import Regex, RegexError

SYNOPSIS = "Executes a command on many nodes"

HELP = """\
Usage: lictor exec [options] [-|command...]

  Runs a command on the nodes of the cluster, all of them or those that the
  filters name, and shows their output and exit codes. With "-" in place of
  a command, standard input is read to its end and run as a script.

  Nodes take part only when their agents are configured with
  disable_remote_exec = false.

  The exit code is 2 when the command failed on some node."""

EVENT = "_rexec"
EXIT_FAILED_SOMEWHERE = 2
REMOTE_NAME = "Remote Exec"


def flags() -> FlagSet:
    """The HTTP API options, which nodes, what to run and how long to wait."""
    flags = FlagSet("exec", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string("node", "", "Regular expression that the names of nodes must match.")
    flags.string("service", "", "Regular expression: only nodes with a service whose name matches.")
    flags.string("tag", "", "Regular expression that a tag of that service must match. Needs -service.")
    flags.string("prefix", EVENT, "Prefix in the KV store for the command and its results.")
    flags.bool("shell", True, "Run the command with each node's shell.")
    flags.duration("wait", 2.0, "How long no node must have said anything before this command ends.")
    flags.duration("wait-repl", 0.2, "How long to wait, before the event, for the command to reach other servers.")
    flags.bool("verbose", False, "Tell each step.")
    return flags


class Progress:
    """What the nodes have said so far; pure, so that its output can be tested without nodes."""

    def __init__(self, prefix: str, verbose: bool) -> None:
        self._prefix = prefix
        self._verbose = verbose
        self._seen: set[str] = set()
        self.news = False
        self.acknowledged = 0
        self.exited = 0
        self.failed = 0

    def take(self, entries: dict[str, bytes]) -> list[str]:
        """Take the entries below the session's prefix, by key; the lines to show for those not seen before.

        Within one node, output comes before its exit code.
        """
        lines: list[str] = []
        news = [key for key in entries if key not in self._seen and key.startswith(self._prefix)]
        self.news = bool(news)
        for key in sorted(news, key=_order):
            self._seen.add(key)
            # A node's name may not hold a slash, so what follows the first one is ours.
            node, _, name = key[len(self._prefix) :].partition("/")
            lines += self._line(node, name, entries[key])
        return lines

    def _line(self, node: str, name: str, value: bytes) -> list[str]:
        if name == "ack":
            self.acknowledged += 1
            return [f"==> {node}: acknowledged"] if self._verbose else []
        if name == "exit":
            self.exited += 1
            code = value.decode("ascii", "replace")
            self.failed += code != "0"
            return [f"==> {node}: finished with exit code {code}"]
        if name.startswith("out/"):
            if not value:
                return [f"==> {node}: heartbeat received"] if self._verbose else []
            return [f"    {node}: {line}".rstrip() for line in value.decode("utf-8", "replace").split("\n")]
        return [f"==> {node}: unknown result {name!r}, ignored"]


def _order(key: str) -> tuple[str, bool, str]:
    node = key.rpartition("/out/")[0] or key.rpartition("/")[0]
    return node, key.endswith("/exit"), key


def run(args: list[str], io: Io) -> int:
    """Run the command everywhere: 0 when it succeeded on every node that answered, 2 when it failed on one."""
    options = flags()
    words = options.parse(args)
    job = _job(options, words, io)
    _check_filters(options)
    client = api.connect(options, io)

    def tell(text: str) -> None:
        if options["verbose"]:
            io.out(text)

    started = time.monotonic()
    with api.failing("Failed to query agent"):
        config = client.get("/v1/agent/self").json()["Config"]
    try:
        with child.interruptible():
            with api.failing("Failed to create session"):
                session = _session(client, config["Datacenter"])
            tell(f"Created remote execution session: {session.id}")
            prefix = f"{options['prefix'].strip('/')}/{session.id}/"
            try:
                progress = Progress(prefix, options["verbose"])
                _begin(client, options, prefix, session.id, job, tell)
                _follow(client, progress, prefix, options["wait"], io)
            finally:
                session.close()
                client.delete(f"/v1/kv/{prefix}", {"recurse": ""})
    except child.Interrupted:
        return 1
    io.out(f"{progress.exited} / {progress.acknowledged} node(s) completed / acknowledged")
    tell(f"Completed in {time.monotonic() - started:.2f} seconds")
    return EXIT_FAILED_SOMEWHERE if progress.failed else 0


def _job(options: FlagSet, words: list[str], io: Io) -> dict[str, Any]:
    """The job in its JSON form; raises CommandError when there is none."""
    job: dict[str, Any] = {"Wait": to_nanoseconds(options["wait"])}
    if words == ["-"]:
        script = io.stdin.read()
        if not script:
            raise CommandError("Failed to read stdin: it holds no script")
        return {"Script": base64.b64encode(script).decode(), **job}
    if not words or not " ".join(words).strip():
        raise CommandError("Must specify a command to execute", f"\n{options.help_text()}")
    return {"Command": " ".join(words), **job} if options["shell"] else {"Args": words, **job}


def _check_filters(options: FlagSet) -> None:
    if options["tag"] and not options["service"]:
        raise CommandError("Cannot provide tag filter without service filter.")
    for name in ("node", "service", "tag"):
        if options[name]:
            try:
                Regex(options[name])
            except RegexError as error:
                raise CommandError(f"Failed to compile {name} filter regexp: {error}") from None


def _session(client: api.Client, local: str) -> Session:
    """A session in the datacenter that is asked; elsewhere it must be tied to a healthy server of that datacenter."""
    datacenter = client.defaults.get("dc", local)
    if datacenter == local:
        return Session(client, REMOTE_NAME, "delete")
    servers = client.get("/v1/health/service/consul", {"passing": "1"}).json()
    if not servers:
        raise CommandError(f"Failed to create session: no healthy server in datacenter {datacenter}")
    node = servers[0]["Node"]["Node"]
    return Session(client, f"{REMOTE_NAME} via {local}@{datacenter}", "delete", Node=node, NodeChecks=[])


def _begin(client: api.Client, options: FlagSet, prefix: str, session: str, job: dict[str, Any], tell: Any) -> None:
    """Write the job and fire the event."""
    with api.failing("Failed to create job file"):
        if not client.put(f"/v1/kv/{prefix}job", {"acquire": session}, api.encode(job)).json():
            raise CommandError("Failed to create job file: the session cannot acquire it")
    tell("Uploaded remote execution spec")
    time.sleep(options["wait-repl"])
    payload = json.dumps({"Prefix": options["prefix"].strip("/"), "Session": session}, separators=(",", ":"))
    filters = {name: options[name] or None for name in ("node", "service", "tag")}
    with api.failing("Failed to fire event"):
        event = client.put(f"/v1/event/fire/{EVENT}", filters, payload.encode()).json()
    tell(f"Fired remote execution event: {event['ID']}")


def _follow(client: api.Client, progress: Progress, prefix: str, wait: float, io: Io) -> None:
    """Show what the nodes say until they have said nothing for a while: `wait` seconds, twice that while one of them
    still runs the command."""
    index = 0
    heard = time.monotonic()
    while True:
        quiet = wait if progress.acknowledged == progress.exited else wait * 2
        left = heard + quiet - time.monotonic()
        if left <= 0:
            return
        blocking = {"index": str(index), "wait": f"{max(int(left * 1000), 1)}ms"}
        with api.failing("Failed to read results"):
            answer = client.get(f"/v1/kv/{prefix}", {"recurse": "", **blocking}, accept=frozenset({200, 404}))
        entries = answer.json() if answer.status == 200 else []
        index = answer.index if answer.index >= index else 0
        values = {entry["Key"]: base64.b64decode(entry["Value"] or "") for entry in entries}
        values.pop(f"{prefix}job", None)
        seen = progress.take(values)
        if progress.news:
            heard = time.monotonic()
        for line in seen:
            io.out(line)
