"""A raft folder as a start finds it: whose it is, its log, its latest snapshot; and what a cluster begins with."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from lictor.model.errors import LictorError, Refused
from lictor.model.transport import UNREADABLE
from lictor.raft.consensus import Peer, ServerRecord
from lictor.raft.core.membership import Membership
from lictor.raft.core.message import BLANK_STATE, Entry, HardState, Snapshot
from lictor.raft.core.quorum import Quorum
from lictor.raft.once import AppliedNumbers
from lictor.raft.roster import Roster
from lictor.raft.wal import Batch, DamagedLog, Files, Log, Mangled, Position, Recovered, SnapshotStore
from lictor.raft.wal.errors import naming, syncing, syncing_aside

IDENTITY = "identity.json"
_LENGTH = 8  # bytes of the length of the applied numbers, before them
_MOST = 1 << 30  # bytes of the applied numbers


class Opened(msgspec.Struct, frozen=True):
    """What a folder holds; `new` if it was made just now."""

    number: int
    new: bool
    wal: Log
    store: SnapshotStore
    recovered: Recovered
    snapshot: Snapshot | None


def open_folder(folder: Path, files: Files, segment_bytes: int, chance: random.Random) -> Opened:
    """Open a raft folder, new or not. Blocks. Raises `DamagedLog`, `DiskFull`, `DiskFailed`."""
    store = SnapshotStore(folder / "snapshots", files, chance=chance)
    wal = Log(folder / "log", files, segment_bytes=segment_bytes, chance=chance)
    there = wal.exists()
    new = IDENTITY not in files.names(folder)
    if not there and not new:
        raise DamagedLog(f"{wal.folder}: there is no log in it, though the server was here before; {_REMEDY}")
    snapshot = store.open()
    recovered = wal.recover(Position(snapshot.index, snapshot.term) if snapshot is not None else Position())
    used = snapshot is not None or bool(recovered.entries) or recovered.state != BLANK_STATE
    return Opened(_identity(folder, files, chance, used=used), new, wal, store, recovered, snapshot)


def _identity(folder: Path, files: Files, chance: random.Random, *, used: bool) -> int:
    """The number of this server; made with the folder. Raises `DamagedLog` where it is lost."""
    path = folder / IDENTITY
    if IDENTITY not in files.names(folder):
        if used:
            raise DamagedLog(f"{path}: missing, though there is a log beside it; {_REMEDY}")
        number = chance.getrandbits(60) | 1
        aside = folder / f"{IDENTITY}-new"
        with naming(aside):
            file = files.create(aside)
        try:
            with naming(aside):
                file.write(0, json.dumps({"number": number}).encode() + b"\n")
            with syncing_aside(aside):
                file.sync()
        finally:
            file.close()
        with naming(path):
            files.replace(aside, path)
        with syncing(path):
            files.sync_folder(folder)
        return number
    with naming(path):
        file = files.open(path)
        data = file.read(0, 4096)
        file.close()
    try:
        found = json.loads(data)["number"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, int) or not 0 < found < 1 << 62:
        raise DamagedLog(f"{path}: it does not hold this server's number; {_REMEDY}")
    return found


_REMEDY = (
    "if the other servers of the cluster are well, remove this one from the cluster, move its raft folder away and "
    "let it join anew; otherwise restore the data directory from a backup"
)


def voters(records: Mapping[int, ServerRecord]) -> Membership:
    """A membership of nothing but voters."""
    return Membership(Quorum(frozenset(records)))


def beginning(snapshot: Snapshot, state: HardState = BLANK_STATE, tail: Sequence[Entry] = ()) -> Batch:
    """What the log of a server holds whose state begins with a snapshot, and goes on with a tail."""
    state = HardState(max(state.term, snapshot.term), state.vote if state.term >= snapshot.term else 0, snapshot.index)
    return Batch(entries=tuple(tail), state=state, restored=Position(snapshot.index, snapshot.term))


def successors(
    servers: Sequence[Peer], roster: Roster, number: int, own: ServerRecord
) -> tuple[Membership, list[ServerRecord]]:
    """The configuration after a recovery: these servers under the numbers that the roster has. Raises `Refused` for
    servers that it has not, and for a configuration that nobody could lead.
    """
    records, learners = [], set()
    for server in servers:
        found = roster.by_id(server.id)
        if server.id == own.id:
            records.append(ServerRecord(own.id, own.node, server.address or own.address, number))
        elif found is not None:
            records.append(ServerRecord(found.id, found.node, server.address or found.address, found.number))
        else:
            raise Refused(f"server {server.id} is not known here: list only servers that were in the cluster")
        if not server.voter:
            learners.add(records[-1].number)
    numbers = frozenset(record.number for record in records)
    if not numbers - learners:
        raise Refused("at least one of the servers must be a voter")
    return Membership(Quorum(numbers - learners), frozenset(learners)), records


def pack_state(applied_numbers: bytes, machine: Iterable[bytes]) -> Iterator[bytes]:
    """The content of a snapshot."""
    yield len(applied_numbers).to_bytes(_LENGTH, "big") + applied_numbers
    yield from machine


def unpack_state(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The applied numbers, and the machine's pieces. Raises `DamagedLog`."""
    held = bytearray()
    needed = _LENGTH
    while len(held) < needed:
        piece = next(pieces, None)
        if piece is None:
            raise DamagedLog("a snapshot ends before the machine's state begins")
        held += piece
        if len(held) >= _LENGTH:
            needed = _LENGTH + int.from_bytes(held[:_LENGTH], "big")
            if needed > _MOST:
                raise DamagedLog(f"a snapshot claims {needed} bytes of applied numbers, more than there can be")

    def rest() -> Iterator[bytes]:
        yield bytes(held[needed:])
        yield from pieces

    return bytes(held[_LENGTH:needed]), rest()


def check_state(pieces: Iterator[bytes], machine: Callable[[Iterator[bytes]], None]) -> None:
    """See that a snapshot's content is a state, as far as `machine` can tell. Blocks. Raises `Mangled`."""
    try:
        numbers, rest = unpack_state(pieces)
        AppliedNumbers().load(numbers)
        machine(rest)
    except (DamagedLog, LictorError, ValueError, *UNREADABLE) as error:
        raise Mangled(f"the snapshot that was received holds no state: {error}") from None
