"""The workloads by their names."""

from collections.abc import Callable
from functools import partial
from typing import Final

from jepsen.workload import Workload
from jepsen.workloads.counter import Counter
from jepsen.workloads.lock import Lock
from jepsen.workloads.register import Register
from jepsen.workloads.sessions import Sessions
from jepsen.workloads.sets import ManyKeys, OneKey
from jepsen.workloads.stale import Stale

# Each is made with the name that its keys begin with.
WORKLOADS: Final[dict[str, Callable[[str], Workload]]] = {
    "register": Register,
    "set": ManyKeys,
    "set-cas": OneKey,
    "lock": Lock,
    "session": Sessions,
    "counter": Counter,
    "stale": Stale,
    "control": partial(Register, modes={"stale": "?stale"}),
}

__all__ = ["WORKLOADS"]
