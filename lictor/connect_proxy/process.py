"""A process of the built-in proxy: from what the command line wants to an event loop that serves until told to end.

SIGTERM and SIGINT drain: nothing more is accepted, what is live may end within `drain_timeout_ms`. A second signal ends
at once. A successor that takes over the listeners (`handover`) lets live connections end whenever they do.
"""

import asyncio
import ctypes
import gc
import math
import random
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import uvloop

from lictor.agent.logs import Logger, logger
from lictor.client.settings import Settings
from lictor.connect_proxy.admin import Admin
from lictor.connect_proxy.handover import Former, Handover, take_over
from lictor.connect_proxy.listener import Listener, bind
from lictor.connect_proxy.metrics import render
from lictor.connect_proxy.node import Given, Node, Registered, Served
from lictor.connect_proxy.registering import Registration
from lictor.connect_proxy.settings import Address, SidecarSettings
from lictor.connect_proxy.sidecar import World
from lictor.connect_proxy.source import Source

ADMIN = "admin:"
GARBAGE = (10_000, 20, 50)  # how seldom the collector looks
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of options of the C library, by its malloc.h
FREED = 4 << 20  # bytes of freed memory that are kept for other buffers
LARGE = 1 << 20  # bytes of a buffer for which memory of its own is asked of the kernel
READY_PATIENCE = 20.0  # seconds after which a successor lets the former process go even if not all of it serves
READY_LOOK = 0.05
LAST_PATIENCE = 30.0  # seconds that live connections have once a process that was followed is told to end


class Wanted(msgspec.Struct, frozen=True):
    """What a process is to serve: `given`, or the registered `proxy_id`, or all of the `node`."""

    given: SidecarSettings | None = None
    proxy_id: str = ""
    node: bool = False
    undeclared: bool = False
    admin: Address | None = None
    handover: str = ""
    register: bool = False
    register_id: str = ""
    datacenter: str = ""
    token: str = ""


def run(wanted: Wanted, settings: Settings) -> None:
    """Serve until a signal comes. Raises `OSError` where the admin listener cannot be opened."""
    log = logger("proxy")
    _raise_limits()
    _keep_freed()
    handed: dict[str, socket.socket] = {}
    former: Former | None = None
    if wanted.handover:
        handed, former = take_over(wanted.handover, log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Process(wanted, settings, handed, former, log).serve())


def _raise_limits() -> None:
    """Have as many descriptors as are allowed: a connection takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep_freed() -> None:
    """Have memory that a buffer leaves be there for the next one. Otherwise the C library gives it back to the kernel
    and gets it again page by page, which may cost more than all the rest of a large transfer.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(TRIM_THRESHOLD, FREED)
        set_option(MMAP_THRESHOLD, LARGE)


