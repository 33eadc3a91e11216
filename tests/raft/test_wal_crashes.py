"""Random lives of a log on a disk that loses, tears and reorders whatever was not synced, with crashes at every point.

After each crash the log must be what was acknowledged, or that and the whole of the batch that was being written:
nothing less, nothing else. So term and vote never go back, and no entry appears that was never written.
"""

import os
import random
from pathlib import Path

import msgspec
import pytest

from lictor.raft.core.membership import Membership
from lictor.raft.core.message import BLANK_STATE, Entry, HardState, Snapshot
from lictor.raft.core.quorum import Quorum
from lictor.raft.wal import Batch, Configuration, DiskFailed, DiskFull, Log, Offer, Position, Recovered, SnapshotStore
from tests.raft.simdisk import Crash, SimDisk
from tests.raft.test_snapshots import sent

LOG, SNAPSHOTS = Path("/raft/log"), Path("/raft/snapshots")
SEGMENT = 3000  # small, so that there are many
PIECE = 400
CHUNK = 700
SEEDS = int(os.environ.get("LICTOR_WAL_SEEDS", "60"))


class Expected(msgspec.Struct, frozen=True):
    """The log as it must be: the plain meaning of the batches that were acknowledged."""

    before: Position = Position()
    entries: tuple[Entry, ...] = ()
    state: HardState = BLANK_STATE
    configuration: Configuration | None = None

    @property
    def end(self) -> Position:
        """Where it ends."""
        return Position(self.entries[-1].index, self.entries[-1].term) if self.entries else self.before

    def term(self, index: int) -> int | None:
        """The term at an index."""
        if index == self.before.index:
            return self.before.term
        place = index - self.before.index
        return self.entries[place - 1].term if 0 < place <= len(self.entries) else None

    def after(self, batch: Batch) -> "Expected":
        """With one more batch."""
        before, entries = self.before, self.entries
        if batch.restored is not None:
            before, entries = batch.restored, ()
        if batch.entries:
            entries = (*entries[: batch.entries[0].index - before.index - 1], *batch.entries)
        return Expected(before, entries, batch.state or self.state, batch.configuration or self.configuration)

    def beside(self, snapshot: Position) -> "Expected":
        """As a start must find it: entries after the snapshot, as far as they do not contradict it."""
        if self.term(snapshot.index) != snapshot.term:
            state = self.state if self.state.term >= snapshot.term else HardState(snapshot.term)
            return Expected(snapshot, (), HardState(state.term, state.vote, snapshot.index), self.configuration)
        entries = self.entries[snapshot.index - self.before.index :]
        return Expected(snapshot, entries, self.state, self.configuration)


def seen(found: Recovered, snapshot: Position) -> Expected:
    """What a start found, after the snapshot."""
    whole = Expected(found.before, tuple(found.entries), found.state, found.configuration)
    assert whole.before.index <= snapshot.index, "entries after the snapshot are missing"
    return whole.beside(snapshot)


def position(snapshot: Snapshot | None) -> Position:
    """Where a snapshot stands."""
    return Position(snapshot.index, snapshot.term) if snapshot else Position()


