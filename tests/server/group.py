"""Servers that agree without a consensus: whoever a test makes the leader writes into the stores of all at once.

Everything else is real: stores, duties, calls over a wire. It runs on virtual time.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lictor.model.errors import NoLeader, NotLeader, Refused
from lictor.model.transport import Caller
from lictor.raft.consensus import Machine, Peer, Progress, ServerChange, ServerRecord
from lictor.server import hello
from lictor.server.autopilot_config import AutopilotConfig
from lictor.server.connect_ca_settings import NO_MESH, CASettings
from lictor.server.datacenters import Datacenters
from lictor.server.datacenters import Place as Known
from lictor.server.hello import Hello
from lictor.server.leadership import Leadership
from lictor.server.server import Server
from lictor.store.store import Store
from tests.raft.wire import Wire

FIRST = AutopilotConfig(
    cleanup_dead_servers=True,
    last_contact_threshold="200ms",
    max_trailing_logs=250,
    server_stabilization_time="10s",
)


class Agreed:
    """A `Consensus`."""

    def __init__(self, group: "Group", record: ServerRecord, machine: Machine) -> None:
        self.group = group
        self.record = record
        self.machine = machine
        self.number = record.number
        self.blank = False
        self.last_contact = 0.0
        self.fresh_until = 0.0
        self.leading: list[Callable[[bool], None]] = []
        self.peers_told: list[Callable[[], None]] = []

    @property
    def is_leader(self) -> bool:
        return self.group.leader == self.record.id

    @property
    def leader(self) -> str:
        return self.group.records[self.group.leader].address if self.group.leader else ""

    @property
    def leader_id(self) -> str:
        return self.group.leader

    @property
    def cluster(self) -> str:
        return "cluster"

    @property
    def term(self) -> int:
        return self.group.term

    @property
    def applied(self) -> int:
        return self.group.index

    @property
    def last_entry(self) -> tuple[int, int]:
        return self.group.index, self.group.term

    def on_leadership(self, told: Callable[[bool], None]) -> None:
        self.leading.append(told)

    def on_peers(self, told: Callable[[], None]) -> None:
        self.peers_told.append(told)

    async def start(self) -> None:
        pass

    async def form(self, servers: Sequence[ServerRecord]) -> None:
        raise Refused("there is a cluster")

    async def propose(self, proposal: bytes, timeout: float) -> Any:
        if not self.group.leader:
            await asyncio.sleep(timeout)
            raise NoLeader
        return self.group.write(proposal)[self.record.id]

    async def propose_leading(self, proposal: bytes) -> Any:
        if not self.is_leader:
            raise NotLeader
        await asyncio.sleep(0.001)
        if not self.is_leader:
            raise NotLeader
        return self.group.write(proposal)[self.record.id]

    async def confirm(self, *, quorum: bool, timeout: float) -> None:
        if not self.group.leader:
            raise NoLeader

    def peers(self) -> list[Peer]:
        found = [
            Peer(r.id, r.node, r.address, r.id == self.group.leader, r.id in self.group.voters, number=r.number)
            for r in self.group.records.values()
        ]
        return sorted(found, key=lambda peer: peer.node)

    def locate(self, number: int, address: str) -> None:
        pass

    def progress(self) -> dict[str, Progress]:
        return {}

    async def change(self, kind: ServerChange, server: ServerRecord, timeout: float) -> None:
        if not self.is_leader:
            raise NotLeader
        self.group.change(kind, server)

    async def transfer(self, to: str, timeout: float) -> None:
        if to not in self.group.voters or to == self.record.id:
            raise Refused("cannot find peer")
        self.group.changes.append(("transfer", to))
        self.group.lead(to)

    def stats(self) -> dict[str, str]:
        return {"last_log_index": str(self.group.index), "last_log_term": str(self.group.term)}

    async def close(self) -> None:
        pass


class Place:
    """One server: what it says of itself can be set."""

    def __init__(self, group: "Group", name: str, number: int, said: dict[str, Any]) -> None:
        self.group = group
        self.record = ServerRecord(f"id-{name}", name, f"10.0.{group.network}.{number}:8300", number)
        self.said = said
        self.store = Store()
        self.transport = group.wire.end(self.record.address)
        self.consensus: Agreed

        def agreement(machine: Machine) -> Agreed:
            self.consensus = Agreed(group, self.record, machine)
            return self.consensus

        self.server: Server = Server(self.store, agreement, clock=lambda: asyncio.get_running_loop().time())
        self.members_told = 0
        self.leadership: Leadership = Leadership(
            self.server,
            self.transport,
            self.hello,
            members_changed=self._told,
            first_autopilot=FIRST,
            authority=group.authority,
            datacenter=group.datacenter,
            datacenters=self._between() if group.joined is not None else None,
            primary=group.primary,
        )
        self.transport.on_call(hello.METHOD, self._answer)

    def _between(self) -> Datacenters:
        """Its way to other datacenters: all servers are known everywhere, and reached over the one wire."""
        group, chance = self.group, random.Random(self.record.number)
        joined = group.joined
        assert joined is not None

        def servers() -> list[Known]:
            return [
                Known(one.datacenter, record.id, record.address) for one in joined for record in one.records.values()
            ]

        found = Datacenters(group.datacenter, self.record.id, servers, lambda datacenter: self.transport, chance)
        found.serve(self.transport)
        return found

    def _told(self) -> None:
        self.members_told += 1

    def hello(self) -> Hello:
        consensus = self.consensus
        own = Hello(
            self.record.id,
            self.record.node,
            self.record.address,
            self.group.datacenter,
            self.record.number,
            blank=False,
            is_leader=consensus.is_leader,
            term=self.group.term,
            last_index=self.group.index,
            last_term=self.group.term,
            version="1.20.0",
        )
        return msgspec.structs.replace(own, **self.said)

    async def _answer(self, caller: Caller, body: bytes) -> bytes:
        return hello.encode_hello(self.hello())

    def kill(self) -> None:
        """Nothing reaches it any more."""
        self.group.wire.isolate(self.record.address)

    def revive(self) -> None:
        """It is there again."""
        self.group.wire.cut = {pair for pair in self.group.wire.cut if self.record.address not in pair}


class Group:
    """Servers `a`, `b`, ... on one wire; the first ones vote. `authority` is what the mesh's begins with. Groups that
    are `joined` are datacenters which know of each other; they are on the first one's wire.
    """

    def __init__(
        self,
        *names: str,
        authority: CASettings = NO_MESH,
        datacenter: str = "dc1",
        primary: str = "",
        joined: "list[Group] | None" = None,
    ) -> None:
        self.authority = authority
        self.datacenter = datacenter
        self.primary = primary
        self.joined = joined
        self.network: int = len(joined) if joined else 0
        self.wire: Wire = joined[0].wire if joined else Wire()
        if joined is not None:
            joined.append(self)
        self.leader: str = ""
        self.term = 1
        self.index: int = 1
        self.records: dict[str, ServerRecord] = {}
        self.voters: set[str] = set()
        self.changes: list[tuple[str, str]] = []
        self.places: dict[str, Place] = {}
        for name in names:
            self.add(name, voter=True)

    def add(self, name: str, *, voter: bool, **said: Any) -> Place:
        """A further server, started."""
        place = self.places[name] = Place(self, name, len(self.places) + 1, said)
        self.records[place.record.id] = place.record
        if voter:
            self.voters.add(place.record.id)
        self._tell()
        return place

    def start(self) -> None:
        """All begin to watch each other."""
        for place in self.places.values():
            place.leadership.start()

    async def close(self) -> None:
        """All stop."""
        for place in self.places.values():
            await place.leadership.close()

    def lead(self, server_id: str) -> None:
        """Another leads, or with an empty id nobody."""
        old, self.leader = self.leader, server_id
        self.term += 1
        self.index += 1
        for place in self.places.values():
            if place.record.id in (old, server_id) and old != server_id:
                for told in place.consensus.leading:
                    told(place.record.id == server_id)
        self._tell()

    def write(self, proposal: bytes) -> dict[str, Any]:
        """Apply a proposal everywhere. Returns each machine's result."""
        self.index += 1
        return {p.record.id: p.consensus.machine.apply((proposal,))[0] for p in self.places.values()}

    def change(self, kind: ServerChange, server: ServerRecord) -> None:
        """Change the configuration."""
        if kind is ServerChange.REMOVE:
            if self.voters == {server.id}:
                raise Refused("need at least one voter in configuration")
            del self.records[server.id]
            self.voters.discard(server.id)
        elif kind is ServerChange.PROMOTE:
            self.voters.add(server.id)
        elif kind is ServerChange.DEMOTE:
            self.voters.discard(server.id)
        else:
            raise Refused(f"not in this test: {kind}")
        self.changes.append((kind.value, server.id))
        self.index += 1
        self._tell()

    def _tell(self) -> None:
        for place in self.places.values():
            for told in place.consensus.peers_told:
                told()


async def until(condition: Callable[[], bool], what: str, patience: float = 120.0) -> float:
    """Wait for a condition. Returns after how many seconds it held."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not condition():
        assert loop.time() - began < patience, f"waited {patience:g} s for {what}"
        await asyncio.sleep(0.05)
    return loop.time() - began
