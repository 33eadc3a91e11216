"""What takes several calls, described once for both flavours of client: a generator that yields what it wants done.

It yields a `Call` and is sent its value, a `WithAnswer` and is sent the `Answer`, or has the error raised in it; it
yields a `Pause` to wait, and is told whether that went to its end.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

import msgspec

from lictor.client.calls import Call

T = TypeVar("T")


class WithAnswer(msgspec.Struct, frozen=True):
    """A call of which more than the value is wanted."""

    call: Call[Any]


class Pause(msgspec.Struct, frozen=True):
    """A wait, in seconds."""

    seconds: float


Step: TypeAlias = "Call[Any] | WithAnswer | Pause"
Flow: TypeAlias = Generator[Step, Any, T]
