"""Consensus of one: every entry is committed as soon as it is durable here.

Entries that arrive while a sync is under way go out together with the next one, so that many writers share the disk's
time. Without a folder everything stays in memory. A failed sync is fatal: what the disk holds is then unknown.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lictor.model.errors import NoLeader
from lictor.raft.consensus import Machine, Peer
from lictor.raft.disk import Disk

SNAPSHOT_BYTES = 64 * 1024 * 1024  # the log's size at which a snapshot lets it begin anew


def die(error: BaseException) -> None:
    """End the process at once: the disk cannot be trusted any more."""
    os.kill(os.getpid(), signal.SIGABRT)
    raise SystemExit(f"cannot write the log: {error}")


class SingleVoter:
    """A `Consensus` whose only voter is this server. `folder` is where the log lives, None for memory only."""

    def __init__(
        self,
        machine: Machine,
        peer: Callable[[], Peer],
        folder: Path | None = None,
        *,
        snapshot_bytes: int = SNAPSHOT_BYTES,
        fatal: Callable[[BaseException], None] = die,
    ) -> None:
        self._machine = machine
        self._peer = peer
        self._address = ""
        self._disk = Disk(folder) if folder is not None else None
        self._snapshot_bytes = snapshot_bytes
        self._fatal = fatal
        self._waiting: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._started = False
        self.last_index = 0
        self.snapshot_index = 0

    @property
    def is_leader(self) -> bool:
        """True from start to close."""
        return self._started

    @property
    def leader(self) -> str:
        """This server's address."""
        return self._address if self._started else ""

    async def start(self) -> None:
        """Load the snapshot, replay the log, and begin to accept entries. Raises `DamagedLog`."""
        if self._disk is not None:
            index, state, entries = await asyncio.to_thread(self._disk.open)
            if state is not None:
                self._machine.load(state)
            self.snapshot_index = self.last_index = index
            for number, (at, payload) in enumerate(entries):
                self._machine.apply(payload)
                self.last_index = at
                if number % 1000 == 999:
                    await asyncio.sleep(0)
            self._writer = asyncio.create_task(self._write())
        self._address = self._peer().address
        self._started = True

    async def propose(self, entry: bytes) -> Any:
        """Commit an entry and apply it. Returns what the machine returned."""
        if not self._started:
            raise NoLeader
        if self._disk is None:
            self.last_index += 1
            return self._machine.apply(entry)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, done))
        self._wake.set()
        return await asyncio.shield(done)

    async def confirm_leadership(self) -> None:
        """A single voter always leads itself."""
        if not self._started:
            raise NoLeader

    def peers(self) -> list[Peer]:
        """This server."""
        return [self._peer()]

    def stats(self) -> dict[str, str]:
        """What `agent/self` shows under `raft`."""
        me = self._peer()
        return {
            "applied_index": str(self.last_index),
            "commit_index": str(self.last_index),
            "fsm_pending": str(len(self._waiting)),
            "last_contact": "0",
            "last_log_index": str(self.last_index),
            "last_log_term": "1",
            "last_snapshot_index": str(self.snapshot_index),
            "last_snapshot_term": "1" if self.snapshot_index else "0",
            "latest_configuration": f"[{{Suffrage:Voter ID:{me.id} Address:{me.address}}}]",
            "latest_configuration_index": "0",
            "num_peers": "0",
            "protocol_version": "3",
            "protocol_version_max": "3",
            "protocol_version_min": "0",
            "snapshot_version_max": "1",
            "snapshot_version_min": "0",
            "state": "Leader" if self._started else "Follower",
            "term": "1",
        }

    async def close(self) -> None:
        """Write what was accepted, and stop."""
        self._started = False
        if self._writer is not None:
            self._wake.set()
            await self._writer
            self._writer = None
        if self._disk is not None:
            await asyncio.to_thread(self._disk.close)

    async def _write(self) -> None:
        disk = self._disk
        assert disk is not None
        while self._started or self._waiting:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch, self._waiting = self._waiting, []
            first = self.last_index + 1
            records = [(first + n, entry) for n, (entry, _) in enumerate(batch)]
            try:
                await asyncio.to_thread(disk.append, records)
                for entry, done in batch:
                    self.last_index += 1
                    result = self._machine.apply(entry)
                    if not done.done():
                        done.set_result(result)
                if disk.log_bytes > self._snapshot_bytes:
                    await self._snapshot(disk)
            except OSError as error:
                self._fatal(error)
                for _, done in batch:
                    if not done.done():
                        done.set_exception(NoLeader())
                self._started = False
                return

    async def _snapshot(self, disk: Disk) -> None:
        index, image = self.last_index, self._machine.image()
        await asyncio.to_thread(disk.save_snapshot, index, image.encode())
        await asyncio.to_thread(disk.begin_anew, [])
        self.snapshot_index = index