class Process:
    """See above."""

    def __init__(
        self,
        wanted: Wanted,
        settings: Settings,
        handed: dict[str, socket.socket],
        former: Former | None,
        log: Logger,
    ) -> None:
        self._wanted = wanted
        self._settings = settings
        self._handed = handed
        self._former = former
        self._log = log
        self._stopped = asyncio.Event()
        self._now = asyncio.Event()
        self._dismissed = False
        self._hurried = False
        self._admin: asyncio.AbstractServer | None = None
        self._admin_socket: socket.socket | None = None
        self._served: Served

    async def serve(self) -> None:
        """Serve until told to stop, and drain."""
        loop = asyncio.get_running_loop()
        wanted = self._wanted
        source = Source(self._settings, self._log, datacenter=wanted.datacenter, token=wanted.token)
        world = World(loop, source, self._log, random.Random().random)
        world.handed = {name: sock for name, sock in self._handed.items() if not name.startswith(ADMIN)}
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        if wanted.admin is not None:
            await self._open_admin(wanted.admin, world)
        if wanted.given is not None:
            self._served = Given(world, wanted.given, report=wanted.register)
        elif wanted.node:
            self._served = Node(world, undeclared=wanted.undeclared)
        else:
            self._served = Registered(world, wanted.proxy_id)
        # What there is now stays; connections make no garbage that refers to itself, so that there is little to find.
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        registering = self._register(source)
        handover = Handover(wanted.handover, self._sockets, self._dismiss, self._log) if wanted.handover else None
        try:
            await self._become_successor(world, handover)
            await self._stopped.wait()
        finally:
            if registering is not None:
                registration, task = registering
                task.cancel()
                if not self._dismissed:
                    await registration.remove()
            await self._drain(world)
            if handover is not None:
                handover.close(remove=not self._dismissed)
            if self._admin is not None:
                self._admin.close()
            if self._admin_socket is not None:
                self._admin_socket.close()
            world.deadlines.close()
            world.idle.close()
            await source.close()
            for sock in world.handed.values():
                sock.close()

    def _register(self, source: Source) -> tuple[Registration, asyncio.Task[None]] | None:
        given = self._wanted.given
        if not self._wanted.register or given is None or given.inbound is None:
            return None
        bind_to = given.inbound.bind
        host = "" if bind_to.host in ("0.0.0.0", "::") else bind_to.host
        registration = Registration(source, given.service, self._wanted.register_id, host, bind_to.port, self._log)
        return registration, asyncio.get_running_loop().create_task(registration.run())

    # -- one process after another -----------------------------------------------------------------------------------

    async def _become_successor(self, world: World, handover: Handover | None) -> None:
        """Let the former process go once this one serves, and be ready to be followed in turn."""
        if self._former is not None:
            try:
                async with asyncio.timeout(READY_PATIENCE):
                    while not self._served.ready and not self._stopped.is_set():
                        await asyncio.sleep(READY_LOOK)
            except TimeoutError:
                self._log.warn("Not everything that the former process served is served yet")
        if handover is not None and not self._stopped.is_set():
            try:
                handover.open()
            except OSError as error:
                self._log.error("No process can follow this one", path=self._wanted.handover, error=error)
        if self._former is not None:
            self._former.dismiss()
            self._log.info("Took over from the former process")
        for name in list(world.handed):
            world.handed.pop(name).close()

    def _sockets(self) -> dict[str, socket.socket]:
        found = {
            str(listener.address): listener.sock
            for sidecar in self._served.sidecars
            for listener in sidecar.listeners
            if listener.sock is not None
        }
        if self._admin_socket is not None:
            found[f"{ADMIN}{self._wanted.admin}"] = self._admin_socket
        return found

    def _dismiss(self) -> None:
        self._log.info("Another process serves now; this one ends with its last connection")
        self._dismissed = True
        self._stopped.set()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _signalled(self) -> None:
        if self._dismissed and not self._hurried:
            self._hurried = True
            asyncio.get_running_loop().call_later(LAST_PATIENCE, self._now.set)
        elif self._stopped.is_set():
            self._now.set()
        self._stopped.set()

    async def _drain(self, world: World) -> None:
        """Let connections end; a signal that comes while this lasts ends it."""
        if self._admin is not None and self._dismissed:
            self._admin.close()
        seconds = math.inf if self._dismissed else None
        drains = [
            asyncio.ensure_future(sidecar.drain(keep_paths=self._dismissed, seconds=seconds))
            for sidecar in self._served.sidecars
        ]
        work: asyncio.Future[Any] = asyncio.gather(*drains, *world.tasks, return_exceptions=True)
        hurry: asyncio.Future[Any] = asyncio.ensure_future(self._now.wait())
        await asyncio.wait([work, hurry], return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        work.cancel()
        await asyncio.gather(work, hurry, return_exceptions=True)

    # -- what operators see ------------------------------------------------------------------------------------------

    async def _open_admin(self, address: Address, world: World) -> None:
        loop = world.loop
        sock = self._handed.pop(f"{ADMIN}{address}", None) or bind(address)
        self._admin_socket = sock
        given = sock.dup()
        given.setblocking(False)
        pages: dict[str, Callable[[], tuple[int, str]]] = {
            "/metrics": lambda: (200, render(self._listeners(), loop.time())),
            "/ready": lambda: (200, "LIVE\n") if self._served.ready else (503, "not all listeners serve yet\n"),
        }
        self._admin = await loop.create_server(lambda: Admin(pages, loop), sock=given)

    def _listeners(self) -> list[Listener]:
        return [listener for sidecar in self._served.sidecars for listener in (*sidecar.listeners, *sidecar.draining)]
