"""`lictor intention explain`: why a connection fares as it does, and what a change would do before it is made."""

from __future__ import annotations

import json
import shlex
from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.cli.config.document import read_entry
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
  connections it would cut and whose requests it would refuse, as the proxies
  of all agents tell of them, and which services could connect that cannot now.
  The agents are those of one datacenter, which -datacenter names.

      $ lictor intention explain -dry-run -deny web db
      $ lictor intention explain -dry-run -delete "*" db

  Permissions are written as a config entry. What writing it would do, for one
  source or, with "*", for all:

      $ lictor intention explain -dry-run -file db.hcl "*" db

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
    flags.bool("dry-run", False, "Print what a change would do. Goes with -allow, -deny, -delete or -file.")
    flags.bool("allow", False, "The change: an intention between just these two that allows.")
    flags.bool("deny", False, "The change: an intention between just these two that denies.")
    flags.bool("delete", False, "The change: the intention between just these two deleted.")
    flags.string("format", "pretty", "Output format: pretty or json.")
    flags.string(
        "file", "", 'The change: the service-intentions config entry in this file ("-": standard input) written.'
    )
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the explanation."""
    options = flags()
    rest = options.parse(args)
    if len(rest) != 2:
        raise CommandError("Error: command requires exactly two arguments: src and dst", code=FAILED)
    change = _change(options)
    source, destination = rest
    entry = _entry(options["file"], destination, io) if change == "file" else None
    client = api.connect(options, io)
    try:
        with api.failing("Error explaining the connection"):
            if entry is None:
                asked = {"source": source, "destination": destination, "change": change}
                found = client.get(f"{BASE}/explain", asked).json()
            else:
                found = client.put(f"{BASE}/explain", {"source": source}, api.encode(entry)).json()
    except CommandError as error:
        raise CommandError(str(error), error.hint, FAILED) from None
    if options["format"] == "json":
        io.out(json.dumps(found, indent=4))
        return ALLOWED if (found["Effect"] or found)["Verdict"] == "allowed" else DENIED
    io.out("\n".join(_explained(found)))
    if entry is not None:
        found["Effect"]["Command"] += f" {shlex.quote(options['file'])}"
    effect = found["Effect"]
    if effect is None:
        if found["Remedies"]:
            io.out("\n" + "\n".join(_remedies(found)))
        return ALLOWED if found["Allowed"] else DENIED
    io.out("\n" + "\n".join(_effect(effect, _unasked(client, options["datacenter"]))))
    return ALLOWED if effect["Verdict"] == "allowed" else DENIED


def _unasked(client: api.Client, asked: str) -> list[str]:
    """The datacenters but the one that was asked (empty is the agent's own): their agents have told nothing."""
    try:
        known: list[str] = client.get("/v1/catalog/datacenters").json()
    except CommandError:  # while the servers are away; what is connected here is told all the same
        return []
    return [name for name in known if name != (asked or known[0])]


def _change(options: FlagSet) -> str | None:
    """The change that is to be tried; None for none. Raises CommandError."""
    given = [name for name in ("allow", "deny", "delete", "file") if options[name]]
    if len(given) > 1:
        raise CommandError("Error: only one of -allow, -deny, -delete and -file may be specified", code=FAILED)
    if options["format"] not in ("pretty", "json"):
        raise CommandError(f'Error: -format must be pretty or json, not "{options["format"]}"', code=FAILED)
    if options["dry-run"] and not given:
        raise CommandError("Error: -dry-run needs a change to try: -allow, -deny, -delete or -file", code=FAILED)
    if given and not options["dry-run"]:
        hint = "Add -dry-run to see what it would do; `lictor intention create` and `delete` make changes."
        raise CommandError(f"Error: -{given[0]} is for -dry-run: this command changes nothing", hint, FAILED)
    return given[0] if given else None


def _entry(path: str, destination: str, io: Io) -> dict[str, Any]:
    """The config entry to try. Raises CommandError."""
    try:
        entry = read_entry(path, io)
    except CommandError as error:
        raise CommandError(str(error), error.hint, FAILED) from None
    if entry["Kind"] != "service-intentions" or entry["Name"].lower() != destination.lower():
        there = f"{entry['Kind']}/{entry['Name']}"
        wanted = f"service-intentions/{destination}"
        raise CommandError(f"Error: {path} holds {there}, and is to hold {wanted}", code=FAILED)
    return entry


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
        "  The first that a request meets decides:",
        "",
        *(f"    {step}" for step in found["Permissions"]),
    ]


