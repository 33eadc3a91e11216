"""What a server asks of consensus, and what consensus asks of the server's state machine.

`Replica` (in `replica`) is the one with a disk and peers; `SingleVoter` (in `single`) keeps everything in memory, for
`-dev`.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, Protocol

import msgspec


class Image(Protocol):
    """A state at one moment, whose encoding may take its time."""

    def encode(self) -> Iterator[bytes]:
        """The state's bytes, a piece at a time. Runs in a thread."""
        ...


class Machine(Protocol):
    """The replicated state machine. All but `Image.encode` runs on the loop."""

    def apply(self, proposals: Sequence[bytes]) -> list[Any]:
        """Apply what one entry of the log holds, in order. What it returns, one result a proposal, goes to whoever
        proposed it, where that is this server. Must not raise.
        """
        ...

    def image(self) -> Image:
        """The state as it is now, cheaply."""
        ...

    def check(self, pieces: Iterator[bytes]) -> None:
        """See that pieces, cut anywhere, are a state that `load` would take, and keep nothing. Runs in a thread. Raises
        `LictorError` for what is none.
        """
        ...

    async def load(self, pieces: Iterator[bytes]) -> None:
        """Become the state of a snapshot, whose pieces are as `Image.encode` gave them, cut anywhere. Nothing is read
        from the machine's store meanwhile; it should let the loop turn now and then. Reading a piece may take time.
        """
        ...


class ServerRecord(msgspec.Struct, frozen=True, array_like=True):
    """A server as the configuration names it. `id` is the node id, `address` host:port of its server connections.

    `number` names the server to the consensus: made at random with its raft folder, so that a server which lost its
    folder is another one. 0 where only the id counts.
    """

    id: str
    node: str
    address: str
    number: int = 0


class Peer(msgspec.Struct, frozen=True):
    """A server of the configuration, as it is shown."""

    id: str
    node: str
    address: str
    leader: bool
    voter: bool
    protocol_version: str = "3"
    number: int = 0


class Progress(msgspec.Struct, frozen=True):
    """How far a server is, as the leader knows it. `contact` is the seconds since it last answered, None for never."""

    match: int
    contact: float | None


class ServerChange(Enum):
    """What can be changed about a server."""

    ADD_VOTER = "add voter"
    ADD_LEARNER = "add learner"
    PROMOTE = "promote"
    DEMOTE = "demote"
    REMOVE = "remove"
    MOVE = "move"  # another address or node name


class Consensus(Protocol):
    """Agreement on a log of entries."""

    @property
    def is_leader(self) -> bool:
        """Whether this server leads, and has applied all that was committed before it did."""
        ...

    @property
    def leader(self) -> str:
        """The leader's address, host:port, or empty."""
        ...

    @property
    def leader_id(self) -> str:
        """The leader's node id, or empty."""
        ...

    @property
    def last_contact(self) -> float:
        """Seconds since the leader was last heard of: 0 on the leader itself, infinite for never."""
        ...

    @property
    def fresh_until(self) -> float:
        """The time, of `lictor.model.clock.lease_clock`, until which this server's own state is the newest there is, so
        that a read of it is linearizable: the leader's lease. 0.0 for anybody else.
        """
        ...

    @property
    def number(self) -> int:
        """What names this server to the others, see `ServerRecord`."""
        ...

    @property
    def blank(self) -> bool:
        """Whether this server belongs to no cluster yet: nothing was ever agreed on here."""
        ...

    @property
    def cluster(self) -> str:
        """What names the cluster among all others, the same on all of its servers for good; empty before this server
        knows.
        """
        ...

    @property
    def term(self) -> int:
        """The present term."""
        ...

    @property
    def applied(self) -> int:
        """The index of the last entry that the machine holds."""
        ...

    @property
    def last_entry(self) -> tuple[int, int]:
        """Index and term of the log's last entry; zeros where there is none."""
        ...

    def on_leadership(self, told: Callable[[bool], None]) -> None:
        """Have gaining (once all former entries are applied) and losing the leadership told. Called on the loop."""
        ...

    def on_peers(self, told: Callable[[], None]) -> None:
        """Have changes of `peers`, and of who leads, told."""
        ...

    async def start(self) -> None:
        """Load what is on disk, and begin. Raises `DamagedLog`."""
        ...

    async def form(self, servers: Sequence[ServerRecord]) -> None:
        """Begin a new cluster, on each of its servers with the same list. Raises `Refused` where this server is not
        blank, or not among them.
        """
        ...

    async def propose(self, proposal: bytes, timeout: float) -> Any:
        """Have a proposal applied once. Returns what this server's machine returned for it. Followers pass it on to
        the leader, again if need be. Raises `NoLeader` where nobody took it within the time.
        """
        ...

    async def propose_leading(self, proposal: bytes) -> Any:
        """As the leader, have a proposal applied once, in this leadership: it comes before anything that a later leader
        proposes, or is not applied at all. Returns what this server's machine returned for it. Raises `NotLeader` on
        anybody else, and where the leadership ends first: whether it was applied is then not known.
        """
        ...

    async def confirm(self, *, quorum: bool, timeout: float) -> None:
        """Return once this server's state holds everything that was acknowledged to anybody before the call.

        With `quorum`, a majority confirms the leader; without, its lease is enough. Raises `NoLeader`.
        """
        ...

    def peers(self) -> list[Peer]:
        """The configuration's servers."""
        ...

    def locate(self, number: int, address: str) -> None:
        """A server of the configuration was met at an address, which need not be the one that it has there."""
        ...

    def progress(self) -> dict[str, Progress]:
        """On the leader, each other server by its node id; empty elsewhere."""
        ...

    async def change(self, kind: ServerChange, server: ServerRecord, timeout: float) -> None:
        """Change the configuration; only on the leader. Returns when it is committed and applied here.

        For REMOVE, PROMOTE and DEMOTE only the id counts. Raises `NotLeader`, `NoLeader`, and `Refused` for what
        makes no sense.
        """
        ...

    async def transfer(self, to: str, timeout: float) -> None:
        """Hand the leadership to the voter with a node id, or to the one that is furthest. Returns when this server
        leads no more. Raises `NotLeader`, `Refused`.
        """
        ...

    def stats(self) -> dict[str, str]:
        """What `agent/self` shows under `raft`."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, and stop."""
        ...
