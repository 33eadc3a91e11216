"""The clock that leases go by. Unlike the event loop's it is read anew at every call, and it goes on while the machine
is suspended: a process that was stopped must not take an old time for the present.
"""

import time
from collections.abc import Callable
from functools import partial

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

lease_clock: Callable[[], float] = partial(
    time.clock_gettime, _CLOCK
)  # a function of ours would cost half as much again
"""Seconds, from any beginning; never goes back."""
