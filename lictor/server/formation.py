"""A server's way into a cluster, and back into it: finds other servers, forms a cluster with them or joins theirs,
tells the leader when its address has changed, and leaves.

What a server without a cluster does is decided in `formation_plan`; `formation_search` knows who else is there. Others
are asked while there is something to be settled: this server belongs to no cluster, or is not in its configuration, or
finds no leader. Only servers of the same cluster count then: another one may answer at an address by mistake.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from lictor.model.errors import LictorError, NoLeader, NotLeader, Refused
from lictor.model.transport import UNREADABLE, Caller, Transport, Unreachable
from lictor.model.version import API_VERSION, __version__
from lictor.raft.consensus import Consensus, Peer, ServerChange, ServerRecord
from lictor.raft.settings import World
from lictor.raft.wal import DiskFailed, DiskFull
from lictor.server import joining
from lictor.server.formation_file import read_standing, write_standing
from lictor.server.formation_notices import Notices
from lictor.server.formation_plan import (
    Own,
    Plan,
    Promise,
    Sight,
    Standing,
    Step,
    plan_blank,
    refuse_promise,
)
from lictor.server.formation_search import Resolve, Search, resolve_host
from lictor.server.formation_settings import FormationSettings
from lictor.server.hello import Hello
from lictor.server.joining import ANSWER

PROMISE = "server.promise"
LEADERLESS = 3.0  # seconds without a leader after which the other servers are asked
SETTLED = 5.0  # seconds between two looks while all is well
AGAIN = 1.0  # seconds between two requests to the leader
LEAVING = 12.0  # seconds that leaving may take

log = logging.getLogger("lictor.server.formation")

_encode = msgspec.msgpack.Encoder().encode
_decode_promise = msgspec.msgpack.Decoder(Promise).decode
_decode_text = msgspec.msgpack.Decoder(str).decode


class Formation:
    """See above. `record` is this server as it should be known, `folder` its raft folder; `give_up` is called with the
    reason where `retry_max` attempts found nobody; `meta` is that of this server's node.
    """

    def __init__(
        self,
        consensus: Consensus,
        transport: Transport,
        record: Callable[[], ServerRecord],
        folder: Path,
        settings: FormationSettings,
        world: World,
        give_up: Callable[[str], None],
        resolve: Resolve = resolve_host,
        meta: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self._consensus = consensus
        self._transport = transport
        self._record = record
        self._folder = folder
        self._settings = settings
        self._meta = meta
        self._world = world
        self._chance: random.Random = world.chance
        self._standing = Standing()
        self._promised_at = 0.0  # loop time since which an answer tells whether the promise counts
        self._binding = asyncio.Lock()  # held while what this server is bound to changes
        self._doorkeeper = joining.Doorkeeper(consensus, transport, settings.datacenter)
        self._formed = False  # whether the promised cluster is there, or all have promised it
        self._enough_since: float | None = None
        self._pause_until = 0.0  # before it founds again
        self._was_member = False  # in this run, with a leader
        self._removed = False
        self._leaderless_since: float | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._next_announcement = 0.0
        self._next_join = 0.0
        self._leaving = False
        self._notices = Notices(log)
        self._search = Search(
            consensus, transport, record, settings, lambda: self.hello, self._hear_of, self._notices, give_up, resolve
        )

    @property
    def hello(self) -> Hello:
        """What this server says of itself."""
        consensus, settings, me = self._consensus, self._settings, self._record()
        (last_index, last_term), peers = consensus.last_entry, consensus.peers()
        now = asyncio.get_running_loop().time()
        known = dict.fromkeys([*(peer.address for peer in peers), *self._search.answering(now)])
        known.pop(me.address, None)
        promise = self._standing.promise
        return Hello(
            id=me.id,
            node=me.node,
            address=me.address,
            datacenter=settings.datacenter,
            number=consensus.number,
            blank=consensus.blank,
            expect=settings.expect,
            promise=promise.id if promise is not None else "",
            joining=self._standing.joining,
            servers=tuple(peer.id for peer in peers),
            known=tuple(known),
            leader_id=consensus.leader_id,
            leader=consensus.leader,
            is_leader=consensus.is_leader,
            term=consensus.term,
            last_index=last_index,
            last_term=last_term,
            applied=consensus.applied,
            last_contact=consensus.last_contact,
            version=API_VERSION,
            build=__version__,
            read_replica=settings.read_replica,
            serf_port=settings.serf_port,
            meta=self._meta(),
            cluster=consensus.cluster,
        )

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin; the consensus has started. Raises `DamagedLog`, `DiskFailed`."""
        self._standing = await self._world.log_work(read_standing, self._folder, self._world.files)
        self._promised_at = asyncio.get_running_loop().time()
        self._search.serve()
        self._transport.on_call(PROMISE, self._on_promise)
        self._consensus.on_peers(self._wake.set)
        if self._settings.alone and self._consensus.blank and self._standing == Standing():
            # Before anything else: whoever starts alone is there at once.
            with contextlib.suppress(DiskFull):  # then as soon as there is room
                await self._consensus.form([self._numbered()])
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._search.close()

    async def join(self, text: str) -> None:
        """Have this server find the one at an address, host or host:port. Raises `Refused` with what is in the way."""
        await self._search.join(text)

    def meet(self, addresses: Sequence[str]) -> None:
        """Servers of this datacenter were seen at these addresses, host:port."""
        if self._search.meet(addresses):
            self._wake.set()

    def pass_over(self, addresses: Sequence[str]) -> None:
        """At these addresses of the configuration, host:port, something else is than a server that takes calls."""
        self._search.pass_over(addresses)

    def _numbered(self) -> ServerRecord:
        me = self._record()
        return ServerRecord(me.id, me.node, me.address, self._consensus.number)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            try:
                pause = await self._look(loop.time())
            except (LictorError, Unreachable, DiskFull) as error:
                self._notices.show("failure", f"trying again soon: {error}", level=logging.WARNING)
                pause = 1.0
            except Exception as error:
                self._world.fatal(error)
                raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _look(self, now: float) -> float:
        """See what is to be done, and do it. Returns after how many seconds to look again at the latest."""
        if self._leaving:
            return SETTLED
        if self._consensus.blank:
            await self._search.ask_around(now)
            await self._take_blank_step(now)
            return self._search.until_next(now)
        if await self._settle(now):
            return SETTLED if self._leaderless_since is None else 1.0
        await self._search.ask_around(now)
        return self._search.until_next(now)

    def _hear_of(self, said: Hello) -> None:
        """Another server has spoken."""
        promise = self._standing.promise
        if promise is not None and not said.blank and said.promise == promise.id:
            self._formed = True
        self._wake.set()

    # -- a server without a cluster -----------------------------------------------------------------------------------

    def _own(self) -> Own:
        settings = self._settings
        return Own(self._numbered(), settings.datacenter, settings.expect, settings.alone, settings.read_replica)

    async def _take_blank_step(self, now: float) -> None:
        sights = self._search.sights(now)
        waited = now - self._enough_since if self._enough_since is not None else 0.0
        async with self._binding:
            plan = plan_blank(
                self._own(),
                self._standing,
                sights,
                promised_at=self._promised_at,
                formed=self._formed,
                waited=waited,
                silent=self._search.silent(),
                lonely=self._search.lonely,
            )
            if plan.step is Step.RELEASE:
                self._notices.show(plan.step.value, plan.reason)
                await self._stand(Standing())
                self._wake.set()
                return
            if plan.step is Step.FORM:
                self._notices.show(plan.step.value, plan.reason)
                await self._form(plan.servers)
                return
        self._count_wait(sights, now)
        if plan.step is Step.FOUND and now >= self._pause_until:
            await self._found(plan)
        elif plan.step is Step.JOIN and self._search.all_tried:  # others may tell of another cluster
            await self._join(plan.leaders, plan.reason)
        elif plan.step is Step.WAIT:
            self._notices.show(plan.step.value, plan.reason)

    def _count_wait(self, sights: Sequence[Sight], now: float) -> None:
        enough = sum(sight.hello.blank for sight in sights) + 1 >= max(1, self._settings.expect)
        if not enough:
            self._enough_since = None
        elif self._enough_since is None:
            self._enough_since = now

    async def _stand(self, standing: Standing) -> None:
        """Be bound to something else from now on; it is on disk when this returns. Raises `DiskFull`."""
        try:
            await self._world.log_work(write_standing, self._folder, self._world.files, standing)
        except DiskFailed as error:
            self._world.fatal(error)
            raise
        self._standing = standing
        self._formed = False
        self._promised_at = asyncio.get_running_loop().time()

    async def _form(self, servers: Sequence[ServerRecord]) -> None:
        if not self._consensus.blank:
            return
        await self._consensus.form(servers)
        log.info("the cluster is formed: servers=%s", ", ".join(f"{s.node} at {s.address}" for s in servers))
        me = self._consensus.number
        for server in servers:
            if server.number != me:
                self._search.ask_at_once(server.address)  # whoever hears of it need not ask first

    async def _found(self, plan: Plan) -> None:
        """As the founder, have all promise, and form the cluster, or let go of it."""
        me = self._consensus.number
        promise = Promise(f"{self._chance.getrandbits(128):032x}", me, plan.servers)
        names = ", ".join(server.node for server in plan.servers)
        async with self._binding:
            if not self._is_free():
                return
            await self._stand(Standing(promise=promise))
        log.info("%s: asking them to promise to form a cluster: %s", plan.reason, names)
        refusals = await asyncio.gather(
            *(self._ask_promise(server, promise) for server in plan.servers if server.number != me)
        )
        async with self._binding:
            if not self._consensus.blank:
                return
            missing = [refusal for refusal in refusals if refusal]
            if not missing:
                self._formed = True  # whoever promised is bound by it for good: without room it waits for room
                await self._form(promise.servers)
                return
            log.warning("the cluster is not formed: %s", "; ".join(missing))
            await self._stand(Standing())
            self._pause_until = asyncio.get_running_loop().time() + self._chance.uniform(1.0, 3.0)

    def _is_free(self) -> bool:
        return self._consensus.blank and self._standing == Standing()

    async def _ask_promise(self, server: ServerRecord, promise: Promise) -> str:
        """Returns why there is none."""
        try:
            refusal = _decode_text(await self._transport.call(server.address, PROMISE, _encode(promise), 2 * ANSWER))
        except (Unreachable, LictorError, *UNREADABLE) as error:
            return f"{server.node} gave no answer: {error}"
        return f"{server.node} {refusal}" if refusal else ""

    async def _on_promise(self, caller: Caller, body: bytes) -> bytes:
        try:
            promise = _decode_promise(body)
        except UNREADABLE as error:
            raise Refused(f"the call cannot be read: {error}") from None
        founder = next((server for server in promise.servers if server.number == promise.founder), None)
        if founder is None:
            return _encode("was asked by a server that is not among those that shall form the cluster")
        wrong = next((problem for server in promise.servers if (problem := joining.record_problem(server))), "")
        if wrong:
            raise Refused(wrong)
        if not await joining.answers(self._transport, founder):
            return _encode(f"has no answer from {founder.node} at {founder.address}: check its advertise_addr")
        async with self._binding:
            refusal = refuse_promise(self._own(), self._standing, promise, blank=self._consensus.blank)
            if not refusal and self._standing.promise is None:
                try:
                    await self._stand(Standing(promise=promise))
                except DiskFull as error:
                    raise LictorError(f"has no room to keep a promise: {error}") from None
                self._search.add(founder.address)
                log.info("promised to form a cluster that %s at %s founds", founder.node, founder.address)
                self._wake.set()
        return _encode(refusal)

    # -- joining ------------------------------------------------------------------------------------------------------

    async def _join(self, at: Sequence[str], reason: str) -> None:
        """Have the leader add this server, or take over its name and address; not at once again where it did not."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_join:
            return
        async with self._binding:
            if self._standing.promise is not None and self._consensus.blank:
                return
            if not self._standing.joining or self._standing.left:
                await self._stand(msgspec.structs.replace(self._standing, joining=True, left=False))
        self._notices.show("join", f"{reason}; asking to join")
        try:
            asked = joining.JoinAsked(
                self._numbered(), self._settings.datacenter, self._consensus.cluster, self._was_member
            )
            await joining.ask_to_join(self._transport, at, asked)
        except NoLeader:
            self._notices.show("not joined", f"{reason}; it has no leader: waiting for one")
        except Refused as error:
            self._notices.show("not joined", f"{reason}; this server is refused: {error}", level=logging.ERROR)
        except Unreachable as error:
            self._notices.show(
                "not joined", f"{reason}; no answer to the request to join: {error}", level=logging.WARNING
            )
        self._next_join = loop.time() + AGAIN

    # -- a server with a cluster --------------------------------------------------------------------------------------

    async def _settle(self, now: float) -> bool:
        """Returns whether all is well: this server is in the configuration as it should be, and there is a leader."""
        mine = next((peer for peer in self._consensus.peers() if peer.number == self._consensus.number), None)
        if mine is None or self._removed:
            return await self._stand_outside(now, mine)
        if not self._consensus.leader:
            return self._miss_leader(now)
        self._leaderless_since = None
        self._was_member = True
        if self._standing.joining or self._standing.left:
            async with self._binding:
                await self._stand(Standing(promise=self._standing.promise))
            log.info("this server is a member of the cluster: leader=%s", self._consensus.leader)
        me = self._record()
        if (mine.id, mine.address, mine.node) != (me.id, me.address, me.node):
            await self._announce(mine, me, now)
            return False
        return True

    def _miss_leader(self, now: float) -> bool:
        if self._leaderless_since is None:
            self._leaderless_since = now
        if now - self._leaderless_since < LEADERLESS:
            return True
        me = self._record().id
        sights = self._search.kin(now)
        for sight in sights:
            said = sight.hello
            if said.is_leader and said.servers and me not in said.servers and sight.asked_at >= self._leaderless_since:
                self._removed = True
                self._wake.set()
                return False
        silent = self._search.silent()
        seen = ", ".join(sorted(f"{sight.hello.node} at {sight.address}" for sight in sights)) or "nobody"
        reasons = f"; no answer from {', '.join(silent)}" if silent else ""
        self._notices.show(
            "no leader", f"there is no leader; other servers that answer: {seen}{reasons}", level=logging.WARNING
        )
        return False

    async def _stand_outside(self, now: float, mine: Peer | None) -> bool:
        """This server is not in its cluster's configuration: not yet, or not any more."""
        settings, standing = self._settings, self._standing
        if mine is not None and self._consensus.leader:
            self._removed = False  # it was added again
            return False
        if self._was_member:
            # It may have been taken for dead while it was cut off or stalled; the leader knows if it was on purpose.
            self._notices.show("removed", "this server was removed from the cluster: it answers, but knows no leader")
        if standing.left and not settings.rejoin_after_leave and not settings.join:
            self._notices.show(
                "left",
                "this server left its cluster: waiting to be told where to join (retry_join, rejoin_after_leave)",
            )
            return True
        leaders = [sight.address for sight in self._search.kin(now) if sight.hello.is_leader]
        named = [sight.hello.leader for sight in self._search.kin(now) if sight.hello.leader]
        at = list(dict.fromkeys([*leaders, *named]))
        if at:
            await self._join(at, "this server is not in the cluster's configuration")
        else:
            silent = ", ".join(self._search.silent())
            self._notices.show(
                "outside",
                "this server is not in the cluster's configuration, and waits for a leader to join"
                + (f"; no answer from {silent}" if silent else ""),
            )
        return False

    async def _announce(self, mine: Peer, me: ServerRecord, now: float) -> None:
        if now < self._next_announcement:
            return
        self._next_announcement = now + AGAIN
        self._notices.show(
            "moved", f"this server is {me.node} at {me.address} now, and was {mine.node} at {mine.address}: telling it"
        )
        try:
            if self._consensus.is_leader:
                await self._consensus.change(ServerChange.ADD_LEARNER, self._numbered(), joining.PATIENCE)
            else:
                asked = joining.JoinAsked(self._numbered(), self._settings.datacenter, self._consensus.cluster)
                await joining.ask_to_join(self._transport, [self._consensus.leader], asked)
        except (NoLeader, NotLeader, Unreachable) as error:
            self._notices.show(
                "not told", f"the leader could not be told of this server's new address: {error}", level=logging.WARNING
            )
        except Refused as error:
            self._notices.show(
                "not told", f"the leader refuses this server's new address: {error}", level=logging.ERROR
            )

    # -- leaving ------------------------------------------------------------------------------------------------------

    async def leave(self) -> bool:
        """Have this server be no member any more: the leadership is handed over first. Returns whether it is; a server
        that is the only voter stays one. Gives up after `LEAVING`.
        """
        self._leaving = True
        loop = asyncio.get_running_loop()
        me = self._record().id
        peers = self._consensus.peers()
        if not any(peer.id == me for peer in peers) or not any(peer.id != me and peer.voter for peer in peers):
            return False
        try:
            async with self._binding:
                await self._stand(msgspec.structs.replace(self._standing, joining=False, left=True))
        except DiskFull as error:
            log.warning("no room to note that this server leaves, it will join again if it is started again: %s", error)
        deadline = loop.time() + LEAVING
        trouble = ""
        while loop.time() < deadline:
            try:
                async with asyncio.timeout_at(deadline):
                    if self._consensus.is_leader:
                        await self._consensus.transfer("", deadline - loop.time())
                    elif self._consensus.leader:
                        await joining.ask_to_remove(
                            self._transport, [self._consensus.leader], me, deadline - loop.time()
                        )
                        log.info("this server has left the cluster")
                        return True
            except (LictorError, Unreachable, TimeoutError) as error:
                trouble = str(error)
            await asyncio.sleep(0.1)
        log.warning("the cluster could not be told that this server leaves: %s", trouble or "there is no leader")
        return False

    def keep_out(self, node_id: str) -> None:
        """As the leader: another server was removed on purpose, and is not to come back at once."""
        self._doorkeeper.keep_out(node_id)

    async def force_leave(self, node_id: str) -> None:
        """Have another server be no member any more. Raises `Refused`, `NoLeader`, `LictorError`."""
        if not self._consensus.leader:
            raise NoLeader
        try:
            if self._consensus.is_leader:
                await self._doorkeeper.remove(node_id)
            else:
                await joining.ask_to_remove(self._transport, [self._consensus.leader], node_id)
        except Unreachable as error:
            raise LictorError(f"the leader could not be asked: {error}") from None
