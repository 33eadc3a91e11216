"""`lictor connect redirect-traffic`: has the kernel pass a service's connections through its proxy."""

from __future__ import annotations

import json
import pwd
import shutil
import subprocess
from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io
from lictor.connect_proxy.envoy.redirecting import (
    IPTABLES,
    NFT,
    TOOLS,
    BadRule,
    Redirection,
    iptables_rules,
    iptables_undo,
    nft_rules,
    nft_undo,
)
from lictor.model.goflags import FlagSet

SYNOPSIS = "Passes a service's connections through its proxy"

HELP = """\
Usage: lictor connect redirect-traffic [options]

  Writes rules for nftables or iptables, whichever there is, by which what a
  service sends goes to its proxy, and what comes for it too. The proxy must
  run as a user of its own, which the rules let through, and be registered
  with mode "transparent". IPv4 and TCP are redirected.

      $ lictor connect redirect-traffic -proxy-id web-sidecar-proxy -proxy-uid 1234

  With -print the rules are shown and nothing is changed; -undo takes away
  what an earlier call has made. To change rules needs root's rights."""

DEFAULT_OUTBOUND = 15001
PATIENCE = 60.0  # seconds for a call of nft or iptables


def flags() -> FlagSet:
    """The HTTP API options, and what to redirect."""
    flags = FlagSet("connect redirect-traffic", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string("proxy-id", "", "The id of the proxy, whose ports are then taken from its registration.")
    flags.string("proxy-uid", "", "The user, by number or name, that the proxy runs as.")
    flags.int("proxy-inbound-port", 0, "The port of the proxy to which what comes in is redirected.")
    flags.int("proxy-outbound-port", DEFAULT_OUTBOUND, "The port of the proxy to which what goes out is redirected.")
    flags.strings("exclude-inbound-port", (), "A port that is not redirected when something comes in. Repeatable.")
    flags.strings("exclude-outbound-port", (), "A port that is not redirected when something goes out. Repeatable.")
    flags.strings("exclude-outbound-cidr", (), "A network such as 10.0.0.0/8 that is not redirected. Repeatable.")
    flags.strings("exclude-uid", (), "A user whose connections are not redirected. Repeatable.")
    flags.string("consul-dns-ip", "", "The address to which DNS questions are sent.")
    flags.int("consul-dns-port", 53, "The port, at -consul-dns-ip, to which they are sent.")
    flags.string("netns", "", "The network namespace to change, by its path. The default is this process's.")
    flags.string("tool", "", "What to change rules with: nft or iptables. The default is the first that there is.")
    flags.bool("print", False, "Show the rules and change nothing.")
    flags.bool("undo", False, "Take the rules away again.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print, apply or undo."""
    options = flags()
    rest = options.parse(args)
    if rest:
        raise CommandError(f"Should have no non-flag arguments, and there is {rest[0]}")
    tool = _tool(options["tool"], options["print"])
    if options["undo"]:
        _undo(tool, options, io)
        return 0
    wanted = _wanted(options, io)
    try:
        script, calls = nft_rules(wanted), iptables_rules(wanted)
    except BadRule as error:
        raise CommandError(str(error)) from None
    if options["print"]:
        io.out(script.rstrip() if tool == NFT else _shown(calls))
        return 0
    _check_users(wanted)
    if tool == NFT:
        _call([NFT, "-f", "-"], options["netns"], script)
        return 0
    for call in iptables_undo():
        _call([IPTABLES, *call], options["netns"], must=False)
    for call in calls:
        _call([IPTABLES, *call], options["netns"])
    return 0


def _check_users(wanted: Redirection) -> None:
    for user in (wanted.proxy_user, *wanted.exclude_users):
        if not user.isdigit():
            try:
                pwd.getpwnam(user)
            except KeyError:
                raise CommandError(f"This machine has no user {user}", "Make it, or give a user's number.") from None


def _tool(named: str, printed: bool) -> str:
    if named:
        if named not in TOOLS:
            raise CommandError(f"-tool must be nft or iptables, not {named}")
        return named
    found = next((tool for tool in TOOLS if shutil.which(tool)), NFT if printed else "")
    if not found:
        raise CommandError("Neither nft nor iptables is on PATH", "Install nftables, or see the rules with -print.")
    return found


def _undo(tool: str, options: FlagSet, io: Io) -> None:
    if options["print"]:
        io.out(nft_undo().rstrip() if tool == NFT else _shown(iptables_undo()))
    elif tool == NFT:
        _call([NFT, "-f", "-"], options["netns"], nft_undo())
    else:
        for call in iptables_undo():
            _call([IPTABLES, *call], options["netns"], must=False)


def _shown(calls: list[list[str]]) -> str:
    return "\n".join(" ".join([IPTABLES, *call]) for call in calls)


def _wanted(options: FlagSet, io: Io) -> Redirection:
    if not options["proxy-uid"]:
        raise CommandError("-proxy-uid is required: the user that the proxy runs as, whose connections are let through")
    inbound, outbound = options["proxy-inbound-port"], options["proxy-outbound-port"]
    excluded = _ports(options["exclude-inbound-port"])
    if options["proxy-id"]:
        proxy = _proxy(options, io)
        found, others = _registered(proxy)
        inbound = inbound or int(proxy.get("Port") or 0)
        outbound = outbound if options.given("proxy-outbound-port") else found or outbound
        excluded += [*others, *_exposed(proxy, options, io)]
    if not inbound:
        raise CommandError("Either -proxy-id or -proxy-inbound-port must be given")
    return Redirection(
        proxy_user=options["proxy-uid"],
        inbound_port=inbound,
        outbound_port=outbound,
        exclude_inbound_ports=tuple(dict.fromkeys(excluded)),
        exclude_outbound_ports=tuple(_ports(options["exclude-outbound-port"])),
        exclude_outbound_networks=tuple(options["exclude-outbound-cidr"]),
        exclude_users=tuple(options["exclude-uid"]),
        dns_address=options["consul-dns-ip"],
        dns_port=options["consul-dns-port"],
    )


def _ports(texts: list[str]) -> list[int]:
    found = []
    for text in texts:
        if not text.isdigit():
            raise CommandError(f"{text} is no port")
        found.append(int(text))
    return found


def _proxy(options: FlagSet, io: Io) -> Any:
    client = api.connect(options, io)
    with api.failing(f"Failed to find the proxy {options['proxy-id']}"):
        return json.loads(client.get(f"/v1/agent/service/{options['proxy-id']}").body)


def _registered(proxy: Any) -> tuple[int, list[int]]:
    """A proxy's outbound port, 0 for the usual one, and the ports of its own that are not the mesh's."""
    block = proxy.get("Proxy") or {}
    outbound = int((block.get("TransparentProxy") or {}).get("OutboundListenerPort") or 0)
    ports = [int(path["ListenerPort"]) for path in (block.get("Expose") or {}).get("Paths") or ()]
    for key in ("envoy_prometheus_bind_addr", "envoy_stats_bind_addr", "envoy_ready_bind_addr"):
        port = str((block.get("Config") or {}).get(key) or "").rpartition(":")[2]
        if port.isdigit():
            ports.append(int(port))
    return outbound, ports


def _exposed(proxy: Any, options: FlagSet, io: Io) -> list[int]:
    """The ports of a proxy through which checks of its service go."""
    block = proxy.get("Proxy") or {}
    with api.failing("Failed to read the checks"):
        checks = json.loads(api.connect(options, io).get("/v1/agent/checks").body)
    of_service = (one for one in checks.values() if one.get("ServiceID") == block.get("DestinationServiceID"))
    return [int(one["ExposedPort"]) for one in of_service if one.get("ExposedPort")]


def _call(command: list[str], namespace: str, text: str = "", *, must: bool = True) -> None:
    if namespace:
        command = ["nsenter", f"--net={namespace}", *command]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"Couldn't run {command[0]}: {error}") from None
    if must and done.returncode != 0:
        hint = "To change the packet filter's rules needs root's rights (CAP_NET_ADMIN)."
        raise CommandError(f"{' '.join(command)} failed: {done.stderr.strip()[:500]}", hint)
