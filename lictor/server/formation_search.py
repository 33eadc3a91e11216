"""Finds other servers: asks at the addresses of the configuration and at those that others tell of, and answers when it
is asked.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from lictor.model.errors import InvalidRequest, LictorError, Refused
from lictor.model.host_port import join_host_port, split_host_port
from lictor.model.transport import UNREADABLE, Caller, Transport, Unreachable
from lictor.raft.consensus import Consensus, ServerRecord
from lictor.server import hello
from lictor.server.formation_contacts import Contact, Contacts
from lictor.server.formation_notices import Notices
from lictor.server.formation_plan import Sight
from lictor.server.formation_settings import FormationSettings
from lictor.server.hello import Hello
from lictor.server.joining import ANSWER

KNOWN_MOST = 16  # addresses taken from one answer
LONGEST_PAUSE = 1.0  # seconds between two looks at who is to be asked
SHORTEST_PAUSE = 0.05
NAME_MOST = 200  # characters of a stranger's texts in the log

log = logging.getLogger("lictor.server.formation")

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host. Raises `OSError`."""


async def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of a host as the system's resolver gives them, as host:port. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    return list(dict.fromkeys(join_host_port(str(entry[4][0]), port) for entry in found))


class Search:
    """See above. `me` is what this server says of itself; `heard` is told each time that another server has spoken;
    `give_up` is called with the reason where `retry_max` attempts found nobody.
    """

    def __init__(
        self,
        consensus: Consensus,
        transport: Transport,
        record: Callable[[], ServerRecord],
        settings: FormationSettings,
        me: Callable[[], Hello],
        heard: Callable[[Hello], None],
        notices: Notices,
        give_up: Callable[[str], None],
        resolve: Resolve,
    ) -> None:
        self._consensus = consensus
        self._transport = transport
        self._record = record
        self._settings = settings
        self._me = me
        self._heard = heard
        self._notices = notices
        self._give_up = give_up
        self._resolve = resolve
        self._contacts = Contacts(settings.retry_interval)
        self._hosts = [_host(text, settings.port) for text in settings.join]
        self._met = False  # whether anybody was found in another way
        self._next_resolving = 0.0
        self._attempts = 0
        self._questions: set[asyncio.Task[None]] = set()

    def serve(self) -> None:
        """Answer whoever asks."""
        self._transport.on_call(hello.METHOD, self._on_hello)

    async def close(self) -> None:
        """Stop."""
        for task in list(self._questions):
            task.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)

    # -- what was found -----------------------------------------------------------------------------------------------

    def sights(self, now: float) -> list[Sight]:
        """The servers that answered of late."""
        return self._contacts.sights(now)

    def kin(self, now: float) -> list[Sight]:
        """Those of them that belong to the same cluster as this server."""
        own = self._consensus.cluster
        return [sight for sight in self._contacts.sights(now) if own and sight.hello.cluster == own]

    @property
    def all_tried(self) -> bool:
        """Whether each address of the configuration has answered, or failed to."""
        return self._contacts.all_tried

    def silent(self) -> list[str]:
        """The addresses of the configuration that do not answer, and why."""
        return self._contacts.silent()

    @property
    def lonely(self) -> bool:
        """Whether the configuration names no other address than this server's own."""
        return self._contacts.lonely and not self._settings.gossip

    def answering(self, now: float) -> tuple[str, ...]:
        """Where servers answered of late."""
        return self._contacts.answering(now)

    # -- asking -------------------------------------------------------------------------------------------------------

    async def ask_around(self, now: float) -> None:
        """Ask whoever is to be asked now; the answers come later."""
        if now >= self._next_resolving and (self._hosts or self._settings.retry_max):
            self._next_resolving = now + self._settings.retry_interval
            await self._find_configured()
        for peer in self._consensus.peers():
            if peer.number != self._consensus.number:
                self._contacts.add(peer.address)
        for contact in self._contacts.due(now):
            self._contacts.asking(contact, now)
            self._begin(contact)

    def until_next(self, now: float) -> float:
        """After how many seconds to look again who is to be asked."""
        return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, self._contacts.next_at() - now))

    def ask_at_once(self, address: str) -> None:
        """Ask at an address, whenever it was asked before: it should hear of this server."""
        self._contacts.add(address)
        self._begin(Contact(address, configured=False))

    def add(self, address: str) -> None:
        """A server may be at an address."""
        self._contacts.add(address)

    def meet(self, addresses: Sequence[str]) -> bool:
        """Servers of this datacenter were seen at these addresses. Returns whether any was unknown."""
        me = self._record().address
        unknown = [self._contacts.add(address) for address in addresses if address != me]
        self._met = self._met or bool(unknown)
        return any(unknown)

    def pass_over(self, addresses: Sequence[str]) -> None:
        """No server is at these addresses: nobody is to be asked there."""
        self._met = True
        for address in addresses:
            self._contacts.pass_over(address)

    async def join(self, text: str) -> None:
        """Find the server at an address, host or host:port. Raises `Refused` with what is in the way."""
        try:
            host, port = split_host_port(text, self._settings.port)
            addresses = await self._resolve(host, port)
        except (ValueError, OSError) as error:
            raise Refused(_failed([f"Failed to resolve {text}: {error}"])) from None
        problems = []
        for address in addresses:
            try:
                said = await self._question(address)
            except (Unreachable, LictorError, *UNREADABLE) as error:
                problems.append(f"Failed to join {address}: {error} (servers are joined at their ports.server)")
                continue
            if said.datacenter == self._settings.datacenter:
                self._hear_of(said)
                return
            problems.append(f"Failed to join {address}: it is of datacenter {said.datacenter}")
        raise Refused(_failed(problems))

    async def _find_configured(self) -> None:
        """Look up the addresses of the configuration anew; count the attempts that met nobody."""
        met = self._met or self._contacts.met_anybody or bool(self._consensus.leader)
        if self._settings.retry_max and not met:
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
                text = f"retry_join: {host} has no address: {error}"
                self._notices.show(f"host {host}", text, level=logging.WARNING)
        me = self._record().address
        for address in sorted(found):
            if address == me:
                self._contacts.is_self(address)
            else:
                self._contacts.add(address, configured=True)
        if found:
            self._contacts.keep_configured(frozenset(found))

    def _begin(self, contact: Contact) -> None:
        task = asyncio.get_running_loop().create_task(self._ask(contact))
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)

    async def _question(self, address: str) -> Hello:
        body = hello.encode_hello(self._me())
        return hello.decode_hello(await self._transport.call(address, hello.METHOD, body, ANSWER))

    async def _ask(self, contact: Contact) -> None:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        try:
            said = await self._question(contact.address)
        except (Unreachable, LictorError, *UNREADABLE) as error:
            trouble = str(error).removeprefix(f"cannot connect to {contact.address}: ")
            self._contacts.failed(contact, trouble.removeprefix(f"{contact.address}: "), loop.time())
            return
        self._contacts.answered(contact, said, asked_at, loop.time(), self._consensus.number)
        self._hear_of(said)

    # -- being asked --------------------------------------------------------------------------------------------------

    async def _on_hello(self, caller: Caller, body: bytes) -> bytes:
        if body:
            try:
                said = hello.decode_hello(body)
            except UNREADABLE as error:
                raise Refused(f"the call cannot be read: {error}") from None
            if self._consensus.blank:
                self._contacts.ask_again(said.address, asyncio.get_running_loop().time())
            self._hear_of(said)
        return hello.encode_hello(self._me())

    def _hear_of(self, said: Hello) -> None:
        """Another server has spoken."""
        if said.number == self._consensus.number:
            return
        if said.datacenter != self._settings.datacenter:
            text = f"refused a server of another datacenter: node={said.node[:NAME_MOST]} "
            text += f"address={said.address[:NAME_MOST]} datacenter={said.datacenter[:NAME_MOST]}"
            self._notices.show(f"stranger {said.node[:NAME_MOST]}", text, level=logging.WARNING)
            return
        for address in (said.address, *said.known[:KNOWN_MOST], said.leader):
            if address != self._record().address:
                self._contacts.add(address)
        if said.cluster and said.cluster == self._consensus.cluster:
            self._consensus.locate(said.number, said.address)
        self._heard(said)


def _failed(problems: Sequence[str]) -> str:
    """Errors in Serf's words."""
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return f"{count} occurred:" + "".join(f"\n\t* {problem}" for problem in problems) + "\n\n"


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        return split_host_port(text, port)
    except ValueError as error:
        raise InvalidRequest(f"retry_join: {error}") from None
