"""The servers of the datacenter as one of them sees the others: alive, failed, or left. Pure: answers and silences in.

Each server asks the others at intervals. One that misses several questions in a row, over some time, has failed; one
that is in the configuration no more and answers no more has left, and is remembered for a while.
"""

from collections.abc import Callable, Iterable

import msgspec

from lictor.model.host_port import split_host_port
from lictor.model.member import ALIVE, FAILED, LEFT, Member
from lictor.raft.consensus import Peer
from lictor.server.hello import Hello

UNKNOWN = 0  # has not been asked often enough to say
MISSES = 3  # questions in a row without an answer: this server's own stall counts as one at most
SILENCE = 4.0  # seconds from the first question without an answer to the last, for one that has failed
LEFT_KEPT = 24 * 3600.0  # seconds


class Known(msgspec.Struct, frozen=True):
    """A server. `hello` is the last that it said of itself, None for nothing yet."""

    id: str
    node: str
    address: str
    status: int
    hello: Hello | None = None
    datacenter: str = ""

    @property
    def shown(self) -> tuple[object, ...]:
        """All that does not change by itself from one answer to the next."""
        hello = self.hello
        said = () if hello is None else (hello.number, hello.version, hello.build, hello.read_replica)
        return (self.id, self.node, self.address, self.status, said, hello is not None and hello.meta)


class _Tracked(msgspec.Struct):
    known: Known
    misses: int = 0
    silent_since: float = 0.0
    configured: bool = True
    left_at: float = 0.0


class Members:
    """All servers. `me` is what this one says of itself; `changed` is told when what is shown of any changes."""

    def __init__(self, me: Callable[[], Hello], changed: Callable[[], None]) -> None:
        self._me = me
        self._changed = changed
        self._others: dict[str, _Tracked] = {}
        self._own: tuple[str, str] | None = None  # node id and datacenter: a run's are the same for good

    @property
    def own_id(self) -> str:
        """This server's node id."""
        return self._lasting()[0]

    def _lasting(self) -> tuple[str, str]:
        if self._own is None:
            me = self._me()
            self._own = (me.id, me.datacenter)
        return self._own

    def follow(self, peers: Iterable[Peer], now: float) -> None:
        """Take over the servers of the configuration. `now` is in seconds of any steady clock."""
        (own, datacenter), before = self._lasting(), self._shown()
        configured = {peer.id: peer for peer in peers if peer.id != own}
        for peer in configured.values():
            known = Known(peer.id, peer.node, peer.address, UNKNOWN, datacenter=datacenter)
            tracked = self._others.get(peer.id)
            if tracked is None or tracked.known.status == LEFT:
                self._others[peer.id] = _Tracked(known)
            else:
                tracked.configured = True
                tracked.known = msgspec.structs.replace(tracked.known, node=peer.node, address=peer.address)
        for server_id, tracked in list(self._others.items()):
            if server_id in configured:
                continue
            tracked.configured = False
            if tracked.known.status == LEFT:
                if now - tracked.left_at >= LEFT_KEPT:
                    del self._others[server_id]
            elif tracked.known.status != ALIVE:
                self._leave(tracked, now)
        self._compare(before)

    def targets(self) -> list[Known]:
        """Whom to ask: everybody but this server and those that left."""
        return [tracked.known for tracked in self._others.values() if tracked.known.status != LEFT]

    def heard(self, server_id: str, hello: Hello, now: float) -> None:
        """A question to a server was answered, if by another one than is known at its address, then as a miss."""
        if hello.id != server_id:
            self.missed(server_id, now)
            return
        tracked = self._others.get(server_id)
        if tracked is not None and tracked.known.status != LEFT:
            before = self._shown()
            tracked.misses = 0
            tracked.known = msgspec.structs.replace(tracked.known, status=ALIVE, hello=hello)
            self._compare(before)

    def missed(self, server_id: str, now: float) -> None:
        """A question to a server was not answered in time."""
        tracked = self._others.get(server_id)
        if tracked is None or tracked.known.status == LEFT:
            return
        tracked.misses += 1
        if tracked.misses == 1:
            tracked.silent_since = now
        silent = tracked.misses >= MISSES and now - tracked.silent_since >= SILENCE
        if not silent or tracked.known.status == FAILED:
            return
        before = self._shown()
        if tracked.configured:
            tracked.known = msgspec.structs.replace(tracked.known, status=FAILED)
        else:
            self._leave(tracked, now)
        self._compare(before)

    def others(self) -> list[Known]:
        """Every server but this one."""
        return [tracked.known for tracked in self._others.values()]

    def servers(self) -> list[Known]:
        """Every server, this one included, in order of their names."""
        me = self._me()
        own = Known(me.id, me.node, me.address, ALIVE, me, me.datacenter)
        return sorted([own, *self.others()], key=lambda known: (known.node, known.id))

    def _leave(self, tracked: _Tracked, now: float) -> None:
        tracked.known = msgspec.structs.replace(tracked.known, status=LEFT)
        tracked.left_at = now

    def _shown(self) -> list[tuple[object, ...]]:
        return [tracked.known.shown for tracked in self._others.values()]

    def _compare(self, before: list[tuple[object, ...]]) -> None:
        if self._shown() != before:
            self._changed()


def as_member(known: Known) -> Member:
    """A server as `/v1/agent/members` shows it; what it has not said yet is left empty."""
    host, port = split_host_port(known.address, 0)
    hello = known.hello
    tags = {
        "acls": "0",
        "dc": hello.datacenter if hello is not None else known.datacenter,
        "ft_fs": "1",
        "ft_si": "1",
        "id": known.id,
        "port": str(port),
        "raft_vsn": str(hello.raft_protocol if hello is not None else 3),
        "role": "consul",
        "segment": "",
        "vsn": "2",
        "vsn_max": "3",
        "vsn_min": "2",
    }
    if hello is not None:
        tags["build"] = f"{hello.version}:lictor{hello.build}"
        if hello.read_replica:
            tags["read_replica"] = tags["nonvoter"] = "1"
    return Member(known.node, host, hello.serf_port if hello is not None else 0, tags, known.status)
