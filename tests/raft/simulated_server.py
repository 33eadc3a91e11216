"""One server of a simulated cluster, its disk and its state machine, and an observer who sees all of them.

The server is the real core. Its disk loses in a crash what was not synced, from some write on; its state machine is a
digest of everything that it applied, so that two of them are the same exactly if their histories are.
"""

import random
from collections.abc import Callable, Iterable
from hashlib import blake2b

from lictor.raft.core import events
from lictor.raft.core.config import Config
from lictor.raft.core.events import Role
from lictor.raft.core.membership import ChangeRefused, decode_change, decode_single_change
from lictor.raft.core.message import Entry, EntryKind, HardState, Message, Snapshot
from lictor.raft.core.node import Node
from lictor.raft.core.ready import Ready
from lictor.raft.core.storage import MemoryStorage


class Broken(AssertionError):
    """A promise of the protocol does not hold."""


class Observer:
    """What was seen of all servers, and what must never be seen."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}  # term -> server
        self.entries: dict[tuple[int, int], tuple[Entry, int]] = {}  # (index, term) -> entry, term of the one before
        self.committed: dict[int, int] = {}  # index -> term
        self.commit = 0
        self.states: dict[int, bytes] = {}  # index -> digest of the state after it

    def leads(self, node: int, term: int, storage_term: Callable[[int], int | None]) -> None:
        """A server became leader. `storage_term` gives the terms of its log."""
        if self.leaders.setdefault(term, node) != node:
            raise Broken(f"term {term} has two leaders: {self.leaders[term]} and {node}")
        for index, committed in self.committed.items():
            found = storage_term(index)
            if found is not None and found != committed:
                raise Broken(
                    f"leader {node} of term {term} has term {found} at {index}, where {committed} is committed"
                )

    def lasts_to(self, node: int, term: int, last: int) -> None:
        """The end of a new leader's log."""
        if last < self.commit:
            raise Broken(f"leader {node} of term {term} ends at {last}, but {self.commit} are committed")

    def has(self, node: int, entry: Entry, before: int) -> None:
        """A server's log has an entry, after one of term `before`."""
        known = self.entries.setdefault((entry.index, entry.term), (entry, before))
        if known != (entry, before):
            raise Broken(f"server {node} has {entry} after term {before}, others have {known[0]} after {known[1]}")

    def commits(self, node: int, entry: Entry) -> None:
        """A server was told to apply an entry."""
        if self.committed.setdefault(entry.index, entry.term) != entry.term:
            other = self.committed[entry.index]
            raise Broken(f"server {node} commits term {entry.term} at {entry.index}, others committed {other}")
        self.commit = max(self.commit, entry.index)

    def reached(self, node: int, index: int, state: bytes) -> None:
        """A server's state after an entry."""
        if self.states.setdefault(index, state) != state:
            raise Broken(f"server {node} has another state than others after {index}")


class Server:
    """One server with its disk. `node` is None while it is down.

    The disk is two storages: `disk` is what the server reads, `synced` what a crash leaves at least; `unsynced` is the
    difference, in the order in which it was written.
    """

    def __init__(self, config: Config, disk: MemoryStorage, observer: Observer, chance: random.Random) -> None:
        self.config = config
        self.disk = disk
        self.synced = disk.copy()
        self.unsynced: list[Message | Ready] = []
        self.append_work: list[Message] = []
        self.apply_work: list[Message] = []
        self.node: Node | None = None
        self.applied = 0
        self.state = b""
        self.reads: dict[bytes, int] = {}
        self._observer = observer
        self._chance = chance
        self._log_term: Callable[[int], int | None] = disk.term

    # --- life

    def start(self) -> Node:
        """Come up with what the disk holds; the state machine begins with the latest snapshot."""
        snapshot = self.disk.snapshot()
        self.applied, self.state = (snapshot.index, snapshot.data) if snapshot else (0, b"")
        config = Config(
            **{name: getattr(self.config, name) for name in Config.__struct_fields__} | {"applied": self.applied}
        )
        self.node = Node(config, self.disk, random.Random(self._chance.getrandbits(32)), self._trace)
        return self.node

    def crash(self) -> None:
        """Lose what is in memory. Of what was written and not synced, some first part is found again."""
        unsynced: list[Message | Ready] = [*self.unsynced, *self.append_work]
        kept = unsynced[: self._chance.randint(0, len(unsynced))]
        for work in kept:
            write(self.synced, work)
        self.disk = self.synced.copy()
        self.unsynced, self.append_work, self.apply_work = [], [], []
        self.reads = {}
        self.node = None

    def _trace(self, event: events.Event) -> None:
        if isinstance(event, events.RoleTaken) and event.role is Role.LEADER and self.node is not None:
            self._observer.leads(event.node, event.term, self.log_term)
            self._observer.lasts_to(event.node, event.term, self.last_index())

    # --- what the log holds, written or not

    def log_term(self, index: int) -> int | None:
        """The term of an entry of the whole log."""
        assert self.node is not None
        return self.node.entry_term(index)

    def last_index(self) -> int:
        """The end of the whole log."""
        assert self.node is not None
        return self.node.last_index

    # --- disk

    def save(self, work: Message | Ready, *, sync: bool) -> None:
        """Write, and sync if asked to."""
        write(self.disk, work)
        self.unsynced.append(work)
        if sync:
            self.sync()

    def sync(self) -> None:
        """Everything written is durable."""
        for work in self.unsynced:
            write(self.synced, work)
        self.unsynced = []

    def take_snapshot(self, keep: int) -> None:
        """Keep the state as a snapshot, and all entries but the last `keep` before it go."""
        assert self.node is not None
        self.sync()
        membership = self.node.status().membership
        latest = self.disk.snapshot()
        if self.apply_work or self.applied <= (latest.index if latest else 0):
            return
        for storage in (self.disk, self.synced):
            storage.take_snapshot(self.applied, membership, self.state)
            if self.applied - keep >= storage.first_index():
                storage.compact(self.applied - keep)

    # --- state machine

    def load(self, snapshot: Snapshot) -> None:
        """Become the state of a snapshot."""
        self._observer.reached(self.config.id, snapshot.index, snapshot.data)
        self.applied, self.state = snapshot.index, snapshot.data

    def apply(self, entries: Iterable[Entry]) -> None:
        """Apply entries; those that a snapshot brought already are skipped."""
        assert self.node is not None
        for entry in entries:
            self._observer.commits(self.config.id, entry)
            if entry.index <= self.applied:
                continue
            if entry.index != self.applied + 1:
                raise Broken(f"server {self.config.id} applies {entry.index} after {self.applied}")
            self.state = blake2b(self.state + entry.term.to_bytes(8) + entry.data, digest_size=8).digest()
            self.applied = entry.index
            self._observer.reached(self.config.id, self.applied, self.state)
            if entry.kind is not EntryKind.NORMAL:
                single = entry.kind is EntryKind.CHANGE_V1
                change = decode_single_change(entry.data) if single else decode_change(entry.data)
                try:
                    self.node.apply_change(entry.index, change)
                except ChangeRefused as error:
                    raise Broken(f"server {self.config.id} cannot apply {change} at {entry.index}: {error}") from error


def write(storage: MemoryStorage, work: Message | Ready) -> None:
    """Write what a message to the append thread or a `Ready` holds."""
    if isinstance(work, Ready):
        state = work.hard_state
    else:
        state = HardState(work.term, work.vote, work.commit) if work.term else None
    if work.snapshot is not None:
        storage.restore(work.snapshot)
    storage.append(work.entries)
    if state is not None:
        storage.save(state)
