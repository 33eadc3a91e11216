"""One request to one answer: the whole of the DNS door but its sockets.

Three levels, each dropped by the store when something it looked at changes:

- *finished*: a request's bytes (all but the id) to its answer's bytes. The server looks there itself, before it calls
  anything here. A request gets in when its very bytes are seen a second time, so that names, cookies and spellings that
  come once, however many, push nothing out; names that do not exist have a small share of their own.
- *resolved*: a question in lower case to the records it comes to. It serves requests that differ from each other in
  form only, such as resolvers that vary the case of every name; what is finished for one is packed anew.
- the store.

Answers take turns (`rotation`), on both levels.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import msgspec

from lictor.agent.elsewhere import Lookup
from lictor.dns import names
from lictor.dns.message import (
    AA,
    ANY_CLASS,
    AXFR,
    IN,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    RA,
    REFUSED,
    SERVFAIL,
    Record,
    Request,
    header,
    opt_record,
    parse,
    refusal,
)
from lictor.dns.packing import pack, turns
from lictor.dns.resolver import Beyond, Client, External, Resolved, resolve
from lictor.dns.settings import DnsSettings
from lictor.store.answers import AnswerCache
from lictor.store.store import Store
from lictor.store.watch import Topic

IXFR = 251
WINDOW = 64
WINDOW_BYTES = 64 << 10
FEWEST = 8
ROUNDS = 16
SEEN_ONCE = 8192
RECORD_SIZE = 300  # bytes that a resolved record costs, about
_NOTHING: Mapping[str, tuple[Record, ...]] = {}


class Turns:
    """The finished encodings of one answer, given out in turn and made when their turn comes.

    At most `window` of them are kept. Where there are more orders than that, the oldest few make room for new ones each
    time round, so that each is given out about ROUNDS times: memory stays bounded and every instance gets its share.
    """

    __slots__ = ("_at", "_made", "_make", "_row", "_rows", "_window")

    def __init__(self, make: Callable[[int], bytes], rows: int, first: int, window: int) -> None:
        self._make = make
        self._window = min(rows, window)
        self._rows = rows
        self._row = first % rows
        self._made: list[bytes] = []
        self._at = 0

    def take(self) -> bytes:
        """The next encoding, without the id."""
        at = self._at
        try:
            answer = self._made[at]
        except IndexError:
            return self._further()
        self._at = at + 1
        return answer

    def _further(self) -> bytes:
        made = self._made
        if len(made) < self._window:
            answer = self._make(self._row)
            self._row = (self._row + 1) % self._rows
            made.append(answer)
            self._at = len(made)
            return answer
        if self._rows > self._window:
            del made[: max(1, self._window // ROUNDS)]
        self._at = 1
        return made[0]


class _Kept:
    """A resolved question, what it looked at, and whose turn it is."""

    __slots__ = ("resolved", "row", "seen")

    def __init__(self, resolved: Resolved, seen: tuple[Topic, ...], row: int) -> None:
        self.resolved = resolved
        self.seen = seen
        self.row = row


class Forward(msgspec.Struct, frozen=True):
    """The request is for the recursors; `failure` is the answer when none of them has one."""

    failure: bytes


class Wanted(msgspec.Struct, frozen=True):
    """These host names must be asked of the recursors first, and these lookups made in other datacenters; then
    `finish` gives the answer, or what must be asked with what was found.
    """

    hosts: tuple[str, ...]
    lookups: tuple[Lookup, ...]
    finish: Callable[[External, Beyond], "bytes | Wanted"]
    give_up: Callable[[External, Beyond], bytes]


class Unconfirmed(msgspec.Struct, frozen=True):
    """The store must be confirmed first; `failure` is the answer when it cannot be."""

    failure: bytes


class Uncovered(msgspec.Struct, frozen=True):
    """The store does not hold all that the answer looked at; `failure` is the answer when it cannot be had."""

    seen: tuple[Topic, ...]
    failure: bytes


Reply = bytes | Forward | Wanted | Unconfirmed | Uncovered | None
"""An answer, something to be asked elsewhere first, or nothing: the packet deserves no answer."""


class Responder:
    """Answers requests from one store. `clock` gives seconds since 1970; `rng` decides orders. `answered` counts what
    was answered from the store here, `rcodes` the answers by code. `covers` is there for a store that does not hold
    everything: whether it holds all that a read looked at. `beyond` is whether other datacenters can be asked.
    """

    def __init__(
        self,
        store: Store,
        settings: DnsSettings,
        clock: Callable[[], float],
        rng: Random,
        covers: Callable[[tuple[Topic, ...]], bool] | None = None,
        beyond: bool = False,
    ) -> None:
        self._store = store
        self._beyond: Beyond | None = {} if beyond else None
        self._covers = covers
        self._clock = clock
        self._rng = rng
        self.settings = settings
        self.answered = 0
        self.rcodes = [0] * 16
        size = settings.cache_size
        watches = store.watches
        self.finished: tuple[AnswerCache[Turns], AnswerCache[Turns]] = (
            AnswerCache(watches, size * 9 // 16),
            AnswerCache(watches, size * 2 // 16),
        )
        self.missing: AnswerCache[bytes] = AnswerCache(watches, size // 16)
        self.resolved: AnswerCache[_Kept] = AnswerCache(watches, size * 4 // 16)
        self._domains = settings.domains
        self._once: set[int] = set()
        self._once_before: set[int] = set()

    def reload(self, settings: DnsSettings) -> None:
        """Answer by other settings from now on."""
        self.settings = settings
        self._domains = settings.domains
        self.forget()

    def forget(self) -> None:
        """Drop every answer that is kept."""
        for cache in self.caches:
            cache.clear()

    @property
    def caches(self) -> tuple[AnswerCache[Any], ...]:
        """Every cache, to be counted."""
        return (*self.finished, self.missing, self.resolved)

    def respond(self, data: bytes, sender: str, tcp: bool, *, confirmed: bool = True) -> Reply:
        """Answer a packet that `finished` does not hold. `sender` is the address it came from. Where the store is not
        `confirmed` to be fresh enough, what would be answered from it is `Unconfirmed`.
        """
        if confirmed and (known := self.missing.answers.get(data[2:])) is not None:
            self.answered += 1
            self.rcodes[NXDOMAIN] += 1
            return data[:2] + known
        request = parse(data)
        if request is None:
            return None
        if isinstance(request, int):
            self.rcodes[request] += 1
            return refusal(data, request)
        reverse = request.name[-1:] == ("arpa",)
        if request.qclass not in (IN, ANY_CLASS):
            return self._short(data, request, REFUSED)
        if not reverse and names.under(request.name, self._domains) is None:
            if self.settings.recursors:
                return Forward(self._failure(data, request))
            return self._short(data, request, REFUSED)
        if request.qtype in (AXFR, IXFR):
            return self._short(data, request, NOTIMP)
        if not confirmed:
            return Unconfirmed(self._failure(data, request))
        reply = self._answer(data, request, sender, tcp)
        if not isinstance(reply, Uncovered):
            self.answered += 1
        return reply

    def _answer(self, data: bytes, request: Request, sender: str, tcp: bool) -> Reply:
        key = request.key
        kept = self.resolved.answers.get(key)
        if kept is None:
            client = Client(_client_address(request, sender))
            read = self._store.read(
                resolve, self.settings, request, client, self._clock(), self._rng, _NOTHING, self._beyond
            )
            resolved = read.value
            if self._covers is not None and not self._covers(read.seen):
                return Uncovered(read.seen, self._failure(data, request))
            if resolved.wanted or resolved.lookups:
                return self._wanted(resolved, data, request, client, tcp)
            if resolved.recurse and self.settings.recursors:
                return Forward(self._failure(data, request))
            kept = _Kept(resolved, read.seen, self._rng.randrange(turns(resolved)))
            if resolved.common:
                records = sum(len(p.answers) + len(p.additionals) + len(p.authorities) for p in resolved.parts)
                self.resolved.put(key, kept, RECORD_SIZE * (records + 1), read.seen)
        resolved = kept.resolved
        self.rcodes[resolved.rcode] += 1
        settings = self.settings
        row = kept.row
        kept.row = row + 1
        answer = pack(resolved, request, settings, tcp, row)
        if resolved.cacheable and self._seen_before(data[2:]):
            self._keep(data[2:], answer, kept, request, tcp)
        return data[:2] + answer

    def _keep(self, key: bytes, answer: bytes, kept: _Kept, request: Request, tcp: bool) -> None:
        resolved, settings = kept.resolved, self.settings
        if resolved.rcode == NXDOMAIN:
            self.missing.put(key, answer, len(answer), kept.seen)
        elif resolved.rcode == NOERROR:
            rows = turns(resolved)
            window = min(rows, WINDOW, max(FEWEST, WINDOW_BYTES // len(answer)))
            finished = Turns(lambda row: pack(resolved, request, settings, tcp, row), rows, kept.row, window)
            self.finished[tcp].put(key, finished, window * (len(answer) + 40) + 500, kept.seen)

    def _wanted(self, resolved: Resolved, data: bytes, request: Request, client: Client, tcp: bool) -> Wanted:
        """What must be asked before a request is answered."""

        def again(external: External, beyond: Beyond) -> Resolved:
            now, found = self._clock(), beyond if self._beyond is not None else None
            read = self._store.read(resolve, self.settings, request, client, now, self._rng, external, found)
            return read.value

        def packed(resolved: Resolved) -> bytes:
            self.rcodes[resolved.rcode] += 1
            return data[:2] + pack(resolved, request, self.settings, tcp, self._rng.randrange(turns(resolved)))

        def finish(external: External, beyond: Beyond) -> bytes | Wanted:
            resolved = again(external, beyond)
            if resolved.lookups or any(host not in external for host in resolved.wanted):
                return self._wanted(resolved, data, request, client, tcp)
            return packed(resolved)

        # A name that was not found is left out.
        return Wanted(
            resolved.wanted, resolved.lookups, finish, lambda external, beyond: packed(again(external, beyond))
        )

    def _seen_before(self, key: bytes) -> bool:
        """Whether these bytes came before, not long ago; notes them otherwise."""
        mark = hash(key)
        if mark in self._once or mark in self._once_before:
            return True
        if len(self._once) >= SEEN_ONCE:
            self._once_before, self._once = self._once, set()
        self._once.add(mark)
        return False

    def _short(self, data: bytes, request: Request, rcode: int) -> bytes:
        """An answer with its question alone."""
        self.rcodes[rcode] += 1
        ours = rcode == NOTIMP
        opt = opt_record(request.edns, 0) if request.edns is not None and ours else b""
        flags = request.reply_flags | rcode | (AA if ours else 0)
        return data[:2] + header(flags, 0, 0, bool(opt)) + request.question + opt

    def _failure(self, data: bytes, request: Request) -> bytes:
        """SERVFAIL: nobody who could be asked has answered."""
        opt = opt_record(request.edns, 0) if request.edns is not None else b""
        return data[:2] + header(request.reply_flags | RA | SERVFAIL, 0, 0, bool(opt)) + request.question + opt


def _client_address(request: Request, sender: str) -> str:
    """The address of the client subnet option (RFC 7871) where it is given, else the sender's."""
    subnet = request.edns.subnet if request.edns is not None else None
    if subnet is None or subnet[:2] not in (b"\x00\x01", b"\x00\x02"):
        return sender
    return names.address_text(subnet[4:].ljust(4 if subnet[1] == 1 else 16, b"\x00"))
