"""An event loop on virtual time, with clocks that differ from one process to another.

Nothing waits: when nothing is ready the time jumps to the next timer. There are no sockets, no threads, no signals.
What is ready runs in the order in which it became so, timers of one moment in the order in which they were set; so a
program that rolls no dice of its own runs the same way each time.

Several programs share the loop, each an `Owner`. Which one a callback belongs to is in its context: whatever an owner's
code starts (tasks, timers, callbacks of futures) inherits it. That is why the programs need not know:

- `time()` is the owner's clock, which may be fast, slow, or stand still; timers are set on that clock;
- an owner that is *paused* runs nothing: what becomes ready is kept for later, in order;
- an owner that is *dead* runs nothing any more: no `finally`, no `except CancelledError`, as after `kill -9`.

Code without an owner is on true time. The simulation itself is, and uses `at` and `later` to make things happen on true
time whoever calls.
"""

import asyncio
import heapq
import itertools
import sys
import weakref
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

TOLERANCE: Final = 1e-9  # seconds, for what conversion between clocks loses
AT_ONCE: Final = float("-inf")
SPINNING: Final = 200_000  # callbacks at one moment: somebody waits for something without letting time pass


class Broken(AssertionError):
    """A promise does not hold, or somebody made a mistake and did not handle it."""


class Stuck(Exception):
    """Nothing will ever happen any more, or something happens without end while time stands still."""


class Clock:
    """A machine's clocks, which run at `rate` seconds for a true one and began at any number."""

    def __init__(self, now: Callable[[], float], rate: float, origin: float) -> None:
        self._now = now
        self._rate = rate
        self._at = now()
        self._then = origin
        self._asleep = 0.0  # in all, in seconds of this clock
        self._since: float | None = None

    @property
    def rate(self) -> float:
        """Its seconds for a true one."""
        return self._rate

    def turn(self, rate: float) -> None:
        """Run at another rate from now on."""
        self._then = self.steady()
        self._at = self._now()
        self._rate = rate

    def steady(self) -> float:
        """The clock that goes on while the machine is suspended."""
        return self._then + (self._now() - self._at) * self._rate

    def time(self) -> float:
        """The clock that timers go by; it stands still while the machine is suspended."""
        return (self.steady() if self._since is None else self._since) - self._asleep

    def until(self, when: float) -> float:
        """The true time at which `time` shows `when`, if nothing changes."""
        return self._now() + (when - self.time()) / self._rate

    def suspend(self) -> None:
        """The machine is suspended."""
        if self._since is None:
            self._since = self.steady()

    def wake(self) -> None:
        """It goes on."""
        if self._since is not None:
            self._asleep += self.steady() - self._since
            self._since = None


class Owner:
    """A program on the loop: one process on a machine. `name` shows up in messages."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.paused = False
        self.dead = False
        self.held: list[Handle] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self.kept: list[AsyncGenerator[Any, Any]] = []
        self._context = copy_context()
        self._context.run(OWNER.set, self)
        self._prune_at = 64

    def context(self) -> Context:
        """A context in which code is this owner's."""
        return self._context.copy()

    def started(self, task: asyncio.Task[Any]) -> None:
        """Note one of its tasks."""
        self.tasks.append(task)
        if len(self.tasks) > self._prune_at:
            self.tasks = [one for one in self.tasks if not one.done()]
            self._prune_at = 2 * len(self.tasks) + 64


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)


class Handle(asyncio.TimerHandle):
    """A callback that is ready or will be. `due` is on its owner's clock."""

    __slots__ = ("due", "owner")

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], loop: "SimLoop", context: Context
    ) -> None:
        # What asyncio's own would set, in one step: there are very many of them.
        self._when = when
        self._scheduled = False
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = context
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self.due = when
        self.owner: Owner | None = context.get(OWNER)


