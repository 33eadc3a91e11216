"""Does a mesh notice that its servers are away? Two client agents with services and proxies, the built-in ones and
Envoy, each kind calling each; connections that last and say something every second, new ones every second, and
forbidden ones. The servers are killed and stay away; on request each agent is killed meanwhile with all of its proxies,
and started again with nothing but what it has on disk.
"""

import asyncio
import contextlib
import random
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from jepsen import programs
from jepsen.client import Lost, NotSent
from jepsen.cluster import Cluster, NeverHappened, Server
from jepsen.network import Loopback
from jepsen.programs import HTTP_PORT, SERVER_PORT

PACE: Final = 1.0  # seconds between two attempts of one kind
ANSWER: Final = 60.0  # seconds for one: the machine may stand still
HEALTHY: Final = 5.0  # seconds before the servers go, and after they are back
GRPC_PORT: Final = 8502
ADMIN_PORT: Final = 19000
UPSTREAM_PORT: Final = 9100
SIDECAR_PORT: Final = 21000
# What this is about is servers that are away, not a machine that stands still for seconds.
PATIENT: Final = {"connect_timeout_ms": 60_000, "local_connect_timeout_ms": 60_000}
GOSSIP: Final = {"suspicion_mult": 30}
BUILTIN, ENVOY = "built-in", "envoy"
QUERY: Final = "query"
CALLED: Final = {BUILTIN: "page", ENVOY: "page-envoy"}
CALLERS: Final = {BUILTIN: "web", ENVOY: "web-envoy"}
STRANGERS: Final = {BUILTIN: "stranger", ENVOY: "stranger-envoy"}


class Plan(msgspec.Struct, frozen=True):
    """What is to be run: the servers are away for `away` seconds, and with `restart` each agent is killed meanwhile."""

    away: float
    servers: int
    restart: bool
    folder: Path


class Counts(msgspec.Struct):
    """What became of one way through the mesh."""

    ticks: int = 0
    made: int = 0
    refused: int = 0
    excused: int = 0
    failures: list[str] = msgspec.field(default_factory=list)


class Way:
    """From a caller's proxy to a service: where to connect, and whether that is allowed."""

    def __init__(self, name: str, address: str, port: int, *, allowed: bool) -> None:
        self.name = name
        self.allowed = allowed
        self.counts = Counts()
        self._address = address
        self._port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the caller's proxy. Raises `OSError`."""
        return await asyncio.open_connection(self._address, self._port)

    async def ask(self) -> str:
        """What becomes of a new connection: `answered`, `refused` by the mesh, or why there was none."""
        try:
            async with asyncio.timeout(ANSWER):
                reader, writer = await self.connect()
                try:
                    return "answered" if await say(reader, writer) else "refused"
                except ConnectionError:
                    return "refused"
                finally:
                    writer.transport.abort()
        except TimeoutError:
            return f"no answer within {ANSWER:g} s"
        except OSError as error:
            return f"no connection: {type(error).__name__}: {error}"


