"""Messages that no server sent: whatever comes, no server ends or holds what makes no sense.

Beside real messages, each schedule delivers forged and mangled ones, also in the name of members. What is true of
consensus cannot hold then; what must hold is that each server's own log and marks make sense, and that it goes on.
"""

import random
from collections.abc import Callable, Iterable

import msgspec
import pytest

from lictor.raft.core.config import Config
from lictor.raft.core.log import Log
from lictor.raft.core.membership import ChangeRefused, Membership, decode_change, decode_single_change
from lictor.raft.core.message import NO_LIMIT, Entry, EntryKind, Message, MessageKind, Snapshot
from lictor.raft.core.node import MessageRefused, Node, ProposalDropped, StrangerAnswered
from lictor.raft.core.quorum import Quorum
from lictor.raft.core.storage import MemoryStorage
from lictor.raft.envelope import PEER_KINDS
from tests.raft.cluster import STEPS, Cluster
from tests.raft.simulated_server import Observer, Server

FORGED = sorted(PEER_KINDS | {MessageKind.SNAPSHOT})
ABSURD = (1 << 62) - 1


class Blind(Observer):
    """Sees nothing: nothing is agreed on among servers that were lied to."""

    def leads(self, node: int, term: int, storage_term: Callable[[int], int | None]) -> None: ...
    def lasts_to(self, node: int, term: int, last: int) -> None: ...
    def has(self, node: int, entry: Entry, before: int) -> None: ...
    def reached(self, node: int, index: int, state: bytes) -> None: ...
    def commits(self, node: int, entry: Entry) -> None:
        self.commit = max(self.commit, entry.index)


class Deceived(Server):
    """A server that may be told to make changes which cannot be made."""

    def apply(self, entries: Iterable[Entry]) -> None:
        assert self.node is not None
        for entry in entries:
            if entry.index <= self.applied:
                continue
            assert entry.index == self.applied + 1, "entries are applied in order"
            self.applied = entry.index
            if entry.kind is not EntryKind.NORMAL:
                single = entry.kind is EntryKind.CHANGE_V1
                try:
                    change = decode_single_change(entry.data) if single else decode_change(entry.data)
                    self.node.apply_change(entry.index, change)
                except (ChangeRefused, ValueError):
                    pass


class Forged(Cluster):
    """A cluster to which anybody sends."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.dice = random.Random(seed)
        self.observer = Blind()
        self.seen: list[Message] = []
        self.refused = self.believed = 0
        started, self.servers = list(self.servers), {}
        for node in started:
            self._add(node, bootstrapped=True)

    def _add(self, node: int, *, bootstrapped: bool) -> None:
        if not hasattr(self, "dice"):
            super()._add(node, bootstrapped=bootstrapped)
            return
        disk = MemoryStorage()
        if bootstrapped:
            disk.restore(self._start)
        config = Config(**{name: getattr(self._base, name) for name in Config.__struct_fields__} | {"id": node})
        self.servers[node] = Deceived(config, disk, self.observer, self.chance)
        self.servers[node].start()

    def play(self, steps: int) -> None:
        """Random steps, among them forged messages."""
        names = [name for name, _, _ in STEPS]
        weights = [weight for _, weight, _ in STEPS]
        for name in self.chance.choices(names, weights, k=steps):
            getattr(self, f"_{name}")()
            if self.dice.random() < 0.2:
                self._forge()

    def hand_over(self, message: Message) -> None:
        """Deliver one message, which may be refused."""
        if message.kind in FORGED:
            self.seen.append(message)
            del self.seen[:-200]
        try:
            super().hand_over(message)
        except MessageRefused:
            pass

    def _forge(self) -> None:
        server = self.dice.choice(list(self.servers.values()))
        node = server.node
        if node is None:
            return
        message = self._forged(node, server.config.id)
        before = (node.term, node.last_index, node.committed, node.leader)
        try:
            node.step(message)
        except (MessageRefused, StrangerAnswered):
            self.refused += 1
            assert before == (node.term, node.last_index, node.committed, node.leader), "what is refused does nothing"
        except ProposalDropped:
            pass
        else:
            self.believed += 1
        make_sense(node)

    def _forged(self, node: Node, to: int) -> Message:
        dice = self.dice
        if self.seen and dice.random() < 0.5:
            message = msgspec.structs.replace(dice.choice(self.seen), to=to)
        else:
            message = Message(dice.choice(FORGED), to, dice.randint(1, 7), node.term)
        for _ in range(dice.choice((0, 1, 1, 2, 4))):
            message = self._mangled(message, node)
        return message

    def _mangled(self, message: Message, node: Node) -> Message:
        dice = self.dice
        near = (0, 1, node.term, node.committed, node.last_index)
        number = dice.choice((*near, dice.choice(near) + dice.randint(-2, 3), ABSURD, dice.randrange(ABSURD)))
        number = max(0, number)
        field = dice.choice(("term", "log_term", "index", "commit", "hint", "sender", "entries", "context", "snapshot"))
        if field == "sender":
            return msgspec.structs.replace(message, sender=dice.choice((*self.servers, *self.servers, 9, 99)))
        if field == "context":
            context = dice.choice((b"", b"transfer", dice.randbytes(16), number.to_bytes(8, "little") + bytes(8)))
            return msgspec.structs.replace(message, context=context, reject=dice.random() < 0.7)
        if field == "entries":
            start, term = message.index + 1, dice.choice((message.log_term, message.term))
            entries = [
                Entry(term, start + place, dice.choice((*EntryKind, EntryKind.NORMAL)), dice.randbytes(3))
                for place in range(dice.randrange(5))
            ]
            if entries and dice.random() < 0.5:
                place = dice.randrange(len(entries))
                entries[place] = msgspec.structs.replace(entries[place], **{dice.choice(("index", "term")): number})
            return msgspec.structs.replace(message, entries=tuple(entries))
        if field == "snapshot":
            members = Membership(Quorum(frozenset(dice.sample(range(8), dice.randrange(4)))))
            index, term = dice.choice((number, node.last_index + 3)), dice.choice((number, node.term))
            return msgspec.structs.replace(message, snapshot=Snapshot(index, term, members, b"forged"))
        return msgspec.structs.replace(message, **{field: number})


def make_sense(node: Node) -> None:
    """See that a log has no gap, that its terms never decrease, and that its marks are in order."""
    log: Log = node._raft.log
    last = log.last_index()
    assert log.applied <= log.applying <= log.committed <= last
    before, term = log.first_index() - 1, log.term(log.first_index() - 1)
    assert term is not None
    for entry in log.entries(before + 1, NO_LIMIT) or ():
        assert entry.index == before + 1, "the log has no gap"
        assert term <= entry.term, "terms never decrease"
        before, term = entry.index, entry.term
    assert before == last
    assert term <= node.term or not log.unstable.entries


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_forged_messages_end_nobody(first: int) -> None:
    refused = believed = 0
    for seed in range(first, first + 50):
        cluster = Forged(seed)
        try:
            cluster.play(800)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        refused += cluster.refused
        believed += cluster.believed
    assert refused > 1000, "hardly anything was refused: the forgeries test nothing"
    assert believed > 1000, "hardly anything was believed: the forgeries test nothing"
