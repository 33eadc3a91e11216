"""TTL check: nothing is probed; whoever is checked reports in time, or the check turns critical.

Its state outlives the agent: `TtlState` is what is written down at each update, with the time of expiry on the wall
clock, since no other clock survives a restart.
"""

from __future__ import annotations

import msgspec


class TtlCheck(msgspec.Struct, frozen=True, gc=False):
    """`ttl` is the seconds between two updates after which the check is critical."""

    ttl: float


class TtlState(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """The last update of a TTL check. `expires` is in seconds of Unix time."""

    check_id: str = msgspec.field(name="CheckID")
    status: str
    output: str
    expires: float