class Life:
    """A server that does what servers do to their log, at random."""

    def __init__(self, seed: int, disk: SimDisk) -> None:
        self.rng = random.Random(seed)
        self.disk = disk
        self.acknowledged = Expected()
        self.attempted: list[Batch] = []  # since the last acknowledged one; any of them may be there after a crash
        self.snapshots = [Position()]  # those that may be there: the last acknowledged one, and one being written
        self.written = 0
        self.arriving: tuple[Offer, bytes] | None = None

    def start(self) -> None:
        """Recover, and compare with what must be there."""
        self.store = SnapshotStore(SNAPSHOTS, self.disk, chunk_bytes=CHUNK, chance=self.rng)
        snapshot = position(self.store.open())
        assert snapshot in self.snapshots, "a snapshot that was acknowledged is there"
        assert b"".join(self.store.read()) == state_at(snapshot), "a snapshot is whole"
        self.snapshots = [snapshot]
        self.log = Log(LOG, self.disk, segment_bytes=SEGMENT, piece_bytes=PIECE, chance=self.rng)
        found = seen(self.log.recover(snapshot), snapshot)
        possible = [self.acknowledged.beside(snapshot)]
        possible += [self.acknowledged.after(batch).beside(snapshot) for batch in self.attempted]
        assert found in possible, f"expected one of\n{possible}\nfound\n{found}"
        self.acknowledged, self.attempted = found, []
        assert self.log.end == found.end

    def act(self) -> None:
        """Do one thing."""
        choice = self.rng.random()
        if choice < 0.75:
            self.append()
        elif choice < 0.88:
            self.take_snapshot()
        elif choice < 0.92:
            self.receive_snapshot()
        elif choice < 0.96:
            self.log.close()
            self.start()
        else:
            self.run_out_of_room()

    def append(self) -> None:
        """Entries at the end, or in place of some that are not committed; a state; a configuration."""
        rng, old = self.rng, self.acknowledged
        term = max(old.state.term, old.end.term, 1) + (rng.random() < 0.2)
        low = max(old.state.commit, old.before.index, self.snapshots[-1].index) + 1
        first = rng.randint(min(low, old.end.index + 1), old.end.index + 1) if rng.random() < 0.2 else old.end.index + 1
        count = rng.choice([0, 1, 1, 2, 5])
        entries = tuple(Entry(term, first + n, data=self.payload()) for n in range(count))
        end = old.after(Batch(entries)).end.index
        state = configuration = None
        if rng.random() < 0.6:
            state = HardState(term, rng.randrange(4), rng.randint(min(old.state.commit, end), end))
        if rng.random() < 0.1:
            voters = frozenset(rng.sample(range(1, 9), 3))
            configuration = Configuration(end, Membership(Quorum(voters)))
        self.write(Batch(entries, state, configuration))

    def write(self, batch: Batch) -> None:
        """Append a batch, and note what that promises."""
        self.attempted.append(batch)
        self.log.append(batch)
        self.acknowledged, self.attempted = self.acknowledged.after(batch), []

    def payload(self) -> bytes:
        """Some bytes: small, large, all zeros, or such that look like the log itself."""
        self.written += 1
        own = self.disk.content(self.disk.paths()[-1])[: self.rng.randrange(1, 200)]
        return self.rng.choice([b"%d" % self.written, bytes(self.rng.randrange(1500)), self.rng.randbytes(700), own])

    def take_snapshot(self) -> None:
        """Of something committed; then what is older goes."""
        low, high = self.snapshots[-1].index, min(self.acknowledged.state.commit, self.acknowledged.end.index)
        if high <= low:
            return
        index = self.rng.randint(low + 1, high)
        term = self.acknowledged.term(index)
        assert term is not None
        self.save_snapshot(Position(index, term))
        self.log.compact(max(0, index - self.rng.choice([0, 3])))

    def receive_snapshot(self) -> None:
        """From a leader that is far ahead, in pieces, some of them another time; the log begins anew after it."""
        if self.arriving is None or self.arriving[0].snapshot.index <= self.acknowledged.end.index:
            index = self.acknowledged.end.index + self.rng.randint(1, 40)
            self.arriving = offered(Position(index, max(self.acknowledged.end.term, 1)), self.rng)
        offer, data = self.arriving
        incoming = self.store.receive(offer)
        assert incoming.offset <= offer.size
        while incoming.offset < offer.size:
            if self.rng.random() < 0.1:
                incoming.pause()
                return
            incoming.write(incoming.offset, data[incoming.offset :][: self.rng.randrange(1, 1500)])
        to = Position(offer.snapshot.index, offer.snapshot.term)
        self.snapshots.append(to)
        incoming.finish()
        self.snapshots, self.arriving = [to], None
        self.store.remove_older()
        state = HardState(max(to.term, self.acknowledged.state.term), self.acknowledged.state.vote, to.index)
        batch = Batch(restored=to, state=state)
        try:
            self.write(batch)
        except DiskFull:
            # The snapshot counts already: nothing else can be done before its place in the log is found.
            self.disk.capacity, self.disk.refuse = None, frozenset()
            self.write(batch)
        self.log.compact(to.index)

    def save_snapshot(self, at: Position) -> None:
        """Write a snapshot, and note what that promises."""
        self.snapshots.append(at)
        self.store.write(Snapshot(at.index, at.term, Membership()), [state_at(at)])
        self.snapshots = [at]
        self.store.remove_older()

    def run_out_of_room(self) -> None:
        """Nothing of what finds no room is done, and everything goes on when there is room again."""
        disk, rng = self.disk, self.rng
        if rng.random() < 0.3:
            disk.capacity = disk.used() + rng.randrange(2000)
        else:
            disk.refuse = frozenset(
                rng.sample(("create", "allocate", "write", "truncate", "replace"), rng.randint(1, 5))
            )
        try:
            for _ in range(5):
                rng.choice((self.append, self.append, self.take_snapshot, self.receive_snapshot))()
        except DiskFull:
            self.snapshots = self.snapshots[:1]
        finally:
            disk.capacity, disk.refuse = None, frozenset()