async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether a word comes back. Raises `ConnectionError`."""
    writer.write(b"tick\n")
    return await reader.readline() == b"tick\n"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    writer.close()


class Agent:
    """A client agent, and the proxies beside it."""

    def __init__(self, process: Server) -> None:
        self.process = process
        self.proxies: list[Server] = []


class _Run:
    def __init__(self, plan: Plan, cluster: Cluster, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._cluster = cluster
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._kinds = [BUILTIN] + ([ENVOY] if _envoy() else [])
        self._ways: list[Way] = []
        self._excused = False
        self._ending = asyncio.Event()
        # An address for each of them, of the same network.
        network, count = cluster.network, plan.servers
        self._agents = [self._agent(count + n, name, network.address(count + n)) for n, name in ((1, "a"), (2, "b"))]

    def _agent(self, number: int, name: str, address: str) -> Agent:
        process = self._process(number, name, address)
        config = self._plan.folder / "agent.json"
        ports = {"dns": -1, "serf_wan": -1, "grpc": GRPC_PORT}
        config.write_bytes(msgspec.json.encode({"ports": ports, "disable_update_check": True, "gossip_lan": GOSSIP}))
        process.launch = [
            *(sys.executable, "-m", "lictor", "agent", f"-node={name}", f"-bind={address}", f"-client={address}"),
            *(f"-data-dir={process.data}", f"-config-file={config}", "-retry-interval=1s"),
            *(f"-retry-join={server.address}:8301" for server in self._cluster.servers),
        ]
        return Agent(process)

    def _process(self, number: int, name: str, address: str) -> Server:
        made = Server(number, address, self._plan.folder, lambda kind, text: None)
        made.name, made.data, made.log = name, self._plan.folder / name, self._plan.folder / f"{name}.log"
        return made

    async def run(self) -> tuple[str, bool]:
        """All of it. Returns what is to be told, and whether nothing was wrong."""
        a, b = self._agents
        service = await asyncio.start_server(_echo, "127.0.0.1", 0)
        try:
            for agent in self._agents:
                await agent.process.start()
                await self._answers(agent)
            await self._register(a, b, service.sockets[0].getsockname()[1])
            for agent in self._agents:
                await self._start_proxies(agent)
            await self._well("the mesh works")
            for agent in self._agents:
                await self._cluster.eventually(partial(self._kept, agent), f"what {agent.process} holds is on disk")
            traffic = [asyncio.create_task(self._renew(way)) for way in self._ways]
            traffic += [asyncio.create_task(self._last(way)) for way in self._ways if way.allowed]
            try:
                logged = await self._away()
            finally:
                self._ending.set()
                await asyncio.gather(*traffic)
        finally:
            service.close()
            for agent in self._agents:
                for process in (*agent.proxies, agent.process):
                    await process.end(signal.SIGKILL)
        return self._told(logged)

    async def _away(self) -> dict[str, int]:
        """Servers go, are away, and come back. Returns how many lines each agent has logged meanwhile."""
        await asyncio.sleep(HEALTHY)
        self._note(f"the servers are killed, for {self._plan.away:g} s")
        for server in self._cluster.servers:
            await server.end(signal.SIGKILL)
        gone = self._loop.time()
        logged = {agent.process.name: _lines(agent.process) for agent in self._agents}
        if self._plan.restart:
            for number, agent in enumerate(reversed(self._agents), 1):
                await self._until(gone + self._plan.away * number / 3)
                await self._restart(agent)
        await self._until(gone + self._plan.away)
        logged = {agent.process.name: _lines(agent.process) - logged[agent.process.name] for agent in self._agents}
        self._note(f"the servers are started again after {self._loop.time() - gone:.0f} s")
        for server in self._cluster.servers:
            await server.start()
        await self._cluster.settle()
        for agent in self._agents:
            await self._cluster.eventually(partial(self._follows, agent), f"{agent.process} has found them")
        await asyncio.sleep(HEALTHY)
        return logged

    async def _restart(self, agent: Agent) -> None:
        """Kill an agent with its proxies, and have all of it work again without servers. Raises `NeverHappened`."""
        self._excused = True
        self._note(f"agent {agent.process} and its proxies are killed")
        for process in (agent.process, *agent.proxies):
            await process.end(signal.SIGKILL)
        began = self._loop.time()
        await agent.process.start()
        await self._answers(agent)
        await self._start_proxies(agent)
        await self._well(f"the mesh works after a restart of {agent.process} without servers")
        self._note(f"agent {agent.process} and its proxies serve again after {self._loop.time() - began:.1f} s")
        self._excused = False

    async def _until(self, time: float) -> None:
        await asyncio.sleep(max(0.0, time - self._loop.time()))

    # -- the mesh -----------------------------------------------------------------------------------------------------

    async def _register(self, a: Agent, b: Agent, port: int) -> None:
        kinds = self._kinds
        for kind in kinds:
            await self._put(a, "/v1/agent/service/register", _definition(CALLED[kind], port, a.process.address, []))
            entry = {
                "Kind": "service-intentions",
                "Name": CALLED[kind],
                "Sources": [
                    *({"Name": CALLERS[caller], "Action": "allow"} for caller in kinds),
                    {"Name": "*", "Action": "deny"},
                ],
            }
            await self._put(a, "/v1/config", entry)
            self._add_proxy(a, CALLED[kind], kind)
        await self._put(a, "/v1/query", {"Name": QUERY, "Service": {"Service": CALLED[BUILTIN]}}, "POST")
        local = UPSTREAM_PORT
        for names, allowed in ((CALLERS, True), (STRANGERS, False)):
            for kind in kinds:
                upstreams = []
                for called in (*kinds, QUERY):
                    local += 1
                    upstreams.append((CALLED.get(called, QUERY), local))
                    name = f"{names[kind]} ({kind}) to {CALLED.get(called, 'a prepared query')} ({called})"
                    self._ways.append(Way(name, b.process.address, local, allowed=allowed))
                definition = _definition(names[kind], 1, b.process.address, upstreams)
                await self._put(b, "/v1/agent/service/register", definition)
                self._add_proxy(b, names[kind], kind)

    def _add_proxy(self, agent: Agent, service: str, kind: str) -> None:
        address, number = agent.process.address, len(agent.proxies)
        process = self._process(0, f"{service}-proxy", address)
        verb = (
            ["proxy"]
            if kind == BUILTIN
            else [
                *("envoy", f"-admin-bind={address}:{ADMIN_PORT + number}", f"-grpc-addr={address}:{GRPC_PORT}"),
            ]
        )
        process.launch = [
            *(sys.executable, "-m", "lictor", "connect", *verb, f"-sidecar-for={service}"),
            f"-http-addr={address}:{HTTP_PORT}",
            *(["--", "--concurrency", "1", "--log-level", "warn"] if kind == ENVOY else []),
        ]
        agent.proxies.append(process)

    async def _start_proxies(self, agent: Agent) -> None:
        for process in agent.proxies:
            await process.start()

    async def _well(self, what: str) -> None:
        """Wait until who may gets through, and who may not is refused. Raises `NeverHappened`."""
        for way in self._ways:
            wanted = "answered" if way.allowed else "refused"

            async def as_wanted(way: Way = way, wanted: str = wanted) -> bool:
                return await way.ask() == wanted

            await self._cluster.eventually(as_wanted, f"{what}: {way.name} is {wanted}")

    async def _put(self, agent: Agent, path: str, body: Any, method: str = "PUT") -> None:
        async def put() -> bool:
            try:
                return (await self._cluster.ask(agent.process, method, path, body, timeout=ANSWER)).status == 200
            except (NotSent, Lost):
                return False

        await self._cluster.eventually(put, f"{agent.process} takes {path}")

    async def _get(self, agent: Agent, path: str) -> Any:
        try:
            answer = await self._cluster.ask(agent.process, "GET", path, timeout=ANSWER)
            return msgspec.json.decode(answer.body) if answer.status == 200 else None
        except (NotSent, Lost, msgspec.DecodeError):
            return None

    async def _answers(self, agent: Agent) -> None:
        async def answers() -> bool:
            if not agent.process.running:
                raise NeverHappened(f"{agent.process} {agent.process.ending}; see {agent.process.log}")
            return await self._get(agent, "/v1/agent/self") is not None

        await self._cluster.eventually(answers, f"{agent.process} answers")

    async def _kept(self, agent: Agent) -> bool:
        found = await self._get(agent, "/v1/agent/self")
        return bool(found) and found["Stats"]["replica"]["on_disk"] == "current"

    async def _follows(self, agent: Agent) -> bool:
        found = await self._get(agent, "/v1/agent/self")
        return bool(found) and found["Stats"]["replica"]["server"].endswith(f":{SERVER_PORT}")

    # -- what goes through it -----------------------------------------------------------------------------------------

    async def _last(self, way: Way) -> None:
        """A connection that lasts, and another one where it was cut."""
        while not self._ending.is_set():
            excused, since = self._excused, self._loop.time()
            try:
                async with asyncio.timeout(ANSWER):
                    reader, writer = await way.connect()
            except OSError as error:
                self._failed(way, excused, since, f"no connection that is to last: {error}")
                await self._pause()
                continue
            try:
                while not self._ending.is_set():
                    excused, since = self._excused, self._loop.time()
                    try:
                        async with asyncio.timeout(ANSWER):
                            answered = await say(reader, writer)
                    except OSError:  # `TimeoutError` is one
                        answered = False
                    if not answered:
                        self._failed(way, excused, since, "a connection that had lasted was cut")
                        await self._pause()
                        break
                    way.counts.ticks += 1
                    await self._pause()
            finally:
                writer.transport.abort()

    async def _renew(self, way: Way) -> None:
        """A new connection every second."""
        while not self._ending.is_set():
            excused, since = self._excused, self._loop.time()
            outcome = await way.ask()
            if outcome == "answered" and way.allowed:
                way.counts.made += 1
            elif outcome == "refused" and not way.allowed:
                way.counts.refused += 1
            elif outcome == "answered":
                self._failed(way, False, since, "a forbidden connection was let through")
            else:
                self._failed(way, excused, since, f"a new connection was {outcome}")
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PACE):
                await self._ending.wait()

    def _failed(self, way: Way, excused: bool, since: float, what: str) -> None:
        if excused or self._excused:
            way.counts.excused += 1
        else:
            way.counts.failures.append(f"{since - self._began:.0f} s: {what}")

    # -- what is told -------------------------------------------------------------------------------------------------

    def _note(self, text: str) -> None:
        self._say(f"{self._loop.time() - self._began:6.0f} s  {text}")

    def _told(self, logged: dict[str, int]) -> tuple[str, bool]:
        lines = [f"{'way':<52} {'ticks':>7} {'new':>7} {'refused':>8} {'excused':>8} {'failed':>7}"]
        good = True
        for way in self._ways:
            found = way.counts
            good = good and not found.failures and bool(found.ticks and found.made if way.allowed else found.refused)
            row = f"{found.ticks:>7} {found.made:>7} {found.refused:>8} {found.excused:>8} {len(found.failures):>7}"
            lines.append(f"{way.name:<52} {row}")
            lines += [f"    {failure}" for failure in found.failures[:10]]
        lines += [
            f"agent {name} has logged {count} lines while the servers were away" for name, count in logged.items()
        ]
        if ENVOY not in self._kinds:
            lines.append("without Envoy, which is not installed: pip install 'lictor[envoy]'")
        lines.append("nothing was noticed" if good else "it was noticed")
        return "\n".join(lines), good


def _definition(name: str, port: int, address: str, upstreams: Sequence[tuple[str, int]]) -> dict[str, Any]:
    offered = [
        {
            "DestinationType": "prepared_query" if called == QUERY else "service",
            "DestinationName": called,
            "LocalBindAddress": address,
            "LocalBindPort": at,
            "Config": PATIENT,
        }
        for called, at in upstreams
    ]
    checks = [{"Name": "its service", "AliasService": name}]
    names = [*CALLED.values(), *CALLERS.values(), *STRANGERS.values()]
    config = {**PATIENT, "bind_address": address}  # several runs at a time do not meet
    proxy = {"Upstreams": offered, "Config": config}
    sidecar = {"Port": SIDECAR_PORT + names.index(name), "Proxy": proxy, "Checks": checks}
    return {"Name": name, "Port": port, "Address": address, "Connect": {"SidecarService": sidecar}}


def _envoy() -> str:
    return shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy") or ""


def _lines(process: Server) -> int:
    return process.log.read_bytes().count(b"\n")


async def run(plan: Plan, say: Callable[[str], None]) -> tuple[str, bool]:
    """Do it all, and end every process. Returns what is to be told, and whether nothing was wrong. Raises
    `NeverHappened` for what should have worked and did not.
    """
    network = Loopback(random.Random())
    cluster = Cluster(programs.lictor(), network, plan.folder, plan.servers, lambda kind, text: None, own_disks=False)
    try:
        settings = msgspec.json.decode(programs.configuration(1, 0)) | {"gossip_lan": GOSSIP}
        await cluster.start(msgspec.json.encode(settings))
        return await _Run(plan, cluster, say).run()
    finally:
        await cluster.close()
