"""The proxies that this agent starts and looks after: which ones is decided in `launching`, how is done here.

    launcher = Launcher(agent, "http://127.0.0.1:8500")
    launcher.start()
    await launcher.close(stop=False)     # the proxies go on; the next agent in the same data folder finds them

A proxy is a process of its own, in a session of its own, whose output goes to a file: it does not notice when the agent
ends. What runs is kept on disk, so that an agent that starts, after an upgrade too, takes charge of what it finds. What
has to be replaced drains: a built-in proxy hands its listeners to the next one, and ends when its last connection does;
an Envoy accepts no more, and has a while for those that it has. Without a data folder (`-dev`) the proxies end with the
agent.

The folder holds a record and the output of each; `run` below it, which is the proxies' user's, holds their sockets.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from lictor.agent.following import Woken
from lictor.agent.launched_envoy import drain_envoy
from lictor.agent.launching import (
    KILL,
    RUNNING,
    START,
    STOPPED,
    TERMINATE,
    Keeper,
    LaunchSettings,
    Program,
    launch_settings,
    plan,
)
from lictor.agent.logs import logger
from lictor.agent.persistence import make_folder, write_file
from lictor.agent.processes import Launched, Watched, memory, start
from lictor.agent.worker import Worker
from lictor.model.service import BUILTIN, ENVOY
from lictor.model.version import __version__

if TYPE_CHECKING:
    from lictor.agent.agent import Agent

FOLDER = "proxies"
LOG_MOST = 8 * 1024 * 1024  # bytes of a proxy's output before it begins anew; the former ones are kept once
LOG_LOOK = 60.0  # seconds between looks at how much there is
NAME_MOST, NAME_KEPT = 200, 180  # characters of a file's name, and how many of a longer one are kept
SAID_MOST = 4096  # bytes at the end of a proxy's output in which its last words are looked for
DRAIN = 20.0  # seconds that the connections of an Envoy have to end
STOP_PATIENCE = 40.0  # seconds that `close` waits for the proxies' ends
INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "HOME", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR")

log = logger("agent.launcher")


class Record(msgspec.Struct, frozen=True):
    """What is on disk of a program that runs."""

    process: Launched
    program: Program
    version: str
    address: str


class ProcessState(msgspec.Struct, frozen=True, rename="pascal"):
    """A process that serves a sidecar, and maybe others. `seconds` is how long it has been in its state and served this
    sidecar, `reason` why it last ended, `memory` how many of its bytes are in memory.
    """

    program: str
    kind: str
    state: str
    pid: int = msgspec.field(name="PID")
    restarts: int
    seconds: float
    reason: str
    memory: int
    output: str


class _Run:
    """One program, while it is wanted and until it has ended."""

    def __init__(self, program: Program, chance: float) -> None:
        self.program = program
        self.keeper = Keeper(chance)
        self.watched: Watched | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.version = __version__
        self.address = ""
        self.wanted = True
        self.starting: asyncio.Task[None] | None = None
        self._joined: dict[str, float] = {}

    def serve(self, program: Program, now: float) -> None:
        """Serve other sidecars as well, or fewer."""
        before = self.program.proxies
        self._joined = {proxy: self._joined.get(proxy, 0.0) if proxy in before else now for proxy in program.proxies}
        self.program = program

    def since(self, proxy: str) -> float:
        """When it began to be in its present state for a sidecar, by the event loop's clock."""
        return max(self.keeper.since, self._joined.get(proxy, 0.0))