def state_at(at: Position) -> bytes:
    """The state that the snapshot of a position holds."""
    return b"state at %d in %d;" % (at.index, at.term) * (at.index % 7) ** 3 if at.index else b""


def offered(at: Position, chance: random.Random) -> tuple[Offer, bytes]:
    """A snapshot as another server has it."""
    store = SnapshotStore(SNAPSHOTS, SimDisk(chance), chunk_bytes=CHUNK, chance=chance)
    store.open()
    store.write(Snapshot(at.index, at.term, Membership()), [state_at(at)])
    return sent(store)


def live(life: Life, acts: int) -> bool:
    """Live on until a crash. Returns False if there was one."""
    try:
        for _ in range(acts):
            life.act()
    except Crash:
        return False
    except DiskFailed:
        life.log.abandon()
        return False
    return True


def rise(life: Life, chooser: random.Random) -> None:
    """Start after a crash; the start may crash as well."""
    for attempt in range(20):
        if chooser.random() < 0.7:
            life.disk.lose_power()
        else:
            life.disk.reopen()
        if attempt < 3 and chooser.random() < 0.5:
            life.disk.fuse = chooser.randrange(12)
        try:
            life.start()
            life.disk.fuse = None
            return
        except Crash:
            continue
    raise AssertionError("it starts in the end")


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_at_every_single_point(seed: int) -> None:
    """One life, ended at each of its disk operations in turn; it begins again and goes on."""
    crashes = 0
    for point in range(10_000):
        life = Life(seed, SimDisk(random.Random(point)))
        life.start()
        life.disk.fuse = point
        if live(life, 60):
            break
        crashes += 1
        chooser = random.Random(point)
        rise(life, chooser)
        assert live(life, 3)
        life.disk.lose_power()
        life.start()
    assert crashes > 100


@pytest.mark.parametrize("seed", range(SEEDS))
def test_long_lives_with_many_crashes(seed: int) -> None:
    """Crashes of the program and of the machine, syncs that fail, full disks, over and over on one disk."""
    chooser = random.Random(seed + 1_000_000)
    life = Life(seed, SimDisk(chooser))
    life.start()
    for _ in range(15):
        if chooser.random() < 0.8:
            life.disk.fuse = chooser.randrange(120)
        elif chooser.random() < 0.5:
            life.disk.fail_syncs = 1
        live(life, 30)
        rise(life, chooser)
    again = position(life.store.open())
    life.log.abandon()
    first = Log(LOG, life.disk, segment_bytes=SEGMENT, piece_bytes=PIECE).recover(again)
    assert Log(LOG, life.disk, segment_bytes=SEGMENT, piece_bytes=PIECE).recover(again) == first, (
        "recovering changes nothing"
    )
