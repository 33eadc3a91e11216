"""`lictor connect proxy`: the built-in proxy, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lictor.cli import api
from lictor.cli.command import CommandError, Io, reason
from lictor.model.goflags import FlagSet

if TYPE_CHECKING:
    from lictor.client.settings import Settings
    from lictor.connect_proxy.process import Wanted
    from lictor.connect_proxy.settings import Address, OutboundSettings

SYNOPSIS = "Runs a Connect proxy"

HELP = """\
Usage: lictor connect proxy [options]

  Runs a proxy of the mesh until an interrupt is received: it accepts
  connections for a service, makes connections to upstreams for it, or both,
  with mutual TLS and intentions. It needs the right to write the service that
  it stands for: see -token.

  The proxy of a service that was registered with a sidecar:

      $ lictor connect proxy -sidecar-for web

  All sidecars of the agent that ask for the built-in proxy, in one process:

      $ lictor connect proxy -node

  A local port that leads to "db", for a service "frontend" that is not
  registered:

      $ lictor connect proxy -service frontend -upstream db:8181

  And one that also accepts connections on port 8443 for port 8080:

      $ lictor connect proxy -service frontend -upstream db:8181 \\
          -service-addr 127.0.0.1:8080 -listen :8443 -register"""


def flags() -> FlagSet:
    """The HTTP API options, and whose proxy it is."""
    flags = FlagSet("connect proxy", HELP)
    api.client_flags(flags)
    api.server_flags(flags)
    flags.string(
        "admin-bind", "", "Loopback `address` and port for Prometheus' metrics (/metrics) and /ready. Default: none."
    )
    flags.string("handover", "", "Path of a unix socket by which a later process takes over the listeners of this one.")
    flags.string("listen", "", "Address to accept connections of the mesh on. Needs -service and -service-addr.")
    flags.bool("log-json", False, "Log in JSON.")
    flags.string("log-level", "INFO", "Lowest level to log: trace, debug, info, warn or error.")
    flags.bool("node", False, 'Serve every sidecar of the agent whose proxy block says "Launch": "builtin".')
    flags.string("proxy-id", "", "The proxy's ID on the local agent.")
    flags.bool("register", False, "Register with the local agent. Only useful with -listen.")
    flags.string("register-id", "", "Suffix of the registration's ID, to tell proxies of one service apart.")
    flags.string("service", "", "Name of the service that the proxy stands for.")
    flags.string("service-addr", "", "Address of the local service. Only useful with -listen and -service.")
    flags.string(
        "sidecar-for", "", "ID of a service instance of the local agent whose registered sidecar this proxy becomes."
    )
    flags.bool("undeclared", False, "With -node, serve sidecars as well that do not say who starts them.")
    flags.strings(
        "upstream", (), "Upstream service and where to listen for it, as name:port or name:address:port. Repeatable."
    )
    return flags


def run(args: list[str], io: Io) -> int:
    """Serve until a signal comes."""
    from lictor.agent.logs import LogConfig, LogError, LogSystem

    options = flags()
    words = options.parse(args)
    if words:
        raise CommandError("Should have no non-flag arguments.")
    upstreams = [_upstream(text) for text in options["upstream"]]
    io.out("==> Lictor Connect proxy starting...")
    wanted = _wanted(options, upstreams, io)
    settings = _settings(options, io)
    try:
        logs = LogSystem(LogConfig(level=options["log-level"], json=options["log-json"]))
    except LogError as error:
        raise CommandError(str(error)) from None
    io.out("\n==> Log data will now stream in as it occurs:\n")
    from lictor.connect_proxy.process import run as serve

    try:
        serve(wanted, settings)
    except OSError as error:
        raise CommandError(f"Error running the proxy: {error}") from None
    finally:
        logs.close()
    io.out("==> Lictor Connect proxy shutdown")
    return 0


def _settings(options: FlagSet, io: Io) -> Settings:
    from lictor.client.settings import Settings

    token = options["token"]
    if options["token-file"]:
        try:
            with open(options["token-file"], encoding="utf-8") as file:
                token = file.read().strip()
        except OSError as error:
            path = options["token-file"]
            raise CommandError(f"Error loading token file: open {path}: {reason(error)}") from None
    try:
        return Settings(
            options["http-addr"],
            token=token,
            ca_file=options["ca-file"],
            ca_path=options["ca-path"],
            client_cert=options["client-cert"],
            client_key=options["client-key"],
            server_name=options["tls-server-name"],
            environment=io.env,
        )
    except ValueError as error:
        raise CommandError(f"Error connecting to Consul agent: {error}") from None


def _wanted(options: FlagSet, upstreams: list[OutboundSettings], io: Io) -> Wanted:
    """What the flags ask for; what is asked for is told. Raises CommandError."""
    from lictor.connect_proxy.process import Wanted
    from lictor.connect_proxy.settings import SidecarSettings

    common: dict[str, Any] = {
        "admin": _admin(options["admin-bind"]),
        "handover": options["handover"],
        "datacenter": options["datacenter"],
    }
    if options["node"]:
        if options["proxy-id"] or options["sidecar-for"] or options["service"]:
            raise _preparing("-node serves all sidecars: leave out -proxy-id, -sidecar-for and -service.")
        _tell(io, {"Configuration mode": "Agent API", "Serves": "every sidecar of the node"})
        return Wanted(node=True, undeclared=options["undeclared"], **common)
    proxy_id = options["proxy-id"]
    facts = {"Configuration mode": "Agent API"}
    if options["sidecar-for"] and not proxy_id:
        proxy_id = _sidecar_for(options, io)
        facts["Sidecar for ID"] = options["sidecar-for"]
    if proxy_id:
        _tell(io, {**facts, "Proxy ID": proxy_id})
        return Wanted(proxy_id=proxy_id, **common)
    service = options["service"]
    if not service:
        raise _preparing("-service or -proxy-id must be specified so that proxy can configure itself.")
    inbound = _inbound(options)
    facts = {"Configuration mode": "Flags", "Service": service}
    for number, upstream in enumerate(upstreams):
        facts["Upstream" + " " * number] = f"{upstream.name} => {upstream.bind}"
    facts["Public listener"] = f"{inbound.bind} => {inbound.target}" if inbound else "Disabled"
    _tell(io, facts)
    if options["register"] and inbound is None:
        raise CommandError(
            "Failed initializing registration: -register may only be specified with -service and -listen"
        )
    return Wanted(
        given=SidecarSettings(service, service, inbound, tuple(upstreams)),
        register=options["register"],
        register_id=options["register-id"],
        **common,
    )


def _inbound(options: FlagSet) -> Any:
    from lictor.connect_proxy.settings import Address, InboundSettings
    from lictor.model.host_port import split_host_port

    listen, target = options["listen"], options["service-addr"]
    if not listen:
        return None
    if not target:
        raise _preparing("-service-addr must be specified with -listen so the proxy knows the backend service address.")
    try:
        host, port = split_host_port(f"0.0.0.0{listen}" if listen.startswith(":") else listen, 0)
        if not port:
            raise ValueError(f"{listen!r} has no port")
        bind = Address(host, port)
        if target.startswith("/"):
            return InboundSettings(bind, Address(path=target))
        host, port = split_host_port(f"127.0.0.1{target}" if target.startswith(":") else target, 0)
        if not port:
            raise ValueError(f"{target!r} has no port")
    except ValueError as error:
        raise _preparing(str(error)) from None
    return InboundSettings(bind, Address(host, port))


def _upstream(text: str) -> OutboundSettings:
    """An upstream of the command line. Raises CommandError."""
    from lictor.connect_proxy.settings import Address, OutboundSettings

    name, colon, address = text.partition(":")
    host, _, port = address.rpartition(":")
    problem = ""
    if not colon or not name:
        problem = f'Upstream value should be name:addr in "{text}"'
    elif not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        problem = f'strconv.ParseInt: parsing "{port}": invalid syntax'
    if problem:
        raise CommandError(f'invalid value "{text}" for flag -upstream: {problem}', "For example: -upstream db:8181")
    return OutboundSettings(Address(host.strip("[]") or "127.0.0.1", int(port)), name)


def _admin(text: str) -> Address | None:
    from lictor.connect_proxy.admin import loopback
    from lictor.connect_proxy.settings import Address
    from lictor.model.host_port import split_host_port

    if not text:
        return None
    try:
        host, port = split_host_port(f"127.0.0.1{text}" if text.startswith(":") else text, 19000)
    except ValueError as error:
        raise _preparing(f"-admin-bind: {error}") from None
    if not loopback(host):
        raise _preparing(f"-admin-bind: {host} is no loopback address, and what is shown there is not for everybody")
    return Address("127.0.0.1" if host == "localhost" else host, port)


def _sidecar_for(options: FlagSet, io: Io) -> str:
    """The ID of the only proxy that is a sidecar of an instance. Raises CommandError."""
    wanted = options["sidecar-for"]
    try:
        services = api.connect(options, io).get("/v1/agent/services").json()
    except api.ApiError as error:
        raise _preparing(f"Failed looking up sidecar proxy info for {wanted}: {error}", error.hint) from None
    found = [
        service["ID"]
        for service in services.values()
        if service.get("Kind") == "connect-proxy"
        and ((service.get("Proxy") or {}).get("DestinationServiceID") or "").lower() == wanted.lower()
    ]
    if not found:
        hint = "Register it with connect.sidecar_service in the service's definition, or check the ID."
        raise _preparing(
            f"Failed looking up sidecar proxy info for {wanted}: No sidecar proxy registered for {wanted}", hint
        )
    if len(found) > 1:
        raise _preparing(
            f"Failed looking up sidecar proxy info for {wanted}: More than one sidecar proxy registered for {wanted}.\n"
            f"    Start proxy with -proxy-id and one of the following IDs: {', '.join(sorted(found))}"
        )
    return str(found[0])


def _preparing(why: str, hint: str = "") -> CommandError:
    return CommandError(f"==> Error preparing configuration: {why}", hint)


def _tell(io: Io, facts: dict[str, str]) -> None:
    width = max(len("Configuration mode"), *(len(name.rstrip()) for name in facts)) + 4
    for name, value in facts.items():
        io.out(f"{name.rstrip():>{width}}: {value}".rstrip())
