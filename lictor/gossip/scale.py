"""How the constants of a pool grow with the number of its nodes. All logarithmic: that is why gossip scales."""

from __future__ import annotations

import math

_PUSH_PULL_THRESHOLD = 32


def retransmit_limit(mult: int, nodes: int) -> int:
    """How often a broadcast is sent before it is taken to have reached everyone."""
    return mult * math.ceil(math.log10(nodes + 1))


def suspicion_timeout(mult: int, nodes: int, probe_interval: float) -> float:
    """The least time, in seconds, that a suspect has to refute."""
    return mult * max(1.0, math.log10(max(1, nodes))) * probe_interval


def push_pull_interval(interval: float, nodes: int) -> float:
    """The time between exchanges of states: one more interval for each doubling past 32 nodes."""
    if nodes <= _PUSH_PULL_THRESHOLD:
        return interval
    return interval * (math.ceil(math.log2(nodes / _PUSH_PULL_THRESHOLD)) + 1)
