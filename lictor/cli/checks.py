"""The looks of `lictor check`: each examines one thing and returns what it found, with the remedy where it is not well.

None of them changes anything, but for a file of a few kilobytes in the data directory, written and removed again to see
how fast the disk syncs.
"""

from __future__ import annotations

import contextlib
import email.utils
import enum
import errno
import ipaddress
import os
import shutil
import socket
import stat
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from lictor import __version__
from lictor.cli import api
from lictor.cli.command import reason

if TYPE_CHECKING:
    from lictor.agent.config import Endpoint, RuntimeConfig

CLOCK_WARNING_SECONDS = 2.0
CLOCK_ERROR_SECONDS = 30.0
FREE_ERROR_BYTES = 200 * 1024 * 1024
FREE_WARNING_BYTES = 2 * 1024 * 1024 * 1024
FREE_WARNING_SHARE = 0.05
SYNC_TRIES = 9
SYNC_BYTES = 4096
SYNC_WARNING_SECONDS = 0.025
SYNC_ERROR_SECONDS = 0.5
DNS_SECONDS = 6.0  # an agent whose servers are away answers after half of that
CONNECT_SECONDS = 3.0
ALIVE = 1
FAILED = 4


class Result(enum.Enum):
    """How a look turned out, from well to broken; the values are those of the JSON form."""

    SUCCESS = "success"
    WARNING = "warning"
    ERROR = "error"


MARKS = {Result.SUCCESS: "✓", Result.WARNING: "‼", Result.ERROR: "×"}


class Finding(NamedTuple):
    """One line of the report."""

    section: str
    result: Result
    text: str
    remedy: str = ""


def ok(section: str, text: str) -> Finding:
    """Something that is well."""
    return Finding(section, Result.SUCCESS, text)


def warning(section: str, text: str, remedy: str) -> Finding:
    """Something that works, and should be otherwise."""
    return Finding(section, Result.WARNING, text, remedy)


def broken(section: str, text: str, remedy: str) -> Finding:
    """Something that does not work."""
    return Finding(section, Result.ERROR, text, remedy)


