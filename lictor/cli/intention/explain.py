"""`lictor intention explain`: why a connection fares as it does, and what a change would do before it is made."""

from __future__ import annotations

from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.cli.intention.lookup import BASE, text
from lictor.cli.table import columns
from lictor.model.goflags import FlagSet

SYNOPSIS = "Say why a connection is allowed or denied, and what would change it."

LISTED = 20
"""Lines of a list that are printed."""

HTTP_LIKE = ("http", "http2", "grpc")

HELP = """\
Usage: lictor intention explain [options] SRC DST

  Prints which intention decides about connections from a service to another
  one, why, which ones it hides, and the commands that would change it. Either
  may be "*": then it is about services that no intention names.

      $ lictor intention explain web db

  With -dry-run it prints what a change would do, and makes none: which live
  connections it would cut, as the proxies of all agents tell of them, and
  which services could connect that cannot now.

      $ lictor intention explain -dry-run -deny web db
      $ lictor intention explain -dry-run -delete "*" db

  It ends with 0 where such connections are allowed, with 1 where they are
  not, with 2 where that cannot be found out. With -dry-run it is about how
  they would fare after the change."""

ALLOWED, DENIED, FAILED = 0, 1, 2


def flags() -> FlagSet:
    """The HTTP API options, and the change to try."""
    flags = FlagSet("intention explain", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    api.tenancy_flags(flags)
    flags.bool("dry-run", False, "Print what a change would do. Goes with -allow, -deny or -delete.")
    flags.bool("allow", False, "The change: an intention between just these two that allows.")
    flags.bool("deny", False, "The change: an intention between just these two that denies.")
    flags.bool("delete", False, "The change: the intention between just these two deleted.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the explanation."""
    options = flags()
    rest = options.parse(args)
    if len(rest) != 2:
        raise CommandError("Error: command requires exactly two arguments: src and dst", code=FAILED)
    change = _change(options)
    client = api.connect(options, io)
    try:
        with api.failing("Error explaining the connection"):
            found = client.get(f"{BASE}/explain", {"source": rest[0], "destination": rest[1], "change": change}).json()
    except CommandError as error:
        raise CommandError(str(error), error.hint, FAILED) from None
    io.out("\n".join(_explained(found)))
    effect = found["Effect"]
    if effect is None:
        if found["Remedies"]:
            io.out("\n" + "\n".join(_remedies(found)))
        return ALLOWED if found["Allowed"] else DENIED
    io.out("\n" + "\n".join(_effect(effect)))
    return ALLOWED if effect["Verdict"] == "allowed" else DENIED


def _change(options: FlagSet) -> str | None:
    """The change that is to be tried; None for none. Raises CommandError."""
    given = [name for name in ("allow", "deny", "delete") if options[name]]
    if len(given) > 1:
        raise CommandError("Error: only one of -allow, -deny and -delete may be specified", code=FAILED)
    if options["dry-run"] and not given:
        raise CommandError("Error: -dry-run needs a change to try: -allow, -deny or -delete", code=FAILED)
    if given and not options["dry-run"]:
        hint = "Add -dry-run to see what it would do; `lictor intention create` and `delete` make changes."
        raise CommandError(f"Error: -{given[0]} is for -dry-run: this command changes nothing", hint, FAILED)
    return given[0] if given else None


def _explained(found: dict[str, Any]) -> list[str]:
    """How it is now."""
    lines = [f"{found['Source']} => {found['Destination']}: {_verdict(found['Verdict'])}", "", f"  {found['Reason']}"]
    rule = found["Rule"]
    if rule is None:
        lines.append(f"  No intention matches; the default is to {found['Default']} (default_intention_policy).")
    elif rule.get("Description"):
        lines.append(f"  {rule['Description']}")
    if rule is not None and found["Verdict"] == "needs layer 7":
        lines += _layer_7(found)
    if found["Shadowed"]:
        lines += ["", "It hides, in the order in which they would decide:", ""]
        lines += _indented([[text(one), f"precedence {one['Precedence']}"] for one in found["Shadowed"]])
    return lines


def _remedies(found: dict[str, Any]) -> list[str]:
    """The changes that would make another verdict of it."""
    lines = ["What would change it:", ""]
    for remedy in found["Remedies"]:
        lines.append(f"  $ {remedy['Command']}")
        lines.append(f"      {_verdict(remedy['Verdict'])}: {remedy['Reason']}")
    return lines


def _indented(rows: list[list[str]]) -> list[str]:
    return ["  " + line for line in columns(rows).split("\n")]


def _verdict(verdict: str) -> str:
    return "each request is looked at" if verdict == "needs layer 7" else verdict


def _layer_7(found: dict[str, Any]) -> list[str]:
    """Who looks into requests, and what becomes of them."""
    if found["Protocol"] not in (*HTTP_LIKE, ""):
        return [
            f"  The protocol of {found['Destination']} is {found['Protocol']}: its proxies cannot look into requests, "
            "and refuse the connection.",
            "  Set the protocol to http, http2 or grpc in a service-defaults config entry.",
        ]
    return [
        "  A proxy that understands HTTP looks at each request; the built-in one, and native programs, refuse the "
        "connection.",
        f"  The first permission that matches a request decides; where none does, the default is to "
        f"{found['Default']}. `lictor intention get` prints them.",
    ]


def _effect(effect: dict[str, Any]) -> list[str]:
    """What the change would do."""
    lines = [f"After {effect['Command']}", "", f"  {_verdict(effect['Verdict'])}: {effect['Reason']}"]
    if not effect["Changes"]:
        there = "There is none between just these two" if effect["Change"] == "delete" else "It is there already"
        return [*lines, "", f"{there}: nothing would change."]
    lines += ["", *_cut(effect)]
    for pairs, count, what in (
        (effect["Allowed"], effect["AllowedPairs"], "Could connect, and cannot now:"),
        (effect["Denied"], effect["DeniedPairs"], "Could connect no more:"),
    ):
        if pairs:
            lines += ["", what, ""]
            lines += [f"  {one['Source']} => {one['Destination']}" for one in pairs[:LISTED]]
            lines += _more(count - min(len(pairs), LISTED))
    lines += ["", "Nothing has been changed."]
    return lines


def _cut(effect: dict[str, Any]) -> list[str]:
    cut, total = effect["Cut"], effect["CutConnections"]
    agents = _count(effect["Agents"], "agent", "agents")
    if not total:
        kept = effect["KeptConnections"]
        others = f" ({_count(kept, 'connection goes', 'connections go')} on)" if kept else ""
        lines = [f"It would cut no live connection of those that {agents} told of{others}."]
    else:
        lines = [f"It would cut {_count(total, 'live connection', 'live connections')}:", ""]
        rows = [["Source", "Destination", "Node", "Connections"]]
        rows += [[one["Source"], one["Destination"], one["Node"], str(one["Connections"])] for one in cut[:LISTED]]
        lines += _indented(rows) + _more(len(cut) - LISTED)
    if effect["Untold"]:
        untold = _count(effect["Untold"], "more connection", "more connections")
        lines.append(f"{untold} did not fit into the agents' answers, and may be cut as well.")
    if effect["Silent"]:
        names = ", ".join(effect["Silent"][:LISTED])
        lines.append(f"Of {agents} these did not answer; what is connected there is not known: {names}")
    if not effect["Agents"]:
        lines.append("Gossip is not running: no agent could be asked for its connections.")
    return lines


def _more(count: int) -> list[str]:
    return [f"  and {count} more"] if count > 0 else []


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
