"""What a server asks of consensus, and what consensus asks of the server's state machine.

`SingleVoter` (in `single`) is the one implementation so far: a cluster of one server, whose majority is itself. The
replicated one takes its place behind the same interface.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec


class Image(Protocol):
    """A state at one moment, whose encoding may take its time."""

    def encode(self) -> Iterator[bytes]:
        """The state's bytes, a piece at a time."""
        ...


class Machine(Protocol):
    """The replicated state machine."""

    def apply(self, entry: bytes) -> Any:
        """Apply a committed entry, in log order; what it returns goes to the proposer, where it is this server."""
        ...

    def image(self) -> Image:
        """The state as it is now, cheaply."""
        ...

    def load(self, state: bytes) -> None:
        """Become the state of a snapshot."""
        ...


class Peer(msgspec.Struct, frozen=True):
    """A server of the configuration. `address` is host:port of its server connections."""

    id: str
    node: str
    address: str
    leader: bool
    voter: bool
    protocol_version: str = "3"


class Consensus(Protocol):
    """Agreement on a log of entries."""

    @property
    def is_leader(self) -> bool:
        """Whether this server may propose."""
        ...

    @property
    def leader(self) -> str:
        """The leader's address, host:port, or empty."""
        ...

    async def start(self) -> None:
        """Load what is on disk, and begin."""
        ...

    async def propose(self, entry: bytes) -> Any:
        """Commit an entry. Returns what the machine returned for it, after it is durable; raises `NoLeader`."""
        ...

    async def confirm_leadership(self) -> None:
        """Return once this server was the leader at some moment after the call; raises `NoLeader`."""
        ...

    def peers(self) -> list[Peer]:
        """The configuration's servers."""
        ...

    def stats(self) -> dict[str, str]:
        """What `agent/self` shows under `raft`."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, and stop."""
        ...
