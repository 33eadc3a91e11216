"""What the results of a check mean: the state machine between probes and the catalog.

Results come in with the time, effects go out: `Push` (tell the catalog), `Deregister` (the check has been critical for
too long). Between them stand four rules, all of Consul's documented behaviour:

- **Thresholds** (probed checks only). A passing or warning result counts as a success, a critical one as a failure;
  each resets the other's count. Successes take effect from `success_before_passing` in a row on. Failures take effect
  as critical from `failures_before_critical` in a row on, and before that as warning from `failures_before_warning` in
  a row on. The very first result takes effect at once, whatever the thresholds: the initial status is a guess, not
  something to be defended.
- **Output alone is coalesced.** A changed status is pushed at once. A changed output under the same status is kept
  here and pushed once, half to one and a half `output_push_interval` later; which of these is a fixed fraction for each
  check, so that a thousand checks that changed together are not pushed together.
- **TTL.** The check turns critical when nobody has updated it for `ttl` seconds; the last text is kept in the output.
- **Deregistration.** A check that has been critical without pause for `deregister_after` seconds asks for its service
  to be deregistered, and again every `REAP_INTERVAL` for as long as it is still here.

Nothing here reads a clock; `now` is monotonic seconds. `tick` must be called at `next_deadline()` or later.
"""

from __future__ import annotations

import msgspec

from lictor.agent.checks.result import Result, critical, warning
from lictor.model.check import CRITICAL

REAP_INTERVAL = 30.0
"""Seconds between two requests for the deregistration of the same check's service."""

MIN_DEREGISTER_AFTER = 60.0
"""Seconds: the least `deregister_critical_service_after` that is obeyed; less is raised to it, as in Consul."""

EXPIRED = "TTL expired"


class Rules(msgspec.Struct, frozen=True, gc=False):
    """The numbers of a check's definition that say how its results are taken; durations in seconds.

    A `failures_before_warning` of 0 means "as failures_before_critical": no warning on the way to critical.
    An `output_push_interval` of 0 pushes every change. `ttl` and `deregister_after` of 0: none.
    """

    initial_status: str = CRITICAL
    success_before_passing: int = 0
    failures_before_warning: int = 0
    failures_before_critical: int = 0
    output_push_interval: float = 300.0
    deregister_after: float = 0.0
    ttl: float = 0.0


class Push(msgspec.Struct, frozen=True, gc=False):
    """The catalog is to learn this status and output. `status_changed` is False for a change of output alone."""

    status: str
    output: str
    status_changed: bool


class Deregister(msgspec.Struct, frozen=True, gc=False):
    """The service of this check has been critical for too long and is to be deregistered."""

    critical_for: float


Effect = Push | Deregister


class CheckState:
    """One check's state. `status` and `output` are the present ones, also while a changed output waits to be pushed;
    `reported` tells whether a TTL check has ever been updated."""

    __slots__ = (
        "_critical_since",
        "_failures",
        "_push_at",
        "_pushed_output",
        "_reap_at",
        "_spread",
        "_successes",
        "_ttl_at",
        "_ttl_output",
        "output",
        "reported",
        "rules",
        "status",
    )

    def __init__(self, rules: Rules, now: float, spread: float) -> None:
        """A check registered at `now`; `spread` in [0, 1) is its fraction for the coalescing of output."""
        self.rules = rules
        self.status = rules.initial_status
        self.output = ""
        self.reported = False
        self._spread = spread
        # Both counts start at their thresholds, which is what makes the first result take effect.
        self._successes = rules.success_before_passing
        self._failures = max(rules.failures_before_critical, rules.failures_before_warning)
        self._pushed_output = ""
        self._push_at: float | None = None
        self._critical_since: float | None = None
        self._reap_at: float | None = None
        self._ttl_output = ""
        self._ttl_at = now + rules.ttl if rules.ttl else None

    @property
    def ttl_at(self) -> float | None:
        """When the TTL runs out; None when there is none or it has."""
        return self._ttl_at

    def next_deadline(self) -> float | None:
        """When `tick` is due; None: not before something else happens."""
        return min((at for at in (self._push_at, self._reap_at, self._ttl_at) if at is not None), default=None)

    def restore(self, result: Result, ttl_at: float | None) -> None:
        """Take over what an earlier state of this check knew; it is taken as already pushed, and fires no effect."""
        self.status, self.output = result.status, result.output
        self._pushed_output = result.output
        if self.rules.ttl and ttl_at is not None:
            self._ttl_at = ttl_at
            self._ttl_output = result.output
            self.reported = True

    def probed(self, result: Result, now: float) -> list[Effect]:
        """A probe found `result`; it takes effect when a threshold is reached."""
        rules = self.rules
        if result.status != CRITICAL:
            self._successes += 1
            self._failures = 0
            return self.observed(result, now) if self._successes >= rules.success_before_passing else []
        self._failures += 1
        self._successes = 0
        if self._failures >= rules.failures_before_critical:
            return self.observed(result, now)
        if rules.failures_before_warning and self._failures >= rules.failures_before_warning:
            return self.observed(warning(result.output), now)
        return []

    def updated(self, result: Result, now: float) -> list[Effect]:
        """Somebody updated this TTL check: the result takes effect, and the TTL starts anew."""
        self.reported = True
        self._ttl_output = result.output
        self._ttl_at = now + self.rules.ttl
        return self.observed(result, now)

    def observed(self, result: Result, now: float) -> list[Effect]:
        """`result` takes effect without regard to thresholds (an alias, an expired TTL)."""
        if result.status != CRITICAL:
            self._critical_since = self._reap_at = None
        elif self._critical_since is None:
            # Counted from the first critical result, not from registration: until then nobody has looked.
            self._critical_since = now
            if self.rules.deregister_after:
                self._reap_at = now + max(self.rules.deregister_after, MIN_DEREGISTER_AFTER)
        if result.status != self.status:
            self.status, self.output = result.status, result.output
            return [self._push(status_changed=True)]
        self.output = result.output
        if result.output != self._pushed_output and self._push_at is None:
            if not self.rules.output_push_interval:
                return [self._push(status_changed=False)]
            self._push_at = now + self.rules.output_push_interval * (0.5 + self._spread)
        return []

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: do what has come due."""
        effects: list[Effect] = []
        if self._ttl_at is not None and now >= self._ttl_at:
            self._ttl_at = None  # until the next update
            effects += self.observed(critical(expired_output(self._ttl_output)), now)
        if self._push_at is not None and now >= self._push_at:
            self._push_at = None
            if self.output != self._pushed_output:
                effects.append(self._push(status_changed=False))
        if self._reap_at is not None and self._critical_since is not None and now >= self._reap_at:
            self._reap_at = now + REAP_INTERVAL
            effects.append(Deregister(now - self._critical_since))
        return effects

    def _push(self, *, status_changed: bool) -> Push:
        self._push_at = None
        self._pushed_output = self.output
        return Push(self.status, self.output, status_changed)


def expired_output(last: str) -> str:
    """The output of a TTL check that ran out: names the last text it was updated with, if any."""
    return f"{EXPIRED} (last output before timeout follows): {last}" if last else EXPIRED