def _effect(effect: dict[str, Any], unasked: list[str]) -> list[str]:
    """What the change would do; `unasked` are the other datacenters."""
    lines = [f"After {effect['Command']}", "", f"  {_verdict(effect['Verdict'])}: {effect['Reason']}"]
    if not effect["Changes"]:
        there = "There is none between just these two" if effect["Change"] == "delete" else "It is there already"
        return [*lines, "", f"{there}: nothing would change."]
    lines += ["", *_cut(effect), *_refused(effect), *_judged(effect), *_unknown(effect, unasked)]
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
    """The live connections that it would end."""
    cut, total = effect["Cut"], effect["CutConnections"]
    restarted = effect["RestartedConnections"]
    others = _count(restarted, "connection that is", "connections that are")
    if not total:
        kept = effect["KeptConnections"]
        going = f" ({_count(kept, 'connection goes', 'connections go')} on)" if kept else ""
        agents = _count(effect["Agents"], "agent", "agents")
        lines = [f"It would cut no live connection of those that {agents} told of{going}."]
    else:
        lines = [f"It would cut {_count(total, 'live connection', 'live connections')}:", "", *_connections(cut)]
    if restarted:
        lines += [
            "",
            f"{others} allowed would end too, since Envoy opens its listener anew, and can be made again:",
            "",
            *_connections(effect["Restarted"]),
        ]
    return lines


def _connections(found: list[dict[str, Any]]) -> list[str]:
    rows = [["Source", "Destination", "Node", "Connections"]]
    rows += [[one["Source"], one["Destination"], one["Node"], str(one["Connections"])] for one in found[:LISTED]]
    return _indented(rows) + _more(len(found) - LISTED)


def _refused(effect: dict[str, Any]) -> list[str]:
    """The callers whose requests would be refused. Their connections stay."""
    refused, total = effect["Refused"], effect["RefusedCallers"]
    if not total:
        return []
    rows = [["Source", "Destination", "Node", "Last seen"]]
    rows += [[one["Source"], one["Destination"], one["Node"], f"{one['Age']}s ago"] for one in refused[:LISTED]]
    what = _count(total, "caller that has made some lately", "callers that have made some lately")
    return ["", f"It would refuse every request of {what}:", "", *_indented(rows), *_more(total - min(LISTED, total))]


def _judged(effect: dict[str, Any]) -> list[str]:
    """The callers whose requests would be looked at, together with those who meet the same."""
    callers: dict[tuple[str, ...], list[str]] = {}
    for one in effect["Judged"][:LISTED]:
        lately = " (has made some lately)" if one["Seen"] else ""
        callers.setdefault(tuple(one["Permissions"]), []).append(f"{one['Source']} => {one['Destination']}{lately}")
    lines: list[str] = []
    for steps, those in callers.items():
        lines += ["", "It would look at each request, and cut connections where a proxy cannot look into them:", ""]
        lines += [f"  {one}" for one in those]
        lines += ["", "  The first that a request meets decides:", "", *(f"    {step}" for step in steps)]
    return lines + _more(effect["JudgedCallers"] - min(LISTED, len(effect["Judged"])))


def _unknown(effect: dict[str, Any], unasked: list[str]) -> list[str]:
    """What could not be found out."""
    lines = []
    if effect["Untold"]:
        untold = _count(effect["Untold"], "more connection", "more connections")
        lines.append(f"{untold} did not fit into the agents' answers, and may be cut as well.")
    if effect["UntoldRequesters"]:
        untold = _count(effect["UntoldRequesters"], "more caller", "more callers")
        lines.append(f"{untold} that made requests did not fit into the agents' answers, and may be refused as well.")
    if effect["Silent"]:
        names = ", ".join(effect["Silent"][:LISTED])
        agents = _count(effect["Agents"], "agent", "agents")
        lines.append(f"Of {agents} these did not answer; what is connected there is not known: {names}")
    if not effect["Agents"]:
        lines.append("Gossip is not running: no agent could be asked for its connections.")
    if unasked:
        lines += ["", f"What is connected in other datacenters is told with -datacenter: {', '.join(unasked[:LISTED])}"]
    return lines


def _more(count: int) -> list[str]:
    return [f"  and {count} more"] if count > 0 else []


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
