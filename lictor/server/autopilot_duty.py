"""A duty of the leader: looks at all servers every two seconds, and carries out what autopilot decides."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import msgspec

from lictor.model.errors import LictorError, NoLeader, NotLeader
from lictor.model.member import ALIVE
from lictor.model.transport import Transport, Unreachable
from lictor.raft.consensus import ServerChange, ServerRecord
from lictor.server import hello as hellos
from lictor.server.autopilot import Plan, plan
from lictor.server.autopilot_config import SETTING, rules
from lictor.server.autopilot_state import NEVER, Seen, State, judge
from lictor.server.hello import Hello
from lictor.server.members import Members
from lictor.server.reconcile import Listed, listed
from lictor.server.server import Server
from lictor.store.watch import Dependent

INTERVAL = 2.0  # seconds between two rounds
ANSWER_TIMEOUT = 1.0  # seconds

log = logging.getLogger("lictor.server.autopilot")


class _RulesChanged(Dependent):
    __slots__ = ("wake",)

    def __init__(self, wake: asyncio.Event) -> None:
        self.wake = wake
        self.seen = ()

    def changed(self) -> None:
        self.wake.set()


class Autopilot:
    """The duty, and the state after its last round. `transport` is None for a server that is always alone; `heartbeat`
    is for how many seconds a leader that has nothing to say may be silent.
    """

    def __init__(self, server: Server, members: Members, transport: Transport | None, heartbeat: float) -> None:
        self._server = server
        self._members = members
        self._transport = transport
        self._heartbeat = heartbeat
        self._looked = asyncio.Event()
        self.latest: State | None = None

    async def state(self) -> State:
        """The state after the last round, on the leader: after the first, where there was none yet."""
        while self.latest is None:
            await self._looked.wait()
        return self.latest

    async def run(self) -> None:
        """Look and act, over and over."""
        loop, watches = asyncio.get_running_loop(), self._server.store.watches
        wake = asyncio.Event()
        changed = _RulesChanged(wake)
        try:
            while True:
                began = loop.time()
                wake.clear()
                watches.discard(changed)
                watches.add(changed, (("setting", SETTING),))
                await self._round()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(began + INTERVAL):
                        await wake.wait()
        finally:
            watches.discard(changed)
            self.latest = None
            self._looked.clear()

    async def _round(self) -> None:
        loop, current = asyncio.get_running_loop(), rules(self._server.store)
        # Until the next heartbeat is due, silence says nothing.
        current = msgspec.structs.replace(current, contact=current.contact + self._heartbeat)
        seen = await self._look()
        before = self.latest
        self.latest = state = judge(before, seen, current, loop.time(), self._server.clock())
        self._looked.set()
        healthy = {server.seen.id: server.healthy for server in before.servers} if before is not None else {}
        for server in state.servers:
            if healthy.get(server.seen.id) not in (None, server.healthy):
                word = "healthy" if server.healthy else "unhealthy"
                log.info("a server has become %s: server=%s address=%s", word, server.seen.node, server.seen.address)
        await self._carry_out(plan(state), state)

    async def _look(self) -> list[Seen]:
        """All servers of the configuration, the others as they answer now."""
        servers = listed(self._server.consensus.peers(), self._members)
        answers = await asyncio.gather(*(self._ask(server) for server in servers))
        return [_seen(server, answer) for server, answer in zip(servers, answers, strict=True)]

    async def _ask(self, server: Listed) -> Hello | None:
        """What a server says of itself now; None where it does not answer."""
        if server.peer.id == self._members.own_id or self._transport is None:
            return server.hello
        try:
            body = await self._transport.call(server.peer.address, hellos.METHOD, b"", ANSWER_TIMEOUT)
            answer = hellos.decode_hello(body)
        except (Unreachable, LictorError, msgspec.DecodeError):
            return None
        return answer if answer.id == server.peer.id else None

    async def _carry_out(self, decided: Plan, state: State) -> None:
        """Make the changes, one after the other. Raises `NotLeader`."""
        for kind, wanted in (
            (ServerChange.REMOVE, decided.remove),
            (ServerChange.PROMOTE, decided.promote),
            (ServerChange.DEMOTE, decided.demote),
        ):
            for server in state.servers:
                seen = server.seen
                if seen.id in wanted:
                    log.info("%s: server=%s address=%s reason=%s", kind.value, seen.node, seen.address, decided.reason)
                    record = ServerRecord(seen.id, seen.node, seen.address)
                    with _logged(kind.value):
                        await self._server.consensus.change(kind, record, self._server.hold)
        if decided.transfer:
            log.info("transfer leadership: to=%s reason=%s", decided.transfer, decided.reason)
            with _logged("transfer leadership"):
                await self._server.consensus.transfer(decided.transfer, self._server.hold)


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """A refused change is logged: the next round decides anew."""
    try:
        yield
    except (NoLeader, NotLeader):
        raise
    except LictorError as error:
        log.warning("%s failed: %s", what, error)


def _seen(server: Listed, answer: Hello | None) -> Seen:
    peer, said = server.peer, answer or server.hello
    seen = Seen(peer.id, peer.node, peer.address, peer.voter, peer.leader, server.status)
    if said is None:
        return seen
    return msgspec.structs.replace(
        seen,
        status=server.status if answer is None else ALIVE,
        version=said.version,
        build=said.build,
        contact=NEVER if answer is None else answer.last_contact,
        last_term=said.last_term,
        last_index=said.last_index,
        read_replica=said.read_replica,
        meta=said.meta,
    )
