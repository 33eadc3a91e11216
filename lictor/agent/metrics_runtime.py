"""The gauges of the process itself, under the names that dashboards for Consul look for.

Their meanings are the nearest that Python has: `num_goroutines` counts the tasks of the event loop. All are computed
when somebody asks.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource

from lictor.agent.metrics import Metrics


def publish_runtime(metrics: Metrics) -> None:
    """Add the gauges `runtime.*` to the metrics."""
    metrics.gauge_of("runtime.alloc_bytes", resident_bytes)
    metrics.gauge_of("runtime.sys_bytes", mapped_bytes)
    metrics.gauge_of("runtime.num_goroutines", task_count)
    metrics.gauge_of("runtime.total_gc_runs", collections)
    metrics.gauge_of("runtime.cpu_seconds", cpu_seconds)


def resident_bytes() -> float:
    """Memory of the process that is in RAM; 0 where the system does not tell."""
    return _pages(1)


def mapped_bytes() -> float:
    """Memory that the process has mapped; 0 where the system does not tell."""
    return _pages(0)


def _pages(column: int) -> float:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[column]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def task_count() -> float:
    """Tasks of the running event loop; 0 outside of one."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0


def collections() -> float:
    """Runs of the garbage collector."""
    return sum(int(generation["collections"]) for generation in gc.get_stats())


def cpu_seconds() -> float:
    """Processor time that the process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
