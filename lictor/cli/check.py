"""`lictor check`: looks at configuration, agent, cluster, clock, disk and DNS; says what is wrong and how to mend it.

Made after `linkerd check`: sections of short lines, each with a mark, and under a line that is not well what to do.
Each look is a function in `checks`; this file runs them in order and prints.
"""

from __future__ import annotations

import json

from lictor.cli import api, checks
from lictor.cli.check_authority import authority
from lictor.cli.check_datacenters import datacenters
from lictor.cli.check_identities import identities
from lictor.cli.check_primary import primary
from lictor.cli.check_proxies import proxies
from lictor.cli.checks import MARKS, Finding, Result
from lictor.cli.command import CommandError, Io
from lictor.model.goflags import FlagSet

SYNOPSIS = "Looks for what is wrong with an agent and says how to mend it"

HELP = """\
Usage: lictor check [options]

  Looks at an agent and the cluster it is in: does it answer, is there a
  leader, are its ports and addresses right, does its clock agree, is its
  disk large and fast enough, does its DNS answer. What is wrong is told
  together with how to mend it.

  With -config-file or -config-dir the configuration is judged too, also
  before an agent runs. Looks at the disk need the agent's data directory,
  so run this on the agent's machine.

  The exit code is 1 when something is broken; warnings alone are 0."""

FORMATS = ("pretty", "json")


def flags() -> FlagSet:
    """The HTTP API options, what to judge besides the agent, and the format."""
    flags = FlagSet("check", HELP)
    api.client_flags(flags)
    flags.strings("config-file", (), "Configuration file to judge. May be given several times.")
    flags.strings("config-dir", (), "Directory of configuration files to judge. May be given several times.")
    flags.string("data-dir", "", "The agent's data directory. The default is what the agent says.", placeholder="path")
    flags.string(
        "dns-addr", "", "Address of the agent's DNS interface. The default is what the agent says.", "host:port"
    )
    flags.string("format", "pretty", "Output format: pretty or json.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Look at everything: 1 when something is broken."""
    options = flags()
    rest = options.parse(args)
    if rest:
        raise CommandError(f"Too many arguments: {' '.join(rest)}", "See `lictor check -h`.")
    if options["format"] not in FORMATS:
        raise CommandError(f"Unknown format: {options['format']}", "The formats are pretty and json.")
    findings = look(options, io)
    io.out(as_json(findings) if options["format"] == "json" else as_text(findings))
    return 1 if any(finding.result is Result.ERROR for finding in findings) else 0


def look(options: FlagSet, io: Io) -> list[Finding]:
    """Every finding, in the order in which they are told."""
    findings: list[Finding] = []
    paths = [*options["config-file"], *options["config-dir"]]
    config = None
    if paths:
        judged, config = checks.configuration(paths)
        findings += judged
    client = api.connect(options, io)
    answered, view = checks.agent(client)
    findings += answered
    data_dir = options["data-dir"]
    if view is not None:
        findings += checks.version(view)
        findings += checks.addresses(view)
        findings += checks.cluster(client, view)
        findings += authority(client)
        findings += primary(view.primary)
        findings += identities(view.leaves)
        findings += proxies(client)
        findings += datacenters(client)
        findings += checks.clock(client)
        data_dir = data_dir or view.data_dir
        findings += checks.dns(options["dns-addr"] or view.dns_address(client.address.host), view.domain)
    elif config is not None:
        findings += checks.free_ports(config)
        data_dir = data_dir or config.data_dir
    findings += checks.disk(data_dir, in_memory=view is not None and view.in_memory)
    return findings


def as_text(findings: list[Finding]) -> str:
    """The findings as a person reads them."""
    lines: list[str] = []
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += [*([""] if lines else []), section, "-" * len(section)]
        lines.append(f"{MARKS[finding.result]} {finding.text}")
        if finding.remedy:
            lines += [f"    {line}" for line in finding.remedy.splitlines()]
    worst = max((finding.result for finding in findings), key=list(Result).index, default=Result.SUCCESS)
    return "\n".join([*lines, "", f"Status check results are {MARKS[worst]}"])


def as_json(findings: list[Finding]) -> str:
    """The findings for programs, in the fields of `linkerd check -o json`."""
    sections: dict[str, list[dict[str, str]]] = {}
    for finding in findings:
        entry = {"description": finding.text, "result": finding.result.value}
        if finding.remedy:
            entry["hint"] = finding.remedy
        sections.setdefault(finding.section, []).append(entry)
    success = all(finding.result is not Result.ERROR for finding in findings)
    categories = [{"categoryName": name, "checks": entries} for name, entries in sections.items()]
    return json.dumps({"success": success, "categories": categories}, indent=4, ensure_ascii=False)
