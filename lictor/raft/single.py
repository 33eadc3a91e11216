"""Consensus of one, in memory: every entry is committed as soon as it is proposed. For `-dev`.

It is also the simplest thing that keeps the promises of `Consensus`, for tests of what stands on it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lictor.model.errors import NoLeader, NotLeader, Refused
from lictor.raft.consensus import Machine, Peer, Progress, ServerChange, ServerRecord

ALWAYS = float("inf")


class SingleVoter:
    """A `Consensus` whose only voter is this server."""

    def __init__(self, machine: Machine, record: Callable[[], ServerRecord]) -> None:
        self._machine = machine
        self._record = record
        self._started = False
        self._told: list[Callable[[bool], None]] = []
        self.last_index = 0

    @property
    def is_leader(self) -> bool:
        """True from start to close."""
        return self._started

    @property
    def leader(self) -> str:
        """This server's address."""
        return self._record().address if self._started else ""

    @property
    def leader_id(self) -> str:
        """This server's node id."""
        return self._record().id if self._started else ""

    @property
    def last_contact(self) -> float:
        """Never away from itself."""
        return 0.0

    @property
    def fresh_until(self) -> float:
        """Always the newest state there is."""
        return ALWAYS if self._started else 0.0

    @property
    def number(self) -> int:
        """The only server needs no other name."""
        return 1

    @property
    def blank(self) -> bool:
        """It forms its cluster by starting."""
        return False

    @property
    def cluster(self) -> str:
        """It has no name to others."""
        return ""

    @property
    def term(self) -> int:
        """There is only one term."""
        return 1

    @property
    def applied(self) -> int:
        """The number of entries."""
        return self.last_index

    @property
    def last_entry(self) -> tuple[int, int]:
        """All entries are of one term."""
        return self.last_index, 1

    def on_leadership(self, told: Callable[[bool], None]) -> None:
        """Told at start and at close."""
        self._told.append(told)

    def on_peers(self, told: Callable[[], None]) -> None:
        """There will be no others."""

    async def start(self) -> None:
        """Begin to accept entries."""
        self._started = True
        for told in self._told:
            told(True)

    async def form(self, servers: Sequence[ServerRecord]) -> None:
        """It has its cluster already."""
        raise Refused("this server has a cluster already: itself")

    async def propose(self, proposal: bytes, timeout: float) -> Any:
        """Apply a proposal. Returns what the machine returned."""
        if not self._started:
            raise NoLeader
        self.last_index += 1
        return self._machine.apply((proposal,))[0]

    async def propose_leading(self, proposal: bytes) -> Any:
        """The same: there will be no other leader."""
        if not self._started:
            raise NotLeader
        return await self.propose(proposal, 0.0)

    async def confirm(self, *, quorum: bool, timeout: float) -> None:
        """A single voter always leads itself."""
        if not self._started:
            raise NoLeader

    def peers(self) -> list[Peer]:
        """This server."""
        me = self._record()
        return [Peer(me.id, me.node, me.address, leader=self._started, voter=True)]

    def locate(self, number: int, address: str) -> None:
        """There are no others."""

    def progress(self) -> dict[str, Progress]:
        """There are no others."""
        return {}

    async def change(self, kind: ServerChange, server: ServerRecord, timeout: float) -> None:
        """Refused: others could not be given what is only in memory here."""
        if kind is ServerChange.REMOVE and server.id == self._record().id:
            raise Refused("need at least one voter in configuration")
        raise Refused("a server in memory (-dev) is alone: start servers with a data_dir to have several")

    async def transfer(self, to: str, timeout: float) -> None:
        """Refused: there is nobody else."""
        raise Refused("cannot find peer")

    def stats(self) -> dict[str, str]:
        """What `agent/self` shows under `raft`."""
        me = self._record()
        return {
            "applied_index": str(self.last_index),
            "commit_index": str(self.last_index),
            "fsm_pending": "0",
            "last_contact": "0",
            "last_log_index": str(self.last_index),
            "last_log_term": "1",
            "last_snapshot_index": "0",
            "last_snapshot_term": "0",
            "latest_configuration": f"[{{Suffrage:Voter ID:{me.id} Address:{me.address}}}]",
            "latest_configuration_index": "1",
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
        """Stop."""
        if self._started:
            self._started = False
            for told in self._told:
                told(False)
