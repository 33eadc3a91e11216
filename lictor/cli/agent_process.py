"""The agent as a process: configuration loaded, agent started, doors opened, signals obeyed, all closed again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import grp
import importlib
import os
import pwd
import signal
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from lictor.agent.agent import Agent
from lictor.agent.config import ConfigError, Endpoint, RuntimeConfig, diff_reload, load_agent, parse_flags, refusal
from lictor.agent.config.loading import DEV
from lictor.agent.logs import LogConfig, LogError, LogSystem, logger
from lictor.agent.systemd import Notifier
from lictor.agent.watch import WatchError, WatchPlan, parse_agent_watch
from lictor.cli.command import CommandError, Io
from lictor.dns.door import dns_settings, open_dns
from lictor.dns.server import DnsServer
from lictor.http.door import http_settings, open_door
from lictor.http.server import HttpServer
from lictor.model.errors import LictorError
from lictor.model.version import __version__

if TYPE_CHECKING:
    from lictor.agent.alone import ForAgents
    from lictor.agent.own_http import OwnHttp
    from lictor.agent.remote_exec import RemoteExec
    from lictor.agent.watch_runner import WatchRunner
    from lictor.connect_proxy.envoy.server import XdsServer
    from lictor.rpc.network import Network

log = logger("agent")

GC_THRESHOLDS = (20_000, 20, 50)
LEAVE_PATIENCE = 15.0  # seconds that leaving on a signal may take, besides performance.leave_drain_time

_TLS_VERSIONS = {
    "TLSv1_0": ssl.TLSVersion.TLSv1,
    "TLSv1_1": ssl.TLSVersion.TLSv1_1,
    "TLSv1_2": ssl.TLSVersion.TLSv1_2,
    "TLSv1_3": ssl.TLSVersion.TLSv1_3,
}


def run_agent(args: list[str], io: Io) -> int:
    """Run until a signal, or `leave`, ends it. Returns the exit code; raises `CommandError` for what prevents a
    start.
    """
    flags = parse_flags(args)
    try:
        config, warnings = load_agent(flags)
    except ConfigError as error:
        raise CommandError("\n".join(str(problem) for problem in error.problems)) from None
    refused = refusal(config)
    if refused is not None:
        raise CommandError(*refused)
    try:
        logs = LogSystem(_log_config(config))
    except LogError as error:
        raise CommandError(str(error)) from None
    io.out(_banner(config))
    try:
        for warning in warnings:
            log.warn(warning)
        return uvloop.run(_run(args, config, logs))
    except (OSError, LictorError) as error:
        raise CommandError(f"Error starting agent: {_words(error)}") from None
    finally:
        logs.close()


async def _run(args: list[str], config: RuntimeConfig, logs: LogSystem) -> int:
    """The agent's whole life; on the loop from its making on."""
    return await _Process(args, config, logs).run()


