"""The shell around the checks: gives the pure parts a clock and a loop, runs probes, and tells what to push.

    runner = CheckRunner(random.Random(), notify=..., deregister=..., local=..., remote=..., settings=CheckSettings())
    runner.import_state(saved)                       # TTL states of before a restart, ahead of `add`
    runner.add("web:1", definition)
    runner.ttl_update("web:2", "passing", "fine")    # -> TtlState, to be written down
    await runner.close()

An idle check costs its records and an entry in two heaps; all of them share one timer. Tasks exist only for probes
under way and for aliases of other nodes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from lictor.agent.checks import alias as aliases
from lictor.agent.checks.alias import AliasCheck, Health, RemoteHealth
from lictor.agent.checks.build import Check, CheckSettings, build, output_max_size, rules
from lictor.agent.checks.clients import Clients
from lictor.agent.checks.deadlines import Deadlines
from lictor.agent.checks.exposed import redirected, through
from lictor.agent.checks.output import truncate
from lictor.agent.checks.result import Probe, Result, critical
from lictor.agent.checks.schedule import Run, Schedule
from lictor.agent.checks.state import CheckState, Deregister, Effect, Push
from lictor.agent.checks.ttl import TtlCheck, TtlState
from lictor.model.check import PASSING, STATUSES
from lictor.model.errors import InvalidRequest, NotFound, Refused
from lictor.model.service_definition import CheckDefinition

logger = logging.getLogger(__name__)

Notify = Callable[[str, str, str], None]
"""Called with check id, status and output when the catalog is to learn of them."""

DeregisterService = Callable[[str, str], None]
"""Called with check id and service id when a service has been critical for too long."""


FIRST_PAUSE = 1.0  # seconds


class _Held:
    """A check that the runner holds. `pause` is in how many seconds it is looked at again, 0 for its turn."""

    __slots__ = ("check", "definition", "following", "pause", "state")

    def __init__(self, definition: CheckDefinition, check: Check, state: CheckState) -> None:
        self.definition = definition
        self.check = check
        self.state = state
        self.following: asyncio.Task[None] | None = None
        self.pause = 0.0


class CheckRunner:
    """Runs checks on the running loop. All methods are to be called from that loop."""

    def __init__(
        self,
        rng: random.Random,
        *,
        notify: Notify,
        shown: Notify | None = None,
        deregister: DeregisterService,
        local: Health,
        remote: RemoteHealth,
        settings: CheckSettings,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`notify` and `deregister` are called from the loop, never from within a call of `add`, `update` or
        `remove`; `shown` likewise, with each result that is not worth a notification yet; `wall_clock` gives the Unix
        time that TTL states expire by."""
        self._loop = asyncio.get_running_loop()
        self._rng = rng
        self._notify = notify
        self._shown = shown
        self._deregister = deregister
        self._local = local
        self._remote = remote
        self._settings = settings
        self._wall_clock = wall_clock
        self._clients = Clients()
        self._schedule = Schedule(rng)
        self._deadlines: Deadlines[str] = Deadlines()
        self._held: dict[str, _Held] = {}
        self._saved: dict[str, TtlState] = {}
        self._redirected: dict[str, str] = {}
        self._followers: defaultdict[str, set[str]] = defaultdict(set)
        self._stale_aliases: set[str] = set()
        self._alias_refresh_at: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, check_id: object) -> bool:
        return check_id in self._held

    def add(self, check_id: str, definition: CheckDefinition) -> None:
        """Hold `definition`'s check from now on, in place of an earlier one of that id. It starts with the definition's
        status (critical when it names none), or, a TTL check, with an imported state that has not expired.

        Raises InvalidRequest when the definition asks for no type of check.
        """
        check = self._built(check_id, definition)
        self.remove(check_id)
        now = self._loop.time()
        state = CheckState(rules(definition, self._settings), now, self._rng.random())
        saved = self._saved.pop(check_id, None)
        if saved is not None and isinstance(check, TtlCheck):
            left = min(saved.expires - self._wall_clock(), check.ttl)
            if left > 0:
                state.restore(Result(saved.status, saved.output), now + left)
        self._hold(check_id, _Held(definition, check, state), now)

    def update(self, check_id: str, definition: CheckDefinition) -> None:
        """Hold `definition`'s check in place of the one of that id, going on from its status and output unless the
        definition names a status. An equal definition changes nothing. Raises InvalidRequest as `add`."""
        held = self._held.get(check_id)
        if held is None:
            self.add(check_id, definition)
            return
        if held.definition == definition:
            return
        self.add(check_id, definition)
        if not definition.status:
            before = held.state
            ttl_at = before.ttl_at if held.definition.ttl == definition.ttl else None
            self._held[check_id].state.restore(Result(before.status, before.output), ttl_at)
            self._set_deadline(check_id)

    def definition(self, check_id: str) -> CheckDefinition | None:
        """What a check was defined as; None for one that is not held."""
        held = self._held.get(check_id)
        return held.definition if held is not None else None

    def redirect(self, check_id: str, target: str) -> None:
        """Run a check against `target` (host:port) instead of the host that it is defined with, or with an empty one as
        it is defined. What cannot go through a proxy is run as it is defined.
        """
        if target:
            self._redirected[check_id] = target
        else:
            self._redirected.pop(check_id, None)
        held = self._held.get(check_id)
        if held is not None:
            held.check = self._built(check_id, held.definition)

    def _built(self, check_id: str, definition: CheckDefinition) -> Check:
        target = self._redirected.get(check_id, "")
        if target and through(definition) is not None:
            definition = redirected(definition, target)
        return build(definition, self._settings)

    def configure(self, settings: CheckSettings) -> None:
        """Take over what a reloaded configuration says about all checks, for results and definitions from now on."""
        self._settings = settings

    def remove(self, check_id: str) -> None:
        """Hold the check no more; the result of a probe under way is dropped. Does nothing for an unknown id."""
        held = self._held.pop(check_id, None)
        if held is None:
            return
        self._schedule.remove(check_id)
        self._deadlines.discard(check_id)
        if isinstance(held.check, AliasCheck):
            self._followers[held.check.service_id].discard(check_id)
            self._stale_aliases.discard(check_id)
        if held.following is not None:
            held.following.cancel()

    def result(self, check_id: str) -> Result:
        """The present status and output, also when they wait to be pushed. Raises NotFound."""
        held = self._held.get(check_id)
        if held is None:
            raise NotFound(f'Unknown check ID "{check_id}". Ensure that the check ID is passed, not the check name.')
        return Result(held.state.status, held.state.output)

    def ttl_update(self, check_id: str, status: str, output: str) -> TtlState:
        """Somebody reports for a TTL check: takes effect at once and starts the TTL anew. Returns what is to be
        written down for a restart. Raises Refused when there is no such TTL check, InvalidRequest for a bad status."""
        if status not in STATUSES:
            raise InvalidRequest(f"Invalid check status: '{status}'")
        held = self._held.get(check_id)
        if held is None or not isinstance(held.check, TtlCheck):
            raise Refused(f'CheckID "{check_id}" does not have associated TTL')
        size = output_max_size(held.definition, self._settings)
        result = self._trimmed(Result(status, truncate(output, size)))
        self._apply(check_id, held, held.state.updated(result, self._loop.time()))
        return TtlState(check_id, status, result.output, self._wall_clock() + held.check.ttl)

    def local_changed(self, service_id: str) -> None:
        """A service of this agent, or a check of it that the runner does not hold, was added, changed or removed; an
        empty id stands for the node. Aliases of it are looked at again."""
        if service_id:
            self._mark_stale(self._followers.get(service_id, ()))
        else:
            self._mark_stale(check_id for followers in self._followers.values() for check_id in followers)

    def export_state(self) -> list[TtlState]:
        """The state of every TTL check that has been updated and has not expired, with its time of expiry."""
        now, wall = self._loop.time(), self._wall_clock()
        return [
            TtlState(check_id, held.state.status, held.state.output, wall + held.state.ttl_at - now)
            for check_id, held in self._held.items()
            if held.state.ttl_at is not None and held.state.reported
        ]

    def import_state(self, states: Iterable[TtlState]) -> None:
        """States of before a restart, for TTL checks that are going to be added; expired ones are passed over."""
        self._saved.update((state.check_id, state) for state in states)

    def adopt(self, check_id: str, result: Result) -> None:
        """Have a check go on from a result that others know already."""
        held = self._held.get(check_id)
        if held is not None:
            held.state.restore(result, None)
            self.local_changed(held.definition.service_id)

    async def close(self) -> None:
        """Stop everything: probes under way are cancelled, programs they started killed; nothing is notified after."""
        self._closed = True
        for check_id in list(self._held):
            self.remove(check_id)
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._clients.close()

    def _hold(self, check_id: str, held: _Held, now: float) -> None:
        self._held[check_id] = held
        check = held.check
        if isinstance(check, AliasCheck):
            if check.node:
                held.following = self._spawn(self._follow(check_id, held, check))
            else:
                self._followers[check.service_id].add(check_id)
                self._mark_stale((check_id,))
        elif not isinstance(check, TtlCheck):
            soon = not held.definition.status
            held.pause = FIRST_PAUSE if soon else 0.0
            self._schedule.add(check_id, held.definition.interval, check.lane, now, soon=soon)
        self._set_deadline(check_id)

    def _set_deadline(self, check_id: str) -> None:
        when = self._held[check_id].state.next_deadline()
        if when is None:
            self._deadlines.discard(check_id)
        else:
            self._deadlines.set(check_id, when)
        self._arm()

    def _arm(self) -> None:
        """Have the timer ring at the earliest thing due, no later."""
        due = [
            at for at in (self._schedule.next_due(), self._deadlines.next(), self._alias_refresh_at) if at is not None
        ]
        if not due or self._closed:
            return
        when = min(due)
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when  # kept here: not every loop's handles know their time
        self._timer = self._loop.call_at(when, self._wake, when)

    def _wake(self, when: float) -> None:
        self._timer = None
        now = max(self._loop.time(), when)  # timers may ring a little early
        for check_id in self._deadlines.pop_due(now):
            held = self._held.get(check_id)
            if held is not None:  # one told earlier in this turn may have been answered by removing others
                self._apply(check_id, held, held.state.tick(now))
        if self._alias_refresh_at is not None and now >= self._alias_refresh_at:
            self._alias_refresh_at = None
            self.local_changed("")
        self._start_probes(now)
        self._arm()

    def _start_probes(self, now: float) -> None:
        for run in self._schedule.start(now):
            check = self._held[run.check_id].check
            if not isinstance(check, TtlCheck | AliasCheck):
                self._spawn(self._probe(run, check))

    async def _probe(self, run: Run, check: Probe) -> None:
        try:
            result = await check.probe(self._clients)
        except Exception as error:  # a defect of the probe must not end the check
            logger.exception("check %r: the probe failed unexpectedly", run.check_id)
            result = critical(f"the check could not be made: {error}")
        finally:
            self._schedule.finished(run, check.lane)
        if self._schedule.is_current(run):
            held = self._held[run.check_id]
            self._apply(run.check_id, held, held.state.probed(self._trimmed(result), self._loop.time()))
            self._look_again(run.check_id, held)
        if not self._closed:
            self._start_probes(self._loop.time())
            self._arm()

    def _look_again(self, check_id: str, held: _Held) -> None:
        """What has never been passing may be about to come up: it is not left alone for a whole interval."""
        if held.state.status == PASSING:
            held.pause = 0.0
        elif held.pause:
            self._schedule.sooner(check_id, held.pause, self._loop.time())
            held.pause *= 2

    async def _follow(self, check_id: str, held: _Held, alias: AliasCheck) -> None:
        """Follow another node's checks with reads that wait for a change."""
        index = failures = 0
        while True:
            try:
                health = await self._remote(alias.node, index, aliases.MAX_READ_WAIT)
            except Exception as error:  # whatever keeps the catalog from being read is the check's output
                failures += 1
                if failures > aliases.QUIET_FAILURES:
                    self._observe(check_id, held, aliases.read_failed(error))
                await asyncio.sleep(aliases.backoff(failures))
                continue
            failures = 0
            # A read that waits for index 0 returns at once, which would be a busy loop.
            index = max(health.index, 1)
            self._observe(check_id, held, aliases.judge(alias, check_id, health))

    def _mark_stale(self, check_ids: Iterable[str]) -> None:
        """Have these aliases looked at in the next turn of the loop, once, when the change they may follow is told."""
        waiting = bool(self._stale_aliases)
        self._stale_aliases.update(check_ids)
        if self._stale_aliases and not waiting:
            self._loop.call_soon(self._refresh_stale)

    def _refresh_stale(self) -> None:
        stale, self._stale_aliases = self._stale_aliases, set()
        if self._closed:
            return
        for check_id in sorted(stale):
            held = self._held.get(check_id)
            if held is not None and isinstance(held.check, AliasCheck):
                self._observe(check_id, held, aliases.judge(held.check, check_id, self._local))
        if self._alias_refresh_at is None and any(self._followers.values()):
            self._alias_refresh_at = self._loop.time() + aliases.REFRESH_INTERVAL
            self._arm()

    def _observe(self, check_id: str, held: _Held, result: Result) -> None:
        size = output_max_size(held.definition, self._settings)
        trimmed = self._trimmed(Result(result.status, truncate(result.output, size)))
        self._apply(check_id, held, held.state.observed(trimmed, self._loop.time()))

    def _apply(self, check_id: str, held: _Held, effects: list[Effect]) -> None:
        self._set_deadline(check_id)
        if self._shown is not None and not any(isinstance(effect, Push) for effect in effects):
            self._shown(check_id, held.state.status, held.state.output)
        for effect in effects:
            try:
                self._tell(check_id, held, effect)
            except Exception:  # a defect of the listener must not stop the checks
                logger.exception("check %r: telling of its status failed", check_id)

    def _tell(self, check_id: str, held: _Held, effect: Effect) -> None:
        match effect:
            case Push():
                if effect.status_changed:
                    # Only a changed status, not a changed output: two aliases that follow each other would otherwise
                    # quote one another for ever.
                    self.local_changed(held.definition.service_id)
                self._notify(check_id, effect.status, effect.output)
            case Deregister():
                logger.info(
                    "check %r has been critical for %.0f s: asking for service %r to be deregistered",
                    check_id,
                    effect.critical_for,
                    held.definition.service_id,
                )
                self._deregister(check_id, held.definition.service_id)

    def _trimmed(self, result: Result) -> Result:
        return Result(result.status, "") if self._settings.discard_check_output else result

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
