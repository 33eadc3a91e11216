"""What is committed, on its way into the machine: a slice in each turn of the loop, each proposal once.

What the machine returned for this server's own proposals goes to those who made them.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator

from lictor.raft import envelope, opening
from lictor.raft.applied import AppliedIndex
from lictor.raft.consensus import Machine
from lictor.raft.core.message import Entry, EntryKind, Message, Snapshot
from lictor.raft.once import AppliedNumbers, Proposal
from lictor.raft.wal import SnapshotStore

SLICE_PROPOSALS = 512  # applied in one turn of the loop
SLICE_BYTES = 512 * 1024

log = logging.getLogger("lictor.server.raft")


class Applying:
    """The machine and how far it is. `applied` is told of each proposal, `result` of each fresh one; `change` applies a
    change of the configuration; `step` gives the core what is due once its work is done; `again` asks for another turn.
    """

    def __init__(
        self,
        machine: Machine,
        index: AppliedIndex,
        applied: Callable[[Proposal], None],
        result: Callable[[Proposal, object], None],
        change: Callable[[Entry], None],
        step: Callable[[Message], None],
        again: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._index = index
        self._applied = applied
        self._result = result
        self._change = change
        self._step = step
        self._again = again
        self._once = AppliedNumbers()
        self._work: deque[tuple[Message, int]] = deque()  # and the place in it that is next
        self.loading = False

    def __len__(self) -> int:
        return len(self._work)

    def add(self, work: Message) -> None:
        """Entries to be applied, from the core."""
        self._work.append((work, 0))

    def work(self) -> None:
        """Apply a slice; the rest in later turns."""
        proposals = size = 0
        while self._work and not self.loading:
            work, place = self._work[0]
            for entry in work.entries[place:]:
                if proposals >= SLICE_PROPOSALS or size >= SLICE_BYTES:
                    self._work[0] = (work, place)
                    self._again()
                    return
                place += 1
                if entry.index > self._index.index:
                    proposals += 1 + self.apply(entry)
                    size += len(entry.data)
                    self._index.reach(entry.index)
            self._work.popleft()
            for response in work.responses:
                self._step(response)

    def apply(self, entry: Entry) -> int:
        """Apply one entry. Returns how many proposals it held."""
        if entry.kind is not EntryKind.NORMAL:
            self._change(entry)
            return 0
        if not entry.data:
            return 0
        try:
            proposals = envelope.decode_entry(entry.data)
        except envelope.UNREADABLE as error:  # no server writes such a one; it must mean the same to all, and end none
            log.error("entry %d cannot be read and changes nothing: %s", entry.index, error)
            return 0
        fresh = [proposal for proposal in proposals if self._once.take(proposal)]
        results = self._machine.apply([proposal.body for proposal in fresh]) if fresh else []
        for proposal, result in zip(fresh, results, strict=True):
            self._result(proposal, result)
        for proposal in proposals:
            self._applied(proposal)
        return len(proposals)

    def has(self, origin: int, number: int) -> bool:
        """Whether a proposal was applied, or is not waited for any more."""
        return self._once.has(origin, number)

    # -- the whole state ----------------------------------------------------------------------------------------------

    def state(self) -> Iterator[bytes]:
        """The state as it is now: the applied numbers, then the machine's. To be run through in a thread."""
        numbers, image = self._once.encode(), self._machine.image()
        return opening.pack_state(numbers, image.encode())

    async def load(self, snapshot: Snapshot, store: SnapshotStore) -> None:
        """Become the state of a snapshot."""
        self.loading = True
        try:
            numbers, pieces = opening.unpack_state(store.read(snapshot))
            self._once.load(numbers)
            await self._machine.load(pieces)
            self._index.reach(snapshot.index)
        finally:
            self.loading = False
