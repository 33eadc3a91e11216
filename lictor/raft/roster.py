"""The servers behind the numbers of a membership, and what a change of the configuration says of them. Pure."""

from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from lictor.raft.consensus import ServerRecord

_encode = msgspec.msgpack.Encoder().encode


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A roster as it is kept with a snapshot."""

    cluster: str = ""
    records: tuple[ServerRecord, ...] = ()
    index: int = 0


_decode_kept = msgspec.msgpack.Decoder(_Kept).decode


class ChangeNote(msgspec.Struct, frozen=True, array_like=True):
    """What travels with a change of membership: a token by which its proposer knows it again, and the records that it
    puts in place.
    """

    token: int = 0
    records: tuple[ServerRecord, ...] = ()


encode_note = _encode
decode_note = msgspec.msgpack.Decoder(ChangeNote).decode


def cluster_of(founders: Iterable[ServerRecord]) -> str:
    """What names a cluster, from the servers that formed it: they are chosen at random, and form one only."""
    numbers = ",".join(str(number) for number in sorted(record.number for record in founders))
    return blake2b(numbers.encode(), digest_size=16).hexdigest()


class Roster:
    """Records by number, and the name of the cluster. `index` is that of the log's latest change of the configuration;
    `changes` counts those of records.
    """

    def __init__(self, records: Iterable[ServerRecord] = (), cluster: str = "", index: int = 0) -> None:
        self.records: dict[int, ServerRecord] = {record.number: record for record in records}
        self.cluster = cluster
        self.index = index
        self.changes = 0

    @classmethod
    def decode(cls, data: bytes) -> "Roster":
        """From `encode`. Raises `ValueError`."""
        kept = _decode_kept(data) if data else _Kept()
        return cls(kept.records, kept.cluster, kept.index)

    def encode(self) -> bytes:
        """As bytes; equal rosters give equal bytes."""
        return _encode(_Kept(self.cluster, tuple(self.records[number] for number in sorted(self.records)), self.index))

    def put(self, records: Iterable[ServerRecord]) -> None:
        """Add or replace records."""
        for record in records:
            self.records[record.number] = record
            self.changes += 1

    def keep(self, members: frozenset[int]) -> None:
        """Forget those that are no members."""
        self.records = {number: record for number, record in self.records.items() if number in members}
        self.changes += 1

    def by_id(self, node_id: str) -> ServerRecord | None:
        """The record of a node id."""
        return next((record for record in self.records.values() if record.id == node_id), None)

    def rivals(self, record: ServerRecord) -> list[ServerRecord]:
        """Others that have a record's node id or address: what it replaces."""
        return [
            other
            for other in self.records.values()
            if other.number != record.number and (other.id == record.id or other.address == record.address)
        ]
