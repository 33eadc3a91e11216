"""Which proxies an agent is to run, and what is to be done about one process at a time. Pure.

`plan` goes from the registered services to the programs that are wanted. A `Keeper` keeps one of them running: it is
told what happened and what time it is, and says what to do.

    STARTING --started--> RUNNING --exited--> WAITING --time--> STARTING
        |                    |                   |
        +------------- unwanted / replaced ------+---> STOPPING --exited--> STOPPED, or STARTING where it is replaced

A process that hands over what it serves is replaced by one that is started beside it: from RUNNING to STARTING at once.

A program that exits is started again after a pause: a second, then twice as long each time, up to a minute, with up to
a quarter more so that many do not start together. The pause is a second again once the program has run for a minute.
"""

from collections.abc import Iterable

import msgspec

from lictor.agent.config.security import Launch
from lictor.model.service import BUILTIN, CONNECT_PROXY, ENVOY, NO_LAUNCH, NodeService

FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 60.0
STEADY = 60.0  # seconds after which a program counts as running well
GRACE = 30.0  # seconds that a program has to end by itself, which is when its connections are to be drained

NODE = "node"
"""The name of the program that serves all built-in proxies of a node."""

STARTING, RUNNING, WAITING, STOPPING, STOPPED = "starting", "running", "waiting", "stopping", "stopped"
START, TERMINATE, KILL = "start", "terminate", "kill"


class Program(msgspec.Struct, frozen=True):
    """A program to run: `name` is what its files are called by, `arguments` follow `lictor connect`, and it serves the
    sidecars with the ids `proxies`.
    """

    name: str
    kind: str
    arguments: tuple[str, ...]
    proxies: tuple[str, ...]


class LaunchSettings(msgspec.Struct, frozen=True):
    """What the agent's configuration says: whether it launches at all, what a sidecar gets that does not say."""

    enabled: bool
    default: str
    one_process: bool


def launch_settings(launch: Launch) -> LaunchSettings:
    """Those of a configuration's section."""
    return LaunchSettings(launch.enabled, launch.default, launch.one_process)


def launched_as(service: NodeService, settings: LaunchSettings) -> str:
    """The kind of proxy that the agent runs for a service: `builtin`, `envoy`, or empty for none."""
    return asked_for(service, settings) if can_be_asked_about(service.id) else ""


def asked_for(service: NodeService, settings: LaunchSettings) -> str:
    """The kind of proxy that a service's registration or the configuration wants the agent to run for it."""
    if not settings.enabled or service.kind != CONNECT_PROXY:
        return ""
    kind = service.proxy.launch or settings.default
    return "" if kind == NO_LAUNCH else kind


def can_be_asked_about(service_id: str) -> bool:
    """Whether a proxy with this id finds its registration: it asks by a path, in which dots alone mean another one, and
    what cannot be printed is refused.
    """
    return service_id not in (".", "..") and service_id.isprintable()


def plan(services: Iterable[NodeService], settings: LaunchSettings) -> dict[str, Program]:
    """The programs that the services of a node want, by name."""
    programs: dict[str, Program] = {}
    together: list[str] = []
    for service in services:
        kind = launched_as(service, settings)
        if kind == BUILTIN and settings.one_process:
            together.append(service.id)
        elif kind == BUILTIN:
            programs[service.id] = Program(service.id, kind, ("proxy", "-proxy-id", service.id), (service.id,))
        elif kind == ENVOY:
            programs[service.id] = Program(service.id, kind, ("envoy", "-proxy-id", service.id), (service.id,))
    if together:
        # A sidecar may be called "node" as well: its program's name says that it is one.
        name = NODE if NODE not in programs else f"{NODE}:"
        undeclared = ("-undeclared",) if settings.default == BUILTIN else ()
        programs[name] = Program(name, BUILTIN, ("proxy", "-node", *undeclared), tuple(sorted(together)))
    return programs


class Keeper:
    """Keeps one program running. `chance` gives numbers of 0 to 1. Each event returns what is to be done now, or an
    empty string; `due` is when to call `tick`, None for never. Times are seconds of one clock.
    """

    def __init__(self, chance: float = 0.0) -> None:
        self.state = STARTING
        self.restarts = 0
        self.reason = ""  # why it is not running, or last ended
        self.since = 0.0  # when the present state began
        self.due: float | None = None
        self._chance = chance
        self._pause = FIRST_PAUSE
        self._again = False

    def begin(self, now: float) -> str:
        """Start it for the first time."""
        self._turn(STARTING, now)
        return START

    def started(self, now: float) -> str:
        """It runs."""
        if self.state == STARTING:
            self._turn(RUNNING, now)
        return ""

    def failed(self, reason: str, now: float) -> str:
        """It could not be started."""
        return self._ended(reason, now)

    def exited(self, reason: str, now: float) -> str:
        """The process is gone."""
        if self.state == STOPPING:
            if self._again:
                self._again = False
                self.reason = reason
                return self.begin(now)
            self._turn(STOPPED, now)
            return ""
        return self._ended(reason, now)

    def _ended(self, reason: str, now: float) -> str:
        if self.state == RUNNING and now - self.since >= STEADY:
            self._pause = FIRST_PAUSE
        self.reason = reason
        self.restarts += 1
        self._turn(WAITING, now, self._pause * (1 + self._chance / 4))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return ""

    def replace(self, now: float, *, beside: bool) -> str:
        """Have another process in its place: one that is started `beside` it and takes over, or one after it."""
        self._pause = FIRST_PAUSE
        if self.state in (WAITING, STOPPED) or (beside and self.state == RUNNING):
            return self.begin(now)
        self._again = True
        return self._stop(now)

    def unwanted(self, now: float) -> str:
        """End it for good."""
        self._again = False
        if self.state in (WAITING, STOPPED):
            self._turn(STOPPED, now)
            return ""
        return self._stop(now)

    def _stop(self, now: float) -> str:
        if self.state == STOPPING:
            return ""
        self._turn(STOPPING, now, GRACE)
        return TERMINATE

    def tick(self, now: float) -> str:
        """Time has passed."""
        if self.due is None or now < self.due:
            return ""
        if self.state == WAITING:
            return self.begin(now)
        self.due = now + GRACE  # it should not outlive this; if it does, once more
        return KILL

    def _turn(self, state: str, now: float, seconds: float | None = None) -> None:
        self.state = state
        self.since = now
        self.due = None if seconds is None else now + seconds
