"""Ports for programs that tests start: free, and left alone until they are used.

A port that the kernel chose is anybody's again once it is let go: another test's program may get it, or a connection
that goes out. So these come from below the range that the kernel chooses from, in blocks, and a block is this
process's alone while it holds the block's first port.
"""

from __future__ import annotations

import socket

AGENTS = ("http", "dns", "server", "serf-lan", "serf-wan", "grpc")
LOWEST, HIGHEST = 10_000, 32_000
BLOCK = 500


class _Block:
    """The ports that are this process's. They are given in turn, so that one that was just let go is left in peace."""

    def __init__(self) -> None:
        for first in range(LOWEST, HIGHEST, BLOCK):
            guard = socket.socket()
            try:
                guard.bind(("127.0.0.1", first))
            except OSError:
                guard.close()
                continue
            self.guard = guard
            self.first = first
            self.given = 0
            return
        raise OSError(f"no block of {BLOCK} ports from {LOWEST} to {HIGHEST} is free")

    def next(self) -> int:
        """Another port, whether it is free or not."""
        self.given = self.given % (BLOCK - 1) + 1
        return self.first + self.given


_block: _Block | None = None


def free_port() -> int:
    """A port that is free on every address, for streams and for datagrams, and not given again soon."""
    global _block
    if _block is None:
        _block = _Block()
    for _ in range(BLOCK):
        port = _block.next()
        if _is_free(port):
            return port
    raise OSError(f"none of the ports from {_block.first} is free")


def agent_ports() -> dict[str, int]:
    """Ports for an agent, named as in its flags; all different."""
    return {name: free_port() for name in AGENTS}


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as tried:
            try:
                tried.bind(("", port))
            except OSError:
                return False
    return True