class Launcher:
    """See above. `address` is where proxies reach this agent's HTTP API, `grpc` its xDS; empty for none. Made on a
    running loop.
    """

    def __init__(self, agent: "Agent", address: str, grpc: str = "") -> None:
        self._agent = agent
        self._address = address
        self._grpc = grpc
        self._loop = asyncio.get_running_loop()
        config = agent.config
        self._kept = bool(config.data_dir) and not config.dev_mode
        self._folder = Path(config.data_dir) / FOLDER if self._kept else None
        self._runs: dict[str, _Run] = {}
        self._chance = random.Random()
        self._work = Worker("launcher")
        self._following: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._former: dict[Path, Watched] = {}  # processes that have handed over and drain, by their records
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take charge of what an earlier agent started, and of what is registered from now on. Raises `OSError` where
        the folder cannot be made.
        """
        if self._kept:
            for path in sorted(self._make_folder().glob("*.json")):
                self._find(path)
        self._following = self._loop.create_task(self._follow())
        self._looking = self._loop.call_later(LOG_LOOK, self._look_at_logs)

    async def close(self, *, stop: bool) -> None:
        """End the looking after; with `stop`, or without a data folder, the proxies too, which first drain."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._looking is not None:
            self._looking.cancel()
        starting = [run.starting for run in self._runs.values() if run.starting is not None]
        await asyncio.gather(*starting, return_exceptions=True)
        if stop or not self._kept:
            await self._stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for run in self._runs.values():
            if run.timer is not None:
                run.timer.cancel()
        for watched in self._watched():
            watched.close()
        self._work.close()
        if not self._kept and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _stop(self) -> None:
        """End every proxy, those that drain already too."""
        for run in list(self._runs.values()):
            self._end(run)
        for watched in self._former.values():
            watched.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_PATIENCE):
                while self._watched():
                    self._changed.clear()
                    await self._changed.wait()
        for watched in self._watched():
            watched.signal(signal.SIGKILL)

    def _watched(self) -> list[Watched]:
        """Every process that runs."""
        return [run.watched for run in self._runs.values() if run.watched is not None] + list(self._former.values())

    def _make_folder(self) -> Path:
        """Make the folder, which is a passing one without a data folder. Raises `OSError`, `LookupError`."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="lictor-proxies-"))
        make_folder(self._sockets)
        user = self._agent.config.connect.launch.user
        if user:
            shutil.chown(self._sockets, user)
        return self._folder

    async def _follow(self) -> None:
        """Compare what runs with what is registered, after each change of it."""
        watches = self._agent.store.watches
        while True:
            woken = Woken()
            watches.add(woken, (("agent", "services"),))
            try:
                self._compare()
                await woken.future
                await asyncio.sleep(0)
            finally:
                watches.discard(woken)

    # -- what is to run -----------------------------------------------------------------------------------------------

    @property
    def settings(self) -> LaunchSettings:
        """What the configuration says."""
        return launch_settings(self._agent.config.connect.launch)

    def _compare(self) -> None:
        wanted = plan(self._agent.local.services.values(), self.settings)
        for name, run in list(self._runs.items()):
            if name not in wanted:
                self._end(run)
        for name, program in wanted.items():
            running = self._runs.get(name)
            if running is None:
                self._begin(program)
            elif not running.wanted or not self._is_as_wanted(running, program):
                self._replace(running, program)
            else:
                running.serve(program, self._loop.time())

    def _is_as_wanted(self, run: _Run, program: Program) -> bool:
        """Whether what runs is what is wanted. Which sidecars it serves, a program finds out by itself."""
        same = (run.program.kind, run.program.arguments) == (program.kind, program.arguments)
        # An Envoy is no code of ours, once it runs.
        return same and (program.kind == ENVOY or run.version == __version__) and run.address == self._address

    def _begin(self, program: Program) -> None:
        try:
            self._make_folder()
        except (OSError, LookupError) as error:
            log.error("no proxy can be started", error=str(error))
            return
        run = self._runs[program.name] = _Run(program, self._chance.random())
        run.address = self._address
        self._do(run, run.keeper.begin(self._loop.time()))

    def _replace(self, run: _Run, program: Program) -> None:
        log.info("replacing a proxy's process", proxy=run.program.name, version=run.version)
        beside = run.program.kind == program.kind == BUILTIN and run.wanted
        run.program, run.version, run.address, run.wanted = program, __version__, self._address, True
        action = run.keeper.replace(self._loop.time(), beside=beside)
        if action == START and run.watched is not None:
            self._let_drain(run.program.name, run.watched)
            run.watched = None
        self._do(run, action)

    def _let_drain(self, name: str, watched: Watched) -> None:
        """A process hands over to the one that takes its place, and ends with its last connection."""
        path = self._file(f"{name}~{watched.launched.pid}", ".json")
        self._former[path] = watched
        with contextlib.suppress(OSError):
            os.replace(self._record(name), path)

    def _end(self, run: _Run) -> None:
        if run.wanted:
            run.wanted = False
            log.info("ending a proxy", proxy=run.program.name)
            self._do(run, run.keeper.unwanted(self._loop.time()))

    # -- one program --------------------------------------------------------------------------------------------------

    def _do(self, run: _Run, action: str) -> None:
        """Carry out what the keeper says, and come back when it wants to know the time."""
        if action == START:
            run.starting = self._loop.create_task(self._start(run))
        elif action == TERMINATE:
            if run.program.kind == ENVOY and run.watched is not None:
                self._spawn(self._drain(run.program.name, run.watched))
            else:
                self._signal(run, signal.SIGTERM)
        elif action == KILL:
            log.warn("a proxy did not end by itself and is killed", proxy=run.program.name)
            self._signal(run, signal.SIGKILL)
        if run.keeper.state == STOPPED:
            self._runs.pop(run.program.name, None)
            self._forget(run.program.name)
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None
        if run.keeper.due is not None:
            run.timer = self._loop.call_at(run.keeper.due, self._tick, run)
        self._changed.set()

    def _tick(self, run: _Run) -> None:
        self._do(run, run.keeper.tick(self._loop.time()))

    def _signal(self, run: _Run, number: int) -> None:
        if run.watched is not None:
            run.watched.signal(number)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, name: str, watched: Watched) -> None:
        """Have an Envoy accept no more, then end once it has no connection left or has had its time."""
        try:
            async with asyncio.timeout(DRAIN):
                await drain_envoy(self._sockets / _short(name, ".admin"))
        except TimeoutError:
            log.info("an Envoy still has connections and is ended", proxy=name)
        watched.signal(signal.SIGTERM)

    async def _start(self, run: _Run) -> None:
        """Start the process; everything that blocks is done in the worker."""
        name, user = run.program.name, self._agent.config.connect.launch.user
        try:
            launched, child = await self._work(
                start,
                self._arguments(run.program),
                self._environment(run.program),
                self.output(name),
                self._sockets,
                user,
            )
        except (OSError, LookupError, ValueError, subprocess.SubprocessError) as error:
            log.error("a proxy could not be started", proxy=name, error=str(error))
            self._do(run, run.keeper.failed(str(error), self._loop.time()))
            return
        self._watch(run, launched, child)
        log.info("started a proxy", proxy=name, pid=launched.pid)
        self._do(run, run.keeper.started(self._loop.time()))
        if run.keeper.state != RUNNING:  # it was to end while it was being started
            self._signal(run, signal.SIGTERM)
        if self._kept:
            record = Record(launched, run.program, run.version, run.address)
            try:
                await self._work(write_file, self._record(name), msgspec.json.encode(record))
            except OSError as error:
                log.warn("what runs cannot be kept on disk: another agent will not find it", error=str(error))

    def _watch(self, run: _Run, launched: Launched, child: "subprocess.Popen[bytes] | None") -> None:
        def ended(words: str) -> None:
            self._has_ended(run, watched, words)

        watched = run.watched = Watched(launched, child, ended)

    def _has_ended(self, run: _Run, watched: Watched, words: str) -> None:
        if run.watched is not watched:
            self._has_drained(watched)
            return
        run.watched = None
        said = self._last_words(run.program.name)
        reason = f"{words}: {said}" if said else words
        if run.wanted and run.keeper.state == RUNNING:
            log.warn("a proxy has ended", proxy=run.program.name, reason=reason)
        self._do(run, run.keeper.exited(reason, self._loop.time()))

    def _has_drained(self, watched: Watched) -> None:
        for path in [path for path, one in self._former.items() if one is watched]:
            del self._former[path]
            path.unlink(missing_ok=True)
        self._changed.set()

    def _arguments(self, program: Program) -> list[str]:
        """The command line; paths in it are relative to the folder of the sockets, since those must be short."""
        arguments = [sys.executable, "-m", "lictor.cli.confined", "connect", *program.arguments]
        if program.kind == BUILTIN:
            return [*arguments, "-handover", _short(program.name, ".sock")]
        if self._grpc:
            arguments += ["-grpc-addr", self._grpc]
        admin = _short(program.name, ".admin")
        return [*arguments, "-admin-bind", "127.0.0.1:0", "--", "--admin-address-path", admin]

    def _environment(self, program: Program) -> dict[str, str]:
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        tokens = {self._agent.local.service_token(proxy) for proxy in program.proxies}
        token = tokens.pop() if len(tokens) == 1 else ""
        token = token or self._agent.tokens.get("agent", "") or self._agent.tokens.get("default", "")
        if token:
            environment["CONSUL_HTTP_TOKEN"] = token
        environment["CONSUL_HTTP_ADDR"] = self._address
        return environment

    # -- on disk ------------------------------------------------------------------------------------------------------

    def _file(self, name: str, ending: str) -> Path:
        assert self._folder is not None, "there is a folder once a program has been started"
        quoted = quote(name, safe="")
        if len(quoted) > NAME_MOST:
            quoted = f"{quoted[:NAME_KEPT]}-{_short(name, '')}"
        return self._folder / (quoted + ending)

    @property
    def _sockets(self) -> Path:
        assert self._folder is not None, "there is a folder once a program has been started"
        return self._folder / "run"

    def _record(self, name: str) -> Path:
        return self._file(name, ".json")

    def output(self, name: str) -> Path:
        """The file with what a program prints."""
        return self._file(name, ".log")

    def _forget(self, name: str) -> None:
        """A program is not wanted any more: nothing is left of it on disk."""
        output = self.output(name)
        for path in (self._record(name), output, _former_output(output), self._sockets / _short(name, ".admin")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _find(self, path: Path) -> None:
        """Take charge of what a record is about, if it still runs."""
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warn("a record of a proxy cannot be read and is left", file=str(path), error=str(error))
            return
        run = _Run(record.program, self._chance.random())
        run.version, run.address = record.version, record.address
        try:
            self._watch(run, record.process, None)
        except (OSError, OverflowError):
            path.unlink(missing_ok=True)
            return
        if path != self._record(record.program.name) and run.watched is not None:
            self._former[path], run.watched = run.watched, None
            return
        self._runs[record.program.name] = run
        run.keeper.begin(self._loop.time())
        run.keeper.started(self._loop.time())
        log.info("found a proxy that runs", proxy=record.program.name, pid=record.process.pid)

    def _last_words(self, name: str) -> str:
        """The last line that a program printed."""
        try:
            with open(self.output(name), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - SAID_MOST))
                lines = file.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1][:500] if lines else ""

    def _look_at_logs(self) -> None:
        self._looking = self._loop.call_later(LOG_LOOK, self._look_at_logs)
        self._work(_turn_over, [self.output(name) for name in self._runs]).add_done_callback(_said)

    # -- who is there -------------------------------------------------------------------------------------------------

    def processes(self) -> dict[str, ProcessState]:
        """The processes that serve sidecars, by the sidecars' ids."""
        found: dict[str, ProcessState] = {}
        for run in self._runs.values():
            state, now = self._state(run), self._loop.time()
            for proxy in run.program.proxies:
                seconds = round(now - run.since(proxy), 3)
                found[proxy] = msgspec.structs.replace(state, seconds=seconds)
        return found

    def _state(self, run: _Run) -> ProcessState:
        pid = run.watched.launched.pid if run.watched is not None else 0
        return ProcessState(
            program=run.program.name,
            kind=run.program.kind,
            state=run.keeper.state,
            pid=pid,
            restarts=run.keeper.restarts,
            seconds=round(self._loop.time() - run.keeper.since, 3),
            reason=run.keeper.reason,
            memory=memory(pid) if pid else 0,
            output=str(self.output(run.program.name)),
        )


def _short(name: str, ending: str) -> str:
    """A file name for a program that is short, whatever the program's."""
    return hashlib.sha256(name.encode()).hexdigest()[:16] + ending


def _former_output(file: Path) -> Path:
    """Where the output is that came before what is in a file."""
    return file.with_suffix(".log.1")


def _turn_over(files: list[Path]) -> None:
    """Have files that have grown too much begin anew. Programs add to them at their ends, wherever those are."""
    for file in files:
        with contextlib.suppress(OSError):
            if file.stat().st_size > LOG_MOST:
                shutil.copyfile(file, _former_output(file))
                os.chmod(_former_output(file), 0o600)
                os.truncate(file, 0)


def _said(done: "asyncio.Future[None]") -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warn("cannot look at the proxies' output", error=str(error))