def _words(error: Exception) -> str:
    """An error as people read it: a file's, with its name first and without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _log_config(config: RuntimeConfig) -> LogConfig:
    return LogConfig(
        level=config.log_level,
        json=config.log_json,
        file=config.log_file,
        rotate_bytes=config.log_rotate_bytes,
        rotate_seconds=config.log_rotate_duration or LogConfig().rotate_seconds,
        max_files=config.log_rotate_max_files,
        syslog=config.enable_syslog,
        syslog_facility=config.syslog_facility,
    )


def _banner(config: RuntimeConfig) -> str:
    ports, addresses = config.ports, " ".join(config.client_addrs)
    rows = (
        ("Version", __version__),
        ("Node name", f"'{config.node_name}'"),
        ("Datacenter", f"'{config.datacenter}'"),
        ("Server", str(config.server).lower() + (" (in memory)" if config.dev_mode else "")),
        (
            "Client Addr",
            f"[{addresses}] (HTTP: {ports.http}, HTTPS: {ports.https}, DNS: {ports.dns})",
        ),
        ("Cluster Addr", f"{config.advertise_addr} (LAN: {ports.serf_lan}, WAN: {ports.serf_wan})"),
    )
    lines = "\n".join(f"{name:>16}: {value}" for name, value in rows)
    return f"==> Starting Lictor agent...\n{lines}\n\n==> Log data will now stream in as it occurs:\n"


class _Process:
    """One run of the agent."""

    def __init__(self, args: list[str], config: RuntimeConfig, logs: LogSystem) -> None:
        self.args = args
        self.config = config
        self.logs = logs
        self.agent = Agent(config, logs)
        self.agent.on_reload = self.reload
        self.agent.on_leave = self.stop
        self.http: HttpServer | None = None
        self.dns: DnsServer | None = None
        self.watches: WatchRunner | None = None
        self.remote: tuple[RemoteExec, OwnHttp] | None = None
        self.tls: ssl.SSLContext | None = None
        self.pid_file: Path | None = None
        self.reloading = asyncio.Lock()
        self.stopping = asyncio.Event()
        self.exit_code = 0
        self.leaving: asyncio.Task[None] | None = None
        self.opening: asyncio.Task[None] | None = None
        self.opening_xds: asyncio.Task[None] | None = None
        self.xds: XdsServer | None = None
        self.for_agents: ForAgents | None = None
        self.notifier = Notifier()

    def stop(self) -> None:
        """End the run."""
        self.stopping.set()

    def _on_signal(self, number: signal.Signals) -> None:
        """End the run, first leaving the cluster where the configuration says so; at once on a second signal."""
        config = self.config
        leave = config.leave_on_terminate if number is signal.SIGTERM else not config.skip_leave_on_interrupt
        if self.leaving is not None:
            log.warn("caught a second signal, ending without having left")
            self.exit_code = 1
        elif leave:
            log.info("caught a signal, leaving the cluster", signal=number.name)
            self.leaving = asyncio.get_running_loop().create_task(self._leave())
            return
        else:
            log.info("caught a signal", signal=number.name)
        self.stop()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_PATIENCE + self.config.performance.leave_drain_time):
                await self.agent.leave()
        except (TimeoutError, LictorError) as error:
            log.warn("ending without having left", error=str(error) or "it took too long")
            self.exit_code = 1
            self.stop()

    async def run(self) -> int:
        """From start to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        reloads: set[asyncio.Task[None]] = set()

        def reload_soon() -> None:
            task = loop.create_task(self._reload_on_signal())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload_soon)
        try:
            await self.agent.start()
            await self._open_doors()
            # What is there now stays: the collector need not look at it again, nor come by every few requests.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            self._write_pid_file()
            self.notifier.ready()
            log.info("agent ready", http=self.http.addresses if self.http else [])
            # Imported now, so that the first write does not wait for it.
            loop.run_in_executor(None, importlib.import_module, "lictor.http.full")
            self._launch_proxies()
            if self.config.dev_mode and self.config.server:
                self.opening = loop.create_task(self._open_to_agents())
            if self.config.dev_mode:
                self.opening_xds = loop.create_task(self._open_xds_later())
            await self.stopping.wait()
            self.notifier.stopping()
            log.info("stopping")
        finally:
            await self._close()
            self._remove_pid_file()
        return 1 if self.agent.failure else self.exit_code

    def _write_pid_file(self) -> None:
        if self.config.pid_file:
            path = Path(self.config.pid_file)
            try:
                path.write_text(f"{os.getpid()}\n")
            except OSError as error:
                raise OSError(f"cannot write pid_file {path}: {error.strerror or error}") from None
            self.pid_file = path

    def _remove_pid_file(self) -> None:
        """Remove the file that this process wrote, and never one that another agent has put in its place."""
        if self.pid_file is not None:
            with contextlib.suppress(OSError):
                if self.pid_file.read_text().strip() == str(os.getpid()):
                    self.pid_file.unlink()

    async def _open_doors(self) -> None:
        config = self.config
        self.http = open_door(self.agent, http_settings(config))
        for endpoint in config.listen.http:
            await self._listen_http(self.http, endpoint, None)
        if config.listen.https:
            self.tls = _server_tls(config)
            for endpoint in config.listen.https:
                await self._listen_http(self.http, endpoint, self.tls)
        if config.listen.dns or config.server:
            self.dns = open_dns(self.agent)
            await self.dns.start(sorted({(e.host, e.port) for e in config.listen.dns}))
        if self.agent.serving is not None:
            self._answer_agents(self.agent.serving.network)
        await self._publish_lookups()
        await self._watch([parse_agent_watch(watch) for watch in config.watches])
        if not config.disable_remote_exec:
            self._allow_remote_exec()
        if not config.dev_mode:
            await self._open_xds()

    async def _open_xds(self) -> None:
        """Let Envoys have their configuration, where a port for it is set."""
        from lictor.connect_proxy.envoy.opening import open_xds

        self.xds = await open_xds(self.agent)

    async def _open_xds_later(self) -> None:
        """Do the same on a server in memory, which answers its own callers before. One whose port is the one that -dev
        sets goes on without where it cannot be had.
        """
        try:
            await self._open_xds()
        except (OSError, LictorError) as error:
            if self.config.ports.grpc == DEV["ports"]["grpc"] and self.config.ports.grpc_tls <= 0:
                log.info("no Envoy can have its configuration here", reason=str(error))
            else:
                log.error("giving up", reason=str(error))
                self.agent.failure = str(error)
                self.stop()

    def _answer_agents(self, network: Network) -> None:
        """Answer what agents pass on to this server."""
        from lictor.agent.keyrings import serve_keyrings
        from lictor.dns.for_agents import serve_questions
        from lictor.http.forwarding import serve_datacenters, serve_requests

        assert self.http is not None and self.dns is not None
        serve_requests(self.http.api, network)
        if self.agent.wan is not None:
            serve_datacenters(self.http.api, self.agent.wan.datacenters)
            self.agent.elsewhere.serve(network, self.agent.wan)
            serve_keyrings(self.agent, self.agent.wan.datacenters)
        serve_questions(self.dns, network)

    async def _open_to_agents(self) -> None:
        """Let agents reach a server in memory, which answers its own callers before."""
        await asyncio.get_running_loop().run_in_executor(None, importlib.import_module, "lictor.agent.alone")
        from lictor.agent.alone import ForAgents
        from lictor.server.connect_ca import serve_signing

        assert self.agent.server is not None and self.agent.leadership is not None
        try:
            self.for_agents = ForAgents(self.config, self.agent.server)
            serve_signing(self.for_agents.network, self.agent.leadership.connect_ca)
            if self.agent.wan is not None:
                self.agent.wan.datacenters.serve(self.for_agents.network)
            self._answer_agents(self.for_agents.network)
            await self.for_agents.listen()
        except (OSError, LictorError) as error:
            log.warn("no other agent can reach this server", error=str(error))

    def _launch_proxies(self) -> None:
        """Start the proxies whose registration asks for it, and look after them."""
        config = self.config
        if not config.connect.enabled or not config.connect.launch.enabled or not hasattr(os, "pidfd_open"):
            return
        from lictor.agent.launcher import Launcher

        address = own_address(self.http.addresses) if self.http is not None else None
        if address is None:
            raise LictorError("launched proxies need an HTTP listener without TLS: set ports.http, or connect.launch")
        grpc = next((f"{one.host}:{one.port}" for one in config.listen.grpc if one.network == "tcp"), "")
        self.agent.launcher = Launcher(self.agent, address, grpc)
        self.agent.launcher.start()

    async def _publish_lookups(self) -> None:
        """Let programs of this machine look services up by themselves, in a file named by the agent's address."""
        from lictor.agent.lookup_map import open_lookup_map

        address = own_address(self.http.addresses) if self.http is not None else None
        self.agent.lookup_map = await open_lookup_map(self.agent, address)

    def _allow_remote_exec(self) -> None:
        """Let `lictor exec` run programs here; what they print is written through the agent's own door."""
        from lictor.agent.own_http import OwnHttp
        from lictor.agent.remote_exec import RemoteExec

        address = own_address(self.http.addresses) if self.http is not None else None
        if address is None:
            raise LictorError("remote exec needs an HTTP listener without TLS: set ports.http, or disable_remote_exec")
        ledger = OwnHttp(address, self.agent.tokens.get("agent", "") or self.agent.tokens.get("default", ""))
        self.remote = (RemoteExec(self.config.node_name, ledger), ledger)
        self.agent.remote_exec = self.remote[0]

    async def _watch(self, plans: list[WatchPlan]) -> None:
        """Run these watches and no others, through the agent's own door."""
        if self.watches is not None:
            await self.watches.reload(plans)
        elif plans and self.http is not None:
            from lictor.agent.watch_runner import WatchRunner

            address = self._door_of_watches(self.http)
            self.watches = WatchRunner(address, self.agent.tokens.get("default", ""))
            await self.watches.start(plans)

    def _door_of_watches(self, http: HttpServer) -> str:
        address = own_address(http.addresses)
        if address is None:
            raise LictorError("watches need an HTTP listener without TLS: set ports.http or addresses.http")
        return address

    async def _listen_http(self, http: HttpServer, endpoint: Endpoint, tls: ssl.SSLContext | None) -> None:
        try:
            if endpoint.network == "unix":
                sockets = self.config.unix_sockets
                mode = int(sockets.mode, 8) if sockets.mode else None
                await http.listen_unix(Path(endpoint.host), mode, _owner(sockets.user, sockets.group))
            else:
                await http.listen(endpoint.host, endpoint.port, tls)
        except OSError as error:
            raise OSError(f"cannot listen on {endpoint} for HTTP: {error.strerror or error}") from None

    async def _close(self) -> None:
        for task in (self.leaving, self.opening, self.opening_xds):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self.watches is not None:
            await self.watches.close()
        if self.agent.launcher is not None:
            # A signal is how agents are restarted, also where it makes them leave: their proxies go on.
            await self.agent.launcher.close(stop=self.agent.has_left and self.leaving is None)
        if self.remote is not None:
            for part in self.remote:
                await part.close()
        if self.xds is not None:
            await self.xds.close()
        if self.http is not None:
            await self.http.close()
        if self.dns is not None:
            await self.dns.close()
        if self.agent.lookup_map is not None:
            await self.agent.lookup_map.close()
        if self.for_agents is not None:
            await self.for_agents.close()
        await self.agent.close()

    async def _reload_on_signal(self) -> None:
        try:
            await self.reload()
        except (LictorError, OSError) as error:
            log.error("reload failed, nothing was changed", error=str(error))

    async def reload(self) -> list[str]:
        """Read the configuration anew and take over what can change while running. Returns the keys that need a
        restart. Raises `LictorError` and changes nothing where something is wrong with it.
        """
        async with self.reloading:
            self.notifier.reloading()
            try:
                return await self._reload()
            finally:
                self.notifier.ready()

    async def _reload(self) -> list[str]:
        try:
            fresh, warnings = load_agent(parse_flags(self.args))
            plans = [parse_agent_watch(watch) for watch in fresh.watches]
        except ConfigError as error:
            raise LictorError("; ".join(str(problem) for problem in error.problems)) from None
        except WatchError as error:
            raise LictorError(f"watches: {error}") from None
        plan = diff_reload(self.config, fresh)
        if self.tls is not None:
            _server_tls(plan.config)  # what cannot be read is found before anything is taken over
        if plans and self.http is not None:
            self._door_of_watches(self.http)  # likewise
        for warning in warnings:
            log.warn(warning)
        await self.agent.take_config(plan.config)
        self.config = plan.config
        self.logs.set_level(plan.config.log_level)
        if self.dns is not None:
            self.dns.reload(dns_settings(self.agent))
        if self.http is not None:
            self.http.api.take_settings(http_settings(plan.config))
        if self.tls is not None:
            _show_certificate(self.tls, plan.config)
        await self._watch(plans)
        for key in plan.refused:
            log.warn("a changed key needs a restart to take effect", key=key)
        log.info("configuration reloaded", changed=list(plan.changed))
        return list(plan.refused)


