"""Telling systemd how the agent is: ready, reloading, stopping (the sd_notify protocol, sd_notify(3)).

One datagram of `NAME=value` lines to the socket that NOTIFY_SOCKET names. Without that variable, or when nobody listens
any more, nothing happens: an agent must not fail because its supervisor does.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Says to the service manager what it waits for. Make it once, before the environment is handed to children."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        variables = os.environ if environment is None else environment
        self._address = _address(variables.get("NOTIFY_SOCKET", ""))

    def ready(self) -> bool:
        """The agent serves, or has finished its reload. True when systemd was told."""
        return self._send("READY=1")

    def reloading(self) -> bool:
        """A reload has begun; `ready` must follow. True when systemd was told."""
        # Type=notify-reload asks for the time, in microseconds of the monotonic clock, to tell reloads apart.
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> bool:
        """The agent is about to end. True when systemd was told."""
        return self._send("STOPPING=1")

    def status(self, text: str) -> bool:
        """One line for `systemctl status`. True when systemd was told."""
        return self._send("STATUS=" + text.replace("\n", " "))

    def _send(self, state: str) -> bool:
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.connect(self._address)
                channel.send(state.encode())
        except OSError:
            return False
        return True


def _address(name: str) -> str | bytes | None:
    """The socket's address: a path, or with a leading @ a name in the abstract namespace."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return name if name.startswith("/") else None