class SimLoop(asyncio.AbstractEventLoop):
    """The loop. `turns` counts callbacks: two runs of one simulation that differ anywhere differ there soon.

    What would be logged as an unhandled error is collected in `errors`.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        self.errors: list[str] = []
        self.owners: list[Owner] = []
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._number = itertools.count()
        self._nobody = Context()
        self._running = False
        self._closed = False
        self._ending = False

    # -- time and callbacks, as asyncio asks for them -----------------------------------------------------------------

    def time(self) -> float:
        """The clock of whoever asks."""
        owner = OWNER.get()
        return self.now if owner is None else owner.clock.time()

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:  # type: ignore[override]
        handle = Handle(AT_ONCE, callback, args, self, context if context is not None else copy_context())
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(when, callback, args, self, context if context is not None else copy_context())
        self._set(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self.call_soon(callback, *args, context=context)

    def _set(self, handle: Handle) -> None:
        owner = handle.owner
        when = handle.due if owner is None else owner.clock.until(handle.due)
        heapq.heappush(self._timers, (max(when, self.now), next(self._number), handle))

    # -- for the simulation, on true time -----------------------------------------------------------------------------

    def at(self, when: float, callback: Callable[..., object], *args: Any, owner: Owner | None = None) -> Handle:
        """Call at a true time; as `owner`'s code, if given, and then only while it lives and is not paused."""
        context = self._nobody.copy() if owner is None else owner.context()
        handle = Handle(AT_ONCE, callback, args, self, context)
        heapq.heappush(self._timers, (max(when, self.now), next(self._number), handle))
        return handle

    def later(self, delay: float, callback: Callable[..., object], *args: Any, owner: Owner | None = None) -> Handle:
        """Call after so many true seconds; see `at`."""
        return self.at(self.now + delay, callback, *args, owner=owner)

    def own(self, name: str, clock: Clock) -> Owner:
        """A new program."""
        owner = Owner(name, clock)
        self.owners.append(owner)
        return owner

    def kill(self, owner: Owner) -> None:
        """End a program on the spot. What it held stays in memory until `bury`, so that nothing of it runs again."""
        owner.dead = True
        owner.held.clear()
        owner.kept.extend(owner.generators)

    def pause(self, owner: Owner) -> None:
        """Nothing of it runs until `resume`."""
        owner.paused = True

    def resume(self, owner: Owner) -> None:
        """It goes on, with everything that became ready meanwhile. If its clock stood still, timers are not due yet."""
        owner.paused = False
        held, owner.held = owner.held, []
        for handle in held:
            if handle.due - owner.clock.time() > TOLERANCE:
                self._set(handle)
            else:
                self._ready.append(handle)

    def bury(self) -> None:
        """The simulation is over: end what is left of all programs, quietly."""
        self._ending = True
        for owner in self.owners:
            self.kill(owner)
        for owner in self.owners:
            for task in owner.tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    _close(task.get_coro().close)
            for generator in owner.kept:
                _close(partial(_end_generator, generator))
            owner.tasks.clear()
            owner.kept.clear()
        self._ready.clear()
        self._timers.clear()

    # -- running ------------------------------------------------------------------------------------------------------

    def run_until_complete(self, future: Any) -> Any:
        """Run until a coroutine or future is done, and return its result.

        Raises `Stuck` where it never will be. Errors that nobody handles end the run as well.
        """
        main = asyncio.ensure_future(future, loop=self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._generator_begins, self._generator_dropped)
        events._set_running_loop(self)
        self._running = True
        try:
            while not main.done():
                if self.errors:
                    raise Broken(self.errors[0])
                self._turn()
        finally:
            self._running = False
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
        return main.result()

    def _turn(self) -> None:
        ready = self._ready
        if not ready:
            self._jump()
        spins = 0
        while ready:
            handle = ready.popleft()
            owner = handle.owner
            if handle._cancelled:
                continue
            if owner is not None:
                if owner.dead:
                    continue
                if owner.paused:
                    owner.held.append(handle)
                    continue
            self.turns += 1
            handle._run()
            spins += 1
            if spins > SPINNING:
                raise Stuck(f"at {self.now:.6f} there is no end of callbacks, the last: {handle!r}")

    def _jump(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise Stuck(f"at {self.now:.6f} nothing is ready and no timer is set: somebody waits in vain")
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            handle = heapq.heappop(timers)[2]
            owner = handle.owner
            if handle._cancelled or (owner is not None and owner.dead):
                continue
            if owner is not None and not owner.paused and handle.due - owner.clock.time() > TOLERANCE:
                self._set(handle)  # the clock was turned meanwhile
            else:
                self._ready.append(handle)

    def _generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        owner = OWNER.get()
        if owner is not None:
            owner.generators.add(generator)

    def _generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self._ending:
            self.call_soon(self.create_task, generator.aclose())

    # -- the rest of what asyncio asks for ----------------------------------------------------------------------------

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        owner = OWNER.get() if context is None else context.get(OWNER)
        if owner is not None:
            owner.started(task)
        return task

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self.bury()
        self._closed = True

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Something went wrong and nobody was there to handle it."""
        owner = OWNER.get()
        if self._ending or (owner is not None and owner.dead):
            return
        error = context.get("exception")
        where = owner.name if owner is not None else "the simulation"
        self.errors.append(f"unhandled in {where} at {self.now:.6f}: {context.get('message')}: {error!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    async def shutdown_asyncgens(self) -> None:
        pass

    async def shutdown_default_executor(self) -> None:
        pass


def _close(end: Callable[[], object]) -> None:
    """End something that may refuse: it is dead, and what it says does not count."""
    try:
        end()
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise


def _end_generator(generator: AsyncGenerator[Any, Any]) -> None:
    generator.aclose().send(None)


def run(loop: SimLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, and bury what it left."""
    try:
        result: T = loop.run_until_complete(work)
        if loop.errors:
            raise Broken(loop.errors[0])
        return result
    finally:
        loop.close()