class AgentView:
    """What `/v1/agent/self` says, read with care: an older agent may leave things out."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.config: dict[str, Any] = content.get("Config") or {}
        self.debug: dict[str, Any] = content.get("DebugConfig") or {}
        self.member: dict[str, Any] = content.get("Member") or {}
        stats: dict[str, dict[str, str]] = content.get("Stats") or {}
        self.leaves: dict[str, str] = stats.get("leaf_certs") or {}
        self.primary: dict[str, str] = stats.get("primary") or {}
        # `Version` is that of the interface; the agent's own is in `Revision`.
        self.version = str(self.config.get("Revision", "")).removeprefix("lictor ")
        self.data_dir = str(self.debug.get("DataDir") or "")
        self.in_memory = bool(self.debug.get("DevMode"))
        self.is_server = bool(self.config.get("Server"))
        self.domain = str(self.debug.get("DNSDomain") or "consul.").rstrip(".")

    def dns_address(self, host: str) -> str:
        """Where its DNS listens, "" when it does not. `host` is where its HTTP was found."""
        for address in self.debug.get("DNSAddrs") or []:
            scheme, _, where = str(address).partition("://")
            name, _, port = where.rpartition(":")
            if scheme == "udp":
                anywhere = name in ("0.0.0.0", "[::]", "::")
                return f"{host}:{port}" if anywhere else where
        number = self.debug.get("DNSPort")
        return f"{host}:{number}" if isinstance(number, int) and number > 0 else ""


# -- configuration -----------------------------------------------------------------------------------------------------


def configuration(paths: list[str]) -> tuple[list[Finding], RuntimeConfig | None]:
    """Whether the agent would accept these files, and what it would make of them."""
    section = "configuration"
    from lictor.agent.config import ConfigError, load_agent, parse_flags

    try:
        config, warnings = load_agent(parse_flags([f"-config-dir={path}" for path in paths]))
    except ConfigError as error:
        remedy = f"{error}\nMend the file, then try again: lictor validate {' '.join(paths)}"
        return [broken(section, "is not valid", remedy)], None
    found = [ok(section, f"is valid: {', '.join(paths)}")]
    found += [warning(section, text, "The agent starts, and says the same in its log.") for text in warnings]
    return found, config


def free_ports(config: RuntimeConfig) -> list[Finding]:
    """Whether an agent that does not run yet could listen where its configuration says."""
    listen = config.listen
    doors = (
        ("DNS", listen.dns),
        ("HTTP", listen.http),
        ("HTTPS", listen.https),
    )
    found = []
    for name, endpoints in doors:
        for endpoint in endpoints:
            if endpoint.network != "unix":
                found.append(_free_port(name, endpoint))
    return found


def _free_port(name: str, endpoint: Endpoint) -> Finding:
    kind = socket.SOCK_DGRAM if endpoint.network == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        with socket.socket(family, kind) as probe:
            # As the agent does: a connection of an earlier agent that is still closing is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if kind == socket.SOCK_STREAM else 0)
            probe.bind((endpoint.host, endpoint.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            search = f"ss -lnp | grep :{endpoint.port}"
            remedy = f"Another program has it ({search}): end that, or set another port in ports {{}}."
        elif error.errno == errno.EACCES:
            remedy = "Ports below 1024 need a privilege: AmbientCapabilities=CAP_NET_BIND_SERVICE in the service unit."
        elif error.errno == errno.EADDRNOTAVAIL:
            remedy = "This machine has no such address: see bind_addr, client_addr and addresses {}, and `ip addr`."
        else:
            remedy = reason(error)
        return broken("ports", f"{name} cannot listen on {endpoint}: {reason(error)}", remedy)
    return ok("ports", f"{name} can listen on {endpoint}")


# -- agent -------------------------------------------------------------------------------------------------------------


def agent(client: api.Client) -> tuple[list[Finding], AgentView | None]:
    """Whether the agent answers, and what it says of itself."""
    section = "agent"
    where = client.address.socket_path or client.address.authority
    begun = time.monotonic()
    try:
        content = client.get("/v1/agent/self").json()
    except api.ApiError as error:
        if error.status == 403:
            remedy = "The token may not read the agent: give one with agent:read, with -token or LICTOR_HTTP_TOKEN."
        else:
            remedy = error.hint or "See the agent's log: journalctl -u lictor, or `lictor monitor`."
        return [broken(section, f"does not answer at {where}", f"{error}\n{remedy}")], None
    milliseconds = (time.monotonic() - begun) * 1000
    view = AgentView(content if isinstance(content, dict) else {})
    role = "server" if view.is_server else "client agent"
    name = view.config.get("NodeName", "?")
    return [ok(section, f"answers at {where}: {role} {name}, in {milliseconds:.1f} ms")], view


def version(view: AgentView) -> list[Finding]:
    """Whether command and agent are of one version."""
    if view.version == __version__:
        return [ok("agent", f"has this command's version, {__version__}")]
    return [
        warning(
            "agent",
            f"has version {view.version or '?'}, this command {__version__}",
            "Commands know what their own version's agents can do: install the same version on both sides.",
        )
    ]


# -- addresses and ports -----------------------------------------------------------------------------------------------


def addresses(view: AgentView) -> list[Finding]:
    """Whether others can reach the agent under the address that it gives them."""
    section = "addresses"
    text = str(view.member.get("Addr") or view.debug.get("AdvertiseAddrLAN") or "")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return [
            broken(section, f"advertises {text!r}, which is no IP address", "Set advertise_addr to this node's IP.")
        ]
    found = []
    if address.is_unspecified:
        found.append(
            broken(section, f"advertises {address}, which nobody can reach", "Set advertise_addr to this node's IP.")
        )
    elif address.is_loopback:
        found.append(
            warning(
                section,
                f"advertises {address}: no other machine can join",
                "Fine for trying things out. Else set bind_addr or advertise_addr to an address of the network,\n"
                'for example bind_addr = "{{ GetPrivateIP }}".',
            )
        )
    elif address.is_global:
        found.append(
            warning(
                section,
                f"advertises {address}, an address of the public internet",
                "Gossip and RPC ports should not be open to it: advertise a private address, or use a firewall and\n"
                "encryption (encrypt, verify_incoming, verify_outgoing).",
            )
        )
    else:
        found.append(ok(section, f"advertises {address}"))
    return found


# -- cluster -----------------------------------------------------------------------------------------------------------


def cluster(client: api.Client, view: AgentView) -> list[Finding]:
    """Whether there is a leader, whether there are servers enough, and whether anybody is missing."""
    section = "cluster"
    try:
        leader = client.get("/v1/status/leader").json()
        peers = client.get("/v1/status/peers").json() or []
        members = client.get("/v1/agent/members").json() or []
    except api.ApiError as error:
        remedy = "Without servers no write is possible. See that they run, and that this agent has joined them."
        return [broken(section, "cannot be asked", f"{error}\n{remedy}")]
    found = []
    if leader:
        found.append(ok(section, f"has a leader: {leader}"))
    else:
        found.append(
            broken(
                section,
                "has no leader",
                "More than half of the servers must run, and reach each other at ports.server. A server that belongs\n"
                "to no cluster yet waits for bootstrap_expect of them, which retry_join finds: its log says for whom.",
            )
        )
    if len(peers) in (3, 5, 7):
        found.append(ok(section, f"has {len(peers)} servers, and outlasts the loss of {(len(peers) - 1) // 2}"))
    elif peers and not view.in_memory:
        spare = (len(peers) - 1) // 2
        found.append(
            warning(
                section,
                f"has {len(peers)} server{'s' if len(peers) > 1 else ''}, and outlasts the loss of {spare or 'none'}",
                "Take backups (lictor snapshot save), or run three or five servers.",
            )
        )
    gone = [str(member.get("Name")) for member in members if member.get("Status") == FAILED]
    if gone:
        found.append(
            warning(
                section,
                f"misses {len(gone)} of {len(members)} members: {', '.join(sorted(gone)[:10])}",
                "Bring them back, or if they are gone for good: lictor force-leave NODE",
            )
        )
    else:
        alive = sum(member.get("Status") == ALIVE for member in members)
        found.append(ok(section, f"sees {alive} member{'s' if alive != 1 else ''} alive, none failed"))
    return found


# -- clock -------------------------------------------------------------------------------------------------------------


def clock(client: api.Client) -> list[Finding]:
    """Whether the agent's clock agrees with this machine's."""
    section = "clock"
    sent = time.time()
    try:
        text = client.get("/v1/status/leader", accept=frozenset({200, 500})).headers.get("Date", "")
    except api.ApiError as error:
        return [warning(section, "cannot be compared with the agent's", str(error))]
    received = time.time()
    try:
        theirs = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return [warning(section, "cannot be compared: the agent sends no Date", "A proxy may have removed the header.")]
    # The header has whole seconds: their clock may have shown anything from theirs to a second later.
    ahead = max(theirs - received, sent - theirs - 1, 0.0)
    if ahead < CLOCK_WARNING_SECONDS:
        return [ok(section, "agrees with the agent's")]
    remedy = (
        "Certificates, tokens and lock delays need clocks that agree: run a time service (chrony, systemd-timesyncd)\n"
        "on every node. See `timedatectl status`."
    )
    report = broken if ahead > CLOCK_ERROR_SECONDS else warning
    return [report(section, f"differs from the agent's by {ahead:.0f} s", remedy)]


# -- disk --------------------------------------------------------------------------------------------------------------


def disk(data_dir: str, in_memory: bool) -> list[Finding]:
    """Whether the data directory is there, ours, large enough and fast enough."""
    section = "disk"
    if not data_dir:
        if in_memory:
            text = "is not used: the agent runs with -dev, and what it knows ends with it"
            return [warning(section, text, "For keeps, start it with -data-dir.")]
        return []
    try:
        status = os.stat(data_dir)
        usage = shutil.disk_usage(data_dir)
    except OSError as error:
        remedy = "Is the agent on another machine? Run this there, or name the directory with -data-dir."
        return [warning(section, f"{data_dir} cannot be looked at: {reason(error)}", remedy)]
    found = []
    free = f"{usage.free / 2**30:.1f} GiB of {usage.total / 2**30:.1f} GiB are free in {data_dir}"
    if usage.free < FREE_ERROR_BYTES:
        found.append(broken(section, free, "A server whose disk is full stops taking writes: make room now."))
    elif usage.free < FREE_WARNING_BYTES or usage.free < usage.total * FREE_WARNING_SHARE:
        found.append(warning(section, free, "Make room: a snapshot needs as much again as the data."))
    else:
        found.append(ok(section, free))
    if stat.S_IMODE(status.st_mode) & 0o007:
        found.append(
            warning(
                section, f"{data_dir} can be read by every user", f"It holds tokens and keys: chmod o-rwx {data_dir}"
            )
        )
    else:
        found.append(ok(section, f"{data_dir} is closed to other users"))
    return found + _sync_speed(data_dir)


def _sync_speed(data_dir: str) -> list[Finding]:
    section = "disk"
    times = []
    try:
        with tempfile.TemporaryFile(dir=data_dir, prefix=".lictor-check-", buffering=0) as file:
            for _ in range(SYNC_TRIES):
                file.write(b"\0" * SYNC_BYTES)
                begun = time.perf_counter()
                os.fsync(file.fileno())
                times.append(time.perf_counter() - begun)
    except OSError as error:
        remedy = "Run this as the agent's user, who must be able to write there."
        return [warning(section, f"{data_dir} cannot be written: {reason(error)}", remedy)]
    median = statistics.median(times)
    text = f"a sync takes {median * 1000:.1f} ms (median of {SYNC_TRIES}, worst {max(times) * 1000:.1f} ms)"
    if median < SYNC_WARNING_SECONDS:
        return [ok(section, text)]
    remedy = "Every write waits for one: use a local SSD, keep other loads off it, and avoid network file systems."
    return [(broken if median > SYNC_ERROR_SECONDS else warning)(section, text, remedy)]


# -- DNS ---------------------------------------------------------------------------------------------------------------


def dns(address: str, domain: str) -> list[Finding]:
    """Whether the DNS interface answers, over UDP and TCP."""
    section = "DNS"
    if not address:
        return [warning(section, "is turned off", "To have it, set ports.dns = 8600.")]
    import dnslib

    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    found = []
    for name, over_tcp in (("UDP", False), ("TCP", True)):
        question = dnslib.DNSRecord.question(f"consul.service.{domain}")
        try:
            packet = question.send(host, int(port), tcp=over_tcp, timeout=DNS_SECONDS, ipv6=":" in host)
            answer = dnslib.DNSRecord.parse(packet)
        except (OSError, ValueError, dnslib.DNSError) as error:
            what = reason(error) if isinstance(error, OSError) else str(error)
            advice = f"Is {name} port {port} open, and does client_addr or addresses.dns cover {host}?"
            remedy = f"{what or 'timed out'}. {advice}"
            found.append(broken(section, f"does not answer over {name} at {address}", remedy))
            continue
        code = dnslib.RCODE.get(answer.header.rcode)
        if code == "NOERROR" and answer.rr:
            found.append(
                ok(section, f"answers over {name} at {address}: consul.service.{domain} is {answer.rr[0].rdata}")
            )
        else:
            remedy = f"consul.service.{domain} has no address (the answer was {code}): is there a leader?"
            found.append(warning(section, f"answers over {name} at {address}, but knows no server", remedy))
    with contextlib.suppress(OSError, ValueError):
        found += _resolver(domain)
    return found


def _resolver(domain: str) -> list[Finding]:
    """Whether this machine's own resolver finds names of the domain; useful, and not needed."""
    try:
        socket.getaddrinfo(f"consul.service.{domain}", None)
    except OSError:
        text = f"is not asked by this machine's resolver: programs do not find names under .{domain}"
        remedy = (
            f"To have that, forward the domain to the agent, for example with systemd-resolved:\n"
            f"DNS=127.0.0.1:8600 and Domains=~{domain} in /etc/systemd/resolved.conf.d/lictor.conf."
        )
        return [warning("DNS", text, remedy)]
    return [ok("DNS", f"is asked by this machine's resolver for names under .{domain}")]
