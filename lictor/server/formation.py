"""A server's way into a cluster, and back into it: finds other servers, forms a cluster with them or joins theirs,
tells the leader when its address has changed, and leaves.

What to do is decided in `formation_plan`, where to ask is kept in `formation_contacts`; this is the shell around them.
It asks other servers while there is something to be settled: this server belongs to no cluster, or is not in its
configuration, or finds no leader.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from lictor.model.errors import InvalidRequest, LictorError, NoLeader, NotLeader, Refused
from lictor.model.host_port import join_host_port, split_host_port
from lictor.model.transport import Caller, Transport, Unreachable
from lictor.model.version import API_VERSION, __version__
from lictor.raft.consensus import Consensus, Peer, ServerChange, ServerRecord
from lictor.raft.settings import World
from lictor.raft.wal import DiskFailed, DiskFull
from lictor.server import hello, joining
from lictor.server.formation_contacts import Contact, Contacts
from lictor.server.formation_file import read_standing, write_standing
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
from lictor.server.hello import Hello
from lictor.server.joining import ANSWER

PROMISE = "server.promise"
LEADERLESS = 3.0  # seconds without a leader after which the other servers are asked
REPEAT = 30.0  # seconds after which what is waited for is logged again
DETAILS = 5.0
SHOWN_MOST = 64
SETTLED = 5.0  # seconds between two looks while all is well
LEAVING = 12.0  # seconds that leaving may take

log = logging.getLogger("lictor.server.formation")

_encode = msgspec.msgpack.Encoder().encode
_decode_promise = msgspec.msgpack.Decoder(Promise).decode
_decode_text = msgspec.msgpack.Decoder(str).decode


class FormationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """As configured, see the configuration's keys of these names; `alone` is `bootstrap`. `join` are hosts with or
    without a port; `port` is the one that is meant without.
    """

    datacenter: str
    expect: int = 0
    alone: bool = False
    read_replica: bool = False
    join: tuple[str, ...] = ()
    port: int = 8300
    retry_interval: float = 30.0
    retry_max: int = 0
    rejoin_after_leave: bool = False
    serf_port: int = 0
    meta: dict[str, str] = {}


Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host. Raises `OSError`."""


async def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of a host as the system's resolver gives them, as host:port. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    return list(dict.fromkeys(join_host_port(str(entry[4][0]), port) for entry in found))


