"""What a replica is told and given: its timing and limits, and the world it acts on."""

import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from lictor.model.clock import lease_clock
from lictor.raft.wal import Files, OsFiles

ELECTION_TICKS = 10


class RaftSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`election_timeout` is in seconds: for so long without a word from the leader, and at random up to twice as long,
    a follower waits before it stands for election; the leader speaks ten times as often.

    A snapshot is taken when `snapshot_threshold` entries were applied since the last, looked at about every
    `snapshot_interval` seconds, or when the entries that are held have `snapshot_bytes`; `trailing` entries before it
    are kept for followers that are a little behind, but no more than `trailing_bytes` of them. From a leader no
    snapshot of more than `snapshot_most` bytes is taken.
    """

    election_timeout: float = 2.5
    snapshot_threshold: int = 16384
    snapshot_interval: float = 30.0
    snapshot_bytes: int = 128 * 1024 * 1024
    snapshot_most: int = 64 * 1024 * 1024 * 1024
    trailing: int = 10240
    trailing_bytes: int = 64 * 1024 * 1024
    segment_bytes: int = 64 * 1024 * 1024
    entry_bytes: int = 8 * 1024 * 1024
    message_bytes: int = 1024 * 1024
    inflight: int = 128
    inflight_bytes: int = 16 * 1024 * 1024
    queued_bytes: int = 256 * 1024 * 1024

    @property
    def tick(self) -> float:
        """Seconds of a tick."""
        return self.election_timeout / ELECTION_TICKS


def election_timeout(raft_multiplier: int) -> float:
    """Seconds, for `performance.raft_multiplier`: half a second for each, but no less than one."""
    return max(1.0, 0.5 * raft_multiplier)


class Runner(Protocol):
    """Runs work that blocks, each call after the one before it."""

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]: ...


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica acts on. `log_work` and `snapshot_work` run what blocks: the first the log's short writes, the
    second reading and writing whole states, so that neither waits for the other. `fatal` ends the process: what the
    disk holds is unknown.
    """

    log_work: Runner
    snapshot_work: Runner
    fatal: Callable[[BaseException], None]
    files: Files = msgspec.field(default_factory=OsFiles)
    chance: random.Random = msgspec.field(default_factory=random.SystemRandom)
    lease_clock: Callable[[], float] = lease_clock
