"""OS service check: the state of a unit of the system's service manager, asked of systemd through `systemctl show`.

`show` answers for units that do not exist too, in fields rather than prose, and needs no bus library.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from lictor.agent.checks.clients import Clients
from lictor.agent.checks.connection import explain_errno
from lictor.agent.checks.output import TailBuffer
from lictor.agent.checks.result import Lane, Result, critical, passing, warning
from lictor.agent.checks.script import DEFAULT_TIMEOUT, run, timed_out

HEALTHY = frozenset({"active", "reloading", "refreshing"})
CHANGING = frozenset({"activating", "deactivating", "maintenance"})


class OsServiceCheck(msgspec.Struct, frozen=True):
    """`name` is a unit, with or without ".service"; `timeout` in seconds; `systemctl` the program that is asked."""

    lane: ClassVar[Lane] = Lane.PROCESS

    name: str
    timeout: float = DEFAULT_TIMEOUT
    systemctl: str = "systemctl"

    async def probe(self, clients: Clients) -> Result:
        """Ask once: running is passing, on its way up or down is warning, anything else critical."""
        buffer = TailBuffer(4096)
        command = (self.systemctl, "show", "--property=LoadState,ActiveState,SubState", "--", self.name)
        try:
            exit_status = await run(command, self.timeout, buffer)
        except TimeoutError:
            return critical(timed_out(self.timeout))
        except OSError as error:
            return critical(f"OS services cannot be checked here: {self.systemctl}: {explain_errno(error)}")
        if exit_status != 0:
            return critical(f"OS services cannot be checked here: {buffer.text().strip()}")
        return _judge(self.name, dict(line.split("=", 1) for line in buffer.text().splitlines() if "=" in line))


def _judge(name: str, fields: dict[str, str]) -> Result:
    active = fields.get("ActiveState", "unknown")
    if fields.get("LoadState") == "not-found":
        return critical(f'OS Service unhealthy: service "{name}" is not installed')
    if active in HEALTHY:
        return passing(f'Service "{name}" is healthy')
    text = f'service "{name}" is {active} ({fields.get("SubState", "unknown")})'
    return warning(text) if active in CHANGING else critical(f"OS Service unhealthy: {text}")
