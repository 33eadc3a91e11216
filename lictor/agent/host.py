"""The machine that the agent runs on, for `/v1/agent/host`: memory, processors, system, disk.

Linux tells it in /proc, in the formats of proc(5); a file that is missing (another system, a sandbox) leaves its fields
at zero. Field names are those that Consul's answer has. Sizes are bytes, times are seconds since 1970 but for
`CollectionTime`, which is nanoseconds.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from pathlib import Path
from typing import Any

PROC = Path("/proc")

_MEMORY = {
    "total": "MemTotal",
    "available": "MemAvailable",
    "free": "MemFree",
    "active": "Active",
    "inactive": "Inactive",
    "buffers": "Buffers",
    "writeback": "Writeback",
    "dirty": "Dirty",
    "shared": "Shmem",
    "slab": "Slab",
    "pagetables": "PageTables",
    "swapcached": "SwapCached",
    "commitlimit": "CommitLimit",
    "committedas": "Committed_AS",
    "swaptotal": "SwapTotal",
    "swapfree": "SwapFree",
    "mapped": "Mapped",
}


def host_info(folder: str, proc: Path = PROC) -> dict[str, Any]:
    """The whole answer; `folder` is where the agent's data is, whose disk is told of."""
    info: dict[str, Any] = {
        "Memory": memory(_read(proc / "meminfo")),
        "CPU": processors(_read(proc / "cpuinfo")),
        "Host": _system(proc),
        "Disk": _disk(folder),
        "CollectionTime": time.time_ns(),
        "Errors": None,
    }
    return info


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def memory(meminfo: str) -> dict[str, Any]:
    """The machine's memory, from the text of /proc/meminfo."""
    kilobytes: dict[str, int] = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            kilobytes[name] = int(words[0])
    found: dict[str, Any] = {field: kilobytes.get(name, 0) * 1024 for field, name in _MEMORY.items()}
    found["cached"] = (kilobytes.get("Cached", 0) + kilobytes.get("SReclaimable", 0)) * 1024
    total = found["total"]
    used = max(0, total - found["free"] - found["buffers"] - found["cached"])
    found["used"] = used
    found["usedPercent"] = used / total * 100 if total else 0.0
    return found


def processors(cpuinfo: str) -> list[dict[str, Any]]:
    """The machine's processors, from the text of /proc/cpuinfo."""
    found = []
    for block in cpuinfo.split("\n\n"):
        values: dict[str, str] = {}
        for line in block.splitlines():
            name, _, value = line.partition(":")
            values[name.strip()] = value.strip()
        if "processor" in values:
            found.append(
                {
                    "cpu": _integer(values["processor"]),
                    "vendorId": values.get("vendor_id", ""),
                    "family": values.get("cpu family", ""),
                    "model": values.get("model", ""),
                    "stepping": _integer(values.get("stepping", "")),
                    "physicalId": values.get("physical id", ""),
                    "coreId": values.get("core id", ""),
                    "cores": 1,
                    "modelName": values.get("model name", ""),
                    "mhz": _number(values.get("cpu MHz", "")),
                    "cacheSize": _integer(values.get("cache size", "").split(" ")[0]),
                    "flags": values.get("flags", values.get("Features", "")).split(),
                    "microcode": values.get("microcode", ""),
                }
            )
    return found


def _integer(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _system(proc: Path) -> dict[str, Any]:
    uptime = int(_number((_read(proc / "uptime").split() or ["0"])[0]))
    release = _release()
    return {
        "hostname": socket.gethostname(),
        "uptime": uptime,
        "bootTime": int(time.time()) - uptime,
        "procs": sum(1 for entry in _names(proc) if entry.isdigit()),
        "os": platform.system().lower(),
        "platform": release.get("ID", ""),
        "platformFamily": release.get("ID_LIKE", release.get("ID", "")).split(" ")[0],
        "platformVersion": release.get("VERSION_ID", ""),
        "kernelVersion": platform.release(),
        "kernelArch": platform.machine(),
        "virtualizationSystem": "",
        "virtualizationRole": "",
        "hostId": _read(proc / "sys/kernel/random/boot_id").strip(),
    }


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _disk(folder: str) -> dict[str, Any]:
    path = folder or "/"
    try:
        disk = os.statvfs(path)
    except OSError:
        path = "/"
        disk = os.statvfs(path)
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    inodes_used = disk.f_files - disk.f_ffree
    return {
        "path": path,
        "fstype": "",
        "total": total,
        "free": free,
        "used": used,
        "usedPercent": used / (used + free) * 100 if used + free else 0.0,
        "inodesTotal": disk.f_files,
        "inodesUsed": inodes_used,
        "inodesFree": disk.f_ffree,
        "inodesUsedPercent": inodes_used / disk.f_files * 100 if disk.f_files else 0.0,
    }