def own_address(addresses: list[str]) -> str | None:
    """The address at which the agent reaches its own door: a plain one, on the loopback where it listens everywhere."""
    for address in addresses:
        if address.startswith(("http://", "unix://")):
            return address.replace("://0.0.0.0:", "://127.0.0.1:").replace("://[::]:", "://[::1]:")
    return None


def _owner(user: str, group: str) -> tuple[int, int] | None:
    if not user and not group:
        return None
    uid = -1 if not user else int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    gid = -1 if not group else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    return uid, gid


def _server_tls(config: RuntimeConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _TLS_VERSIONS[config.tls.https.tls_min_version or config.tls.defaults.tls_min_version]
    _show_certificate(context, config)
    return context


def _show_certificate(context: ssl.SSLContext, config: RuntimeConfig) -> None:
    """Have handshakes from now on show the certificate that the files hold now, and trust their authorities; one that
    was trusted before goes on being trusted until the agent starts anew. Raises `LictorError`.
    """
    own, common = config.tls.https, config.tls.defaults
    cert, key = own.cert_file or common.cert_file, own.key_file or common.key_file
    if not cert or not key:
        # As in Consul: the port is there, and a reload may bring the certificate.
        log.warn("HTTPS refuses every caller: set tls.https.cert_file and key_file, or those of tls.defaults")
        return
    authorities, folder = own.ca_file or common.ca_file, own.ca_path or common.ca_path
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise LictorError(f"the HTTPS certificate {cert} with the key {key}: {_words(error)}") from None
    try:
        if authorities or folder:
            context.load_verify_locations(authorities or None, folder or None)
    except OSError as error:
        raise LictorError(f"the authorities of HTTPS in {authorities or folder}: {_words(error)}") from None
    verify = common.verify_incoming if own.verify_incoming is None else own.verify_incoming
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