class Formation:
    """See above. `record` is this server as it should be known, `folder` its raft folder; `give_up` is called with the
    reason where `retry_max` attempts found nobody.
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
    ) -> None:
        self._consensus = consensus
        self._transport = transport
        self._record = record
        self._folder = folder
        self._settings = settings
        self._world = world
        self._chance: random.Random = world.chance
        self._give_up = give_up
        self._resolve = resolve
        self._standing = Standing()
        self._promised_at = 0.0  # loop time since which an answer tells whether the promise counts
        self._binding = asyncio.Lock()  # held while what this server is bound to changes
        self._contacts = Contacts(settings.retry_interval)
        self._doorkeeper = joining.Doorkeeper(consensus, transport, settings.datacenter)
        self._hosts = [_host(text, settings.port) for text in settings.join]
        self._next_resolving = 0.0
        self._attempts = 0
        self._formed = False  # whether somebody said that the promised cluster is there
        self._enough_since: float | None = None
        self._pause_until = 0.0  # before it founds again
        self._was_member = False  # in this run, with a leader
        self._removed = False
        self._leaderless_since: float | None = None
        self._polls: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._shown: dict[str, tuple[str, float]] = {}  # what was logged last, and when, by what it is about
        self._next_announcement = 0.0
        self._leaving = False

    @property
    def hello(self) -> Hello:
        """What this server says of itself."""
        consensus, settings, me = self._consensus, self._settings, self._record()
        stats, peers = consensus.stats(), consensus.peers()
        now = asyncio.get_running_loop().time()
        known = dict.fromkeys([*(peer.address for peer in peers), *self._contacts.answering(now)])
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
            last_index=int(stats.get("last_log_index", "0")),
            last_term=int(stats.get("last_log_term", "0")),
            applied=consensus.applied,
            last_contact=consensus.last_contact,
            version=API_VERSION,
            build=__version__,
            read_replica=settings.read_replica,
            serf_port=settings.serf_port,
            meta=settings.meta,
        )

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin; the consensus has started. Raises `DamagedLog`, `DiskFailed`."""
        self._standing = await self._world.log_work(read_standing, self._folder, self._world.files)
        self._promised_at = asyncio.get_running_loop().time()
        self._transport.on_call(hello.METHOD, self._on_hello)
        self._transport.on_call(PROMISE, self._on_promise)
        self._consensus.on_peers(self._wake.set)
        if self._settings.alone and self._consensus.blank and self._standing == Standing():
            # Before anything else: whoever starts alone is there at once.
            await self._consensus.form([self._numbered()])
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        tasks = [*self._polls, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def join(self, text: str) -> None:
        """Have this server find the one at an address, host or host:port. Raises `Refused` with what is in the way."""
        try:
            host, port = split_host_port(text, self._settings.port)
            addresses = await self._resolve(host, port)
        except (ValueError, OSError) as error:
            raise Refused(_failed([f"Failed to resolve {text}: {error}"])) from None
        problems = []
        for address in addresses:
            try:
                answer = await self._transport.call(address, hello.METHOD, hello.encode_hello(self.hello), ANSWER)
                said = hello.decode_hello(answer)
            except (Unreachable, LictorError, msgspec.MsgspecError) as error:
                problems.append(f"Failed to join {address}: {error} (servers are joined at their ports.server)")
                continue
            if said.datacenter == self._settings.datacenter:
                self._hear_of(said)
                self._wake.set()
                return
            problems.append(f"Failed to join {address}: it is of datacenter {said.datacenter}")
        raise Refused(_failed(problems))

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
                self._show("failure", f"trying again soon: {error}", level=logging.WARNING)
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
            await self._ask_around(now)
            await self._take_blank_step(now)
            return self._until_next_question()
        if await self._settle(now):
            return SETTLED if self._leaderless_since is None else 1.0
        await self._ask_around(now)
        return self._until_next_question()

    def _until_next_question(self) -> float:
        now = asyncio.get_running_loop().time()
        return min(1.0, max(0.05, self._contacts.next_at() - now))

    def _show(self, about: str, text: str, *, level: int = logging.INFO) -> None:
        """Log what this server does or waits for: at once, but where only the details of what it is about have changed
        no more often than each `DETAILS` seconds, and again where it goes on for `REPEAT`.
        """
        now = asyncio.get_running_loop().time()
        before, at = self._shown.get(about, ("", float("-inf")))
        if now - at >= (REPEAT if text == before else DETAILS):
            if len(self._shown) >= SHOWN_MOST:
                self._shown.clear()
            self._shown[about] = (text, now)
            log.log(level, "%s", text)

    # -- who is there -------------------------------------------------------------------------------------------------

    async def _ask_around(self, now: float) -> None:
        """Ask whoever may be asked now; answers come later, and wake the loop."""
        if now >= self._next_resolving and (self._hosts or self._settings.retry_max):
            self._next_resolving = now + self._settings.retry_interval
            await self._find_configured()
        for peer in self._consensus.peers():
            if peer.number != self._consensus.number:
                self._contacts.add(peer.address)
        for contact in self._contacts.due(now):
            self._contacts.asking(contact, now)
            task = asyncio.get_running_loop().create_task(self._ask(contact))
            self._polls.add(task)
            task.add_done_callback(self._polls.discard)

    async def _find_configured(self) -> None:
        """Look up the addresses of the configuration anew; count the attempts that met nobody."""
        if self._settings.retry_max and not self._contacts.met_anybody and not self._consensus.leader:
            if self._attempts >= self._settings.retry_max:
                silent = ", ".join(self._contacts.silent()) or ", ".join(self._settings.join)
                log.error("max join retry exhausted, exiting: attempts=%d %s", self._attempts, silent)
                self._give_up(f"retry_max = {self._settings.retry_max}: nobody could be joined: {silent}")
                return
            self._attempts += 1
        found: set[str] = set()
        for host, port in self._hosts:
            try:
                async with asyncio.timeout(ANSWER):
                    found.update(await self._resolve(host, port))
            except (OSError, TimeoutError) as error:
                self._show(f"host {host}", f"retry_join: {host} has no address: {error}", level=logging.WARNING)
        me = self._record().address
        for address in sorted(found):
            if address == me:
                self._contacts.is_self(address)
            else:
                self._contacts.add(address, configured=True)
        if found:
            self._contacts.keep_configured(frozenset(found))

    async def _ask(self, contact: Contact) -> None:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        try:
            body = await self._transport.call(contact.address, hello.METHOD, hello.encode_hello(self.hello), ANSWER)
            said = hello.decode_hello(body)
        except (Unreachable, LictorError, msgspec.MsgspecError) as error:
            before = contact.trouble
            trouble = str(error).removeprefix(f"cannot connect to {contact.address}: ")
            trouble = trouble.removeprefix(f"{contact.address}: ")
            self._contacts.failed(contact, trouble, loop.time())
            if not before:
                self._wake.set()
            return
        self._contacts.answered(contact, said, asked_at, loop.time(), self._consensus.number)
        self._hear_of(said)
        self._wake.set()

    def _hear_of(self, said: Hello) -> None:
        """Another server has spoken, or was spoken of."""
        if said.number == self._consensus.number or said.datacenter != self._settings.datacenter:
            return
        for address in (said.address, *said.known[:16], *([said.leader] if said.leader else [])):
            if address != self._record().address:
                self._contacts.add(address)
        promise = self._standing.promise
        if promise is not None and not said.blank and said.promise == promise.id:
            self._formed = True
        if not self._consensus.blank:
            self._consensus.locate(said.number, said.address)

    async def _on_hello(self, caller: Caller, body: bytes) -> bytes:
        if body:
            try:
                said = hello.decode_hello(body)
            except msgspec.MsgspecError as error:
                raise Refused(f"the call cannot be read: {error}") from None
            if said.datacenter != self._settings.datacenter:
                self._show(
                    f"stranger {said.node[:64]}",
                    f"refused a server of another datacenter: node={said.node[:200]} address={said.address[:200]} "
                    f"datacenter={said.datacenter[:200]}",
                    level=logging.WARNING,
                )
            self._hear_of(said)
            if self._consensus.blank:
                self._contacts.ask_again(said.address, asyncio.get_running_loop().time())
                self._wake.set()
        return hello.encode_hello(self.hello)

    # -- a server without a cluster -----------------------------------------------------------------------------------

    def _own(self) -> Own:
        settings = self._settings
        return Own(self._numbered(), settings.datacenter, settings.expect, settings.alone, settings.read_replica)

    async def _take_blank_step(self, now: float) -> None:
        sights = self._contacts.sights(now)
        waited = now - self._enough_since if self._enough_since is not None else 0.0
        async with self._binding:
            plan = plan_blank(
                self._own(),
                self._standing,
                sights,
                promised_at=self._promised_at,
                formed=self._formed,
                waited=waited,
                silent=self._contacts.silent(),
            )
            if plan.step is Step.RELEASE:
                self._show(plan.step.value, plan.reason)
                await self._stand(Standing())
                self._wake.set()
                return
            if plan.step is Step.FORM:
                self._show(plan.step.value, plan.reason)
                await self._form(plan.servers)
                return
        self._count_wait(sights, now)
        if plan.step is Step.FOUND and now >= self._pause_until:
            await self._found(plan)
        elif plan.step is Step.JOIN:
            await self._join(plan.leaders, plan.reason)
        elif plan.step is Step.WAIT:
            self._show(plan.step.value, plan.reason)

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
                # Whoever hears of it need not ask first.
                self._contacts.add(server.address)
                task = asyncio.get_running_loop().create_task(self._ask(Contact(server.address, configured=False)))
                self._polls.add(task)
                task.add_done_callback(self._polls.discard)

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
        except (Unreachable, LictorError, msgspec.MsgspecError) as error:
            return f"{server.node} gave no answer: {error}"
        return f"{server.node} {refusal}" if refusal else ""

    async def _on_promise(self, caller: Caller, body: bytes) -> bytes:
        try:
            promise = _decode_promise(body)
        except msgspec.MsgspecError as error:
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
                self._contacts.add(founder.address)
                log.info("promised to form a cluster that %s at %s founds", founder.node, founder.address)
                self._wake.set()
        return _encode(refusal)

    # -- joining ------------------------------------------------------------------------------------------------------

    async def _join(self, at: Sequence[str], reason: str) -> None:
        """Have the leader add this server, or take over its name and address."""
        async with self._binding:
            if self._standing.promise is not None and self._consensus.blank:
                return
            if not self._standing.joining or self._standing.left:
                await self._stand(msgspec.structs.replace(self._standing, joining=True, left=False))
        self._show("join", f"{reason}; asking to join")
        try:
            asked = joining.JoinAsked(self._numbered(), self._settings.datacenter, again=self._was_member)
            await joining.ask_to_join(self._transport, at, asked)
        except NoLeader:
            self._show("not joined", f"{reason}; it has no leader: waiting for one")
        except Refused as error:
            self._show("not joined", f"{reason}; this server is refused: {error}", level=logging.ERROR)
        except Unreachable as error:
            self._show("not joined", f"{reason}; no answer to the request to join: {error}", level=logging.WARNING)

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
        sights = self._contacts.sights(now)
        for sight in sights:
            said = sight.hello
            if said.is_leader and said.servers and me not in said.servers and sight.asked_at >= self._leaderless_since:
                self._removed = True
                self._wake.set()
                return False
        silent = self._contacts.silent()
        seen = ", ".join(sorted(f"{sight.hello.node} at {sight.address}" for sight in sights)) or "nobody"
        reasons = f"; no answer from {', '.join(silent)}" if silent else ""
        self._show(
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
            self._show("removed", "this server was removed from the cluster: it answers, but knows no leader")
        if standing.left and not settings.rejoin_after_leave and not settings.join:
            self._show(
                "left",
                "this server left its cluster: waiting to be told where to join (retry_join, rejoin_after_leave)",
            )
            return True
        leaders = [sight.address for sight in self._contacts.sights(now) if sight.hello.is_leader]
        named = [sight.hello.leader for sight in self._contacts.sights(now) if sight.hello.leader]
        at = list(dict.fromkeys([*leaders, *named]))
        if at:
            await self._join(at, "this server is not in the cluster's configuration")
        else:
            silent = ", ".join(self._contacts.silent())
            self._show(
                "outside",
                "this server is not in the cluster's configuration, and waits for a leader to join"
                + (f"; no answer from {silent}" if silent else ""),
            )
        return False

    async def _announce(self, mine: Peer, me: ServerRecord, now: float) -> None:
        if now < self._next_announcement:
            return
        self._next_announcement = now + 1.0
        self._show(
            "moved", f"this server is {me.node} at {me.address} now, and was {mine.node} at {mine.address}: telling it"
        )
        try:
            if self._consensus.is_leader:
                await self._consensus.change(ServerChange.ADD_LEARNER, self._numbered(), joining.PATIENCE)
            else:
                asked = joining.JoinAsked(self._numbered(), self._settings.datacenter)
                await joining.ask_to_join(self._transport, [self._consensus.leader], asked)
        except (NoLeader, NotLeader, Unreachable) as error:
            self._show(
                "not told", f"the leader could not be told of this server's new address: {error}", level=logging.WARNING
            )
        except Refused as error:
            self._show("not told", f"the leader refuses this server's new address: {error}", level=logging.ERROR)

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
        async with self._binding:
            await self._stand(msgspec.structs.replace(self._standing, joining=False, left=True))
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


def _failed(problems: Sequence[str]) -> str:
    """Errors in Serf's words."""
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return f"{count} occurred:" + "".join(f"\n\t* {problem}" for problem in problems) + "\n\n"


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        return split_host_port(text, port)
    except ValueError as error:
        raise InvalidRequest(f"retry_join: {error}") from None
