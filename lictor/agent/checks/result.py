"""What every type of check has in common: the result of a probe, and the two lanes probes run in.

Its own file because the pure state, the schedule and every type speak of these and of nothing else of one another.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from lictor.model.check import CRITICAL, PASSING, WARNING

if TYPE_CHECKING:
    from lictor.agent.checks.clients import Clients


class Result(msgspec.Struct, frozen=True, gc=False):
    """What a probe found: a status of `lictor.model.check.STATUSES`, and the text a person reads."""

    status: str
    output: str


def passing(output: str) -> Result:
    """The probe found what it looked for."""
    return Result(PASSING, output)


def warning(output: str) -> Result:
    """The probe was answered with a doubt."""
    return Result(WARNING, output)


def critical(output: str) -> Result:
    """The probe failed, or could not be made."""
    return Result(CRITICAL, output)


class Lane(enum.Enum):
    """Where a probe runs; each lane bounds how many run at once, so that scripts that hang hold up scripts alone."""

    NETWORK = "network"
    PROCESS = "process"


class Probe(Protocol):
    """A type of check that is run at an interval. Probes hold no state: one record serves every run."""

    lane: ClassVar[Lane]

    async def probe(self, clients: Clients) -> Result:
        """Look once. Ends within the record's timeout (seconds), whatever the other side does, and tells failures as
        a critical result."""
        ...
