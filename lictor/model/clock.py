"""The clock that leases go by. Unlike the event loop's it is read anew at every call, and it goes on while the machine
is suspended: a process that was stopped must not take an old time for the present.
"""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def lease_clock() -> float:
    """Seconds, from any beginning; never goes back."""
    return time.clock_gettime(_CLOCK)
