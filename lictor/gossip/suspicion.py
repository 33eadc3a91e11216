"""The time that a suspect has to refute: long while one node alone suspects it, shorter with each that agrees.

Lifeguard's "dynamic suspicion" (Dadgar, Phillips, Currey, "Lifeguard: Local Health Awareness for More Accurate Failure
Detection", section IV-B): one slow accuser must not be enough to bury a healthy node quickly.
"""

from __future__ import annotations

import math


class Suspicion:
    """One suspect's clock. `expected` confirmations by others bring it from `longest` to `shortest` seconds."""

    def __init__(self, accuser: str, expected: int, shortest: float, longest: float, now: float) -> None:
        self._accusers = {accuser}
        self._expected = expected
        self._shortest = shortest
        self._longest = longest if expected > 0 else shortest
        self._started = now

    @property
    def confirmations(self) -> int:
        """How many others than the first accuser have suspected it."""
        return len(self._accusers) - 1

    @property
    def confirmed(self) -> bool:
        """Whether all others have suspected it who were expected to."""
        return self.confirmations >= self._expected

    @property
    def deadline(self) -> float:
        """When the suspect is failed, if nothing else is heard."""
        if self._expected <= 0:
            return self._started + self._shortest
        share = math.log(self.confirmations + 1) / math.log(self._expected + 1)
        timeout = self._longest - share * (self._longest - self._shortest)
        return self._started + max(self._shortest, timeout)

    def confirm(self, accuser: str) -> bool:
        """Whether this accuser is news, which is worth passing on."""
        if self.confirmed or accuser in self._accusers:
            return False
        self._accusers.add(accuser)
        return True
