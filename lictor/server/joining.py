"""Joining and leaving a cluster: the calls that a server makes for it, and the leader's answers.

`server.join` makes the leader add the caller as a learner, or take over its changed name or address; autopilot promotes
it later. `server.leave` makes the leader remove a server. Whoever does not lead answers who does.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from lictor.model.errors import LictorError, NoLeader, NotLeader, Refused
from lictor.model.host_port import split_host_port
from lictor.model.transport import UNREADABLE, Caller, Transport, Unreachable
from lictor.raft.consensus import Consensus, Peer, ServerChange, ServerRecord
from lictor.server import hello

JOIN = "server.join"
LEAVE = "server.leave"
PATIENCE = 10.0  # seconds that a change of the configuration may take
ALIVE = 3.0  # seconds without a word after which a server may be replaced by one that claims its node id or name
ANSWER = 3.0  # seconds in which another server says who it is
KEPT_OUT = 120.0  # seconds for which a server that was removed on purpose, and runs on, may not join again
COMPLAINT_PAUSE = 1.0  # seconds between two lines about servers that were refused
TEXT_MOST = 256  # characters of a server's node id, name or address
HOPS = 3  # servers that are asked for one request, each named by the one before

log = logging.getLogger("lictor.server.membership")


class JoinAsked(msgspec.Struct, frozen=True):
    """A server asks to be a member under its present name and address. `cluster` is the one that it belongs to, if any;
    `again` tells whether it was a member since it started.
    """

    record: ServerRecord
    datacenter: str
    cluster: str = ""
    again: bool = False


class LeaveAsked(msgspec.Struct, frozen=True):
    """A server, by its node id, is to be no member any more."""

    id: str


class Answer(msgspec.Struct, frozen=True):
    """Whether it is done; else where the leader is, if that is not this server, and what is in the way."""

    done: bool = False
    leader: str = ""
    problem: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode_join = msgspec.msgpack.Decoder(JoinAsked).decode
_decode_leave = msgspec.msgpack.Decoder(LeaveAsked).decode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


class Doorkeeper:
    """Answers both calls, and as the leader does what they ask for."""

    def __init__(self, consensus: Consensus, transport: Transport, datacenter: str) -> None:
        self._consensus = consensus
        self._transport = transport
        self._datacenter = datacenter
        self._removed: dict[str, float] = {}  # on purpose, by node id, and when
        self._complain_after = 0.0
        transport.on_call(JOIN, self._on_join)
        transport.on_call(LEAVE, self._on_leave)

    async def _on_join(self, caller: Caller, body: bytes) -> bytes:
        try:
            asked = _decode_join(body)
        except UNREADABLE as error:
            raise Refused(f"the call cannot be read: {error}") from None
        return _encode(await self._answer(lambda: self._join(asked, caller.address)))

    async def _on_leave(self, caller: Caller, body: bytes) -> bytes:
        try:
            asked = _decode_leave(body)
        except UNREADABLE as error:
            raise Refused(f"the call cannot be read: {error}") from None
        return _encode(await self._answer(lambda: self.remove(asked.id)))

    async def _answer(self, work: Callable[[], Awaitable[None]]) -> Answer:
        if not self._consensus.is_leader:
            return Answer(leader=self._consensus.leader)
        try:
            await work()
        except (NotLeader, NoLeader):
            return Answer(leader=self._consensus.leader)
        except LictorError as error:
            return Answer(problem=str(error))
        return Answer(done=True)

    async def _join(self, asked: JoinAsked, caller: str) -> None:
        record = asked.record
        if asked.datacenter != self._datacenter:
            self._complain("refused a server of another datacenter: %s at %s", record.node[:TEXT_MOST], caller)
            raise Refused(f"this cluster is datacenter {self._datacenter}, not {asked.datacenter[:TEXT_MOST]}")
        wrong = record_problem(record)
        if wrong:
            self._complain("refused a server at %s: %s", caller, wrong)
            raise Refused(wrong)
        if asked.cluster and asked.cluster != self._consensus.cluster:
            raise Refused("it belongs to another cluster: to have it join this one, move its raft folder away")
        if asked.again and self._is_kept_out(record.id):
            raise Refused("it was removed by an operator, and is kept out for a while: end it, or restart it to join")
        peers = self._consensus.peers()
        rival = join_problem(peers, record, self._seconds_silent, self._consensus.leader_id)
        if rival:
            self._complain("refused to let %s at %s join: %s", record.node, record.address, rival)
            raise Refused(rival)
        if not await answers(self._transport, record):
            self._complain("refused to let %s join: it does not answer at %s", record.node, record.address)
            raise Refused(f"it does not answer at {record.address}, where it says that it is: check advertise_addr")
        known = next((peer for peer in peers if peer.id == record.id), None)
        await self._consensus.change(ServerChange.ADD_LEARNER, record, PATIENCE)
        if known is None:
            log.info("a server has joined: node=%s address=%s id=%s", record.node, record.address, record.id)
        elif (known.address, known.node) != (record.address, record.node):
            log.info("a server has moved: node=%s address=%s before=%s", record.node, record.address, known.address)

    def _complain(self, text: str, *values: str) -> None:
        """Log why a server was refused, but not for each one of a flood: who means it asks again."""
        now = asyncio.get_running_loop().time()
        if now >= self._complain_after:
            self._complain_after = now + COMPLAINT_PAUSE
            log.warning(text, *values)

    async def remove(self, node_id: str) -> None:
        """As the leader, have a server be no member any more, on purpose. Raises what `Consensus.change` does."""
        gone = next((peer for peer in self._consensus.peers() if peer.id == node_id), None)
        if gone is None:
            return
        await self._consensus.change(ServerChange.REMOVE, ServerRecord(gone.id, gone.node, gone.address), PATIENCE)
        log.info("a server was removed: node=%s address=%s id=%s", gone.node, gone.address, gone.id)
        self.keep_out(node_id)

    def keep_out(self, node_id: str) -> None:
        """A server was removed on purpose: where it runs on, it is not to come back at once, unlike one that was taken
        for dead.
        """
        now = asyncio.get_running_loop().time()
        self._removed = {other: at for other, at in self._removed.items() if now - at < KEPT_OUT}
        self._removed[node_id] = now

    def _is_kept_out(self, node_id: str) -> bool:
        removed = self._removed.get(node_id)
        return removed is not None and asyncio.get_running_loop().time() - removed < KEPT_OUT

    def _seconds_silent(self, node_id: str) -> float:
        progress = self._consensus.progress().get(node_id)
        return float("inf") if progress is None or progress.contact is None else progress.contact


def record_problem(record: ServerRecord) -> str:
    """Why no server can be known under a record; empty if one can. Pure."""
    if not record.id or not record.node or not record.address or not 0 < record.number < 1 << 63:
        return "a server needs a node id, a name, an address and a number"
    for what, text in (("node id", record.id), ("node name", record.node), ("address", record.address)):
        if len(text) > TEXT_MOST:
            return f"its {what} has {len(text)} characters: at most {TEXT_MOST} are allowed"
        if not text.isprintable():
            return f"its {what} {text!r} has characters that cannot be shown"
    try:
        split_host_port(record.address, 0)
    except ValueError as error:
        return str(error)
    return ""


def join_problem(
    peers: Sequence[Peer], record: ServerRecord, seconds_silent: Callable[[str], float], leader_id: str
) -> str:
    """Why a server must not join under a record; empty if it may. Pure.

    A server that lost its raft folder comes back under its node id with another number, and takes the place of what it
    was; but nobody takes the place of a server that is alive. Whoever was at the address is not, since the one that
    asks must answer there: it may come back at once.
    """
    for peer in peers:
        leads = peer.id == leader_id
        alive = leads or (seconds_silent(peer.id) < ALIVE and peer.address != record.address)
        if peer.number == record.number or not alive:
            continue
        wait = "" if leads else f"; one that has ended can be replaced {ALIVE:.0f} seconds later, by itself"
        if peer.id == record.id:
            return f"a server with the node id {record.id} is alive at {peer.address}: give each its own{wait}"
        if peer.node.lower() == record.node.lower():
            return f"the node name {record.node} belongs to another server, at {peer.address}: give each its own{wait}"
        if peer.address == record.address:
            return f"the address {record.address} belongs to another server, {peer.node}: give each its own"
    return ""


async def answers(transport: Transport, record: ServerRecord) -> bool:
    """Whether a server answers where its record says that it is, and says the same of itself."""
    try:
        said = hello.decode_hello(await transport.call(record.address, hello.METHOD, b"", ANSWER))
    except (Unreachable, LictorError, *UNREADABLE):
        return False
    return (said.number, said.id, said.node) == (record.number, record.id, record.node)


async def ask_to_join(transport: Transport, at: Sequence[str], asked: JoinAsked, timeout: float = PATIENCE + 5) -> None:
    """Ask the leader to add a server or take over its changes: whoever is at one of the addresses, or whom it names.
    Raises `Refused` with what is in the way, `NoLeader`, `Unreachable`.
    """
    await _ask(transport, at, JOIN, _encode(asked), timeout)


async def ask_to_remove(transport: Transport, at: Sequence[str], node_id: str, timeout: float = PATIENCE + 5) -> None:
    """Ask the leader to remove a server. Raises as `ask_to_join` does."""
    await _ask(transport, at, LEAVE, _encode(LeaveAsked(node_id)), timeout)


async def _ask(transport: Transport, at: Sequence[str], method: str, body: bytes, timeout: float) -> None:
    asked: set[str] = set()
    waiting, trouble = list(at), ""
    while waiting and len(asked) < HOPS + len(at):
        address = waiting.pop(0)
        if address in asked:
            continue
        asked.add(address)
        try:
            answer = _decode_answer(await transport.call(address, method, body, timeout))
        except (Unreachable, LictorError) as error:
            trouble = str(error)
            continue
        except UNREADABLE as error:
            trouble = f"{address} gave an answer that cannot be read: {error}"
            continue
        if answer.done:
            return
        if answer.problem:
            raise Refused(answer.problem)
        if answer.leader:
            waiting.insert(0, answer.leader)
    if trouble:
        raise Unreachable(trouble)
    raise NoLeader
