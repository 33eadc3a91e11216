"""Addresses at which other servers may be, and what came of asking there. Pure.

There are two kinds: those that configuration names, and those that others told of, which are forgotten first where
there are too many. How the first are found is left to whoever calls `add`.
"""

import msgspec

from lictor.server.formation_plan import Sight
from lictor.server.hello import Hello

LEARNED_MOST = 128  # addresses that others told of
ADDRESS_MOST = 300  # characters
FRESH = 5.0  # seconds for which an answer counts
EACH = 1.0  # seconds between two questions to whoever answers


class Contact(msgspec.Struct):
    """An address. `next_at` is when to ask there, in seconds of the loop's clock; `trouble` is why the last question
    got no answer.
    """

    address: str
    configured: bool
    next_at: float = 0.0
    failures: int = 0
    trouble: str = ""
    sight: Sight | None = None
    answered_at: float = float("-inf")


class Contacts:
    """All addresses. `longest` is the longest pause between two questions to one that does not answer, in seconds."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._all: dict[str, Contact] = {}
        self._self: set[str] = set()
        self._passed_over: set[str] = set()

    def add(self, address: str, *, configured: bool = False) -> bool:
        """Take an address in. Returns whether it was unknown."""
        if address in self._self or address in self._passed_over or not 0 < len(address) <= ADDRESS_MOST:
            return False
        known = self._all.get(address)
        if known is not None:
            known.configured = known.configured or configured
            return False
        if not configured:
            self._make_room()
        self._all[address] = Contact(address, configured)
        return True

    def _make_room(self) -> None:
        learned = [contact for contact in self._all.values() if not contact.configured]
        if len(learned) >= LEARNED_MOST:
            worst = max(learned, key=lambda contact: contact.failures)
            del self._all[worst.address]

    def is_self(self, address: str) -> None:
        """This server is at an address: nobody is to be asked there."""
        self._self.add(address)
        self._all.pop(address, None)

    def pass_over(self, address: str) -> None:
        """Something else than a server is at an address: nobody is to be asked there."""
        self._passed_over.add(address)
        self._all.pop(address, None)

    def keep_configured(self, addresses: frozenset[str]) -> None:
        """Configuration names these and no others now: what else it named before is a mere hint."""
        for contact in self._all.values():
            contact.configured = contact.address in addresses

    def ask_again(self, address: str, now: float) -> None:
        """Somebody has called from an address: ask there now if it did not answer before."""
        contact = self._all.get(address)
        if contact is not None and contact.failures:
            contact.failures = 0
            contact.next_at = now

    def due(self, now: float) -> list[Contact]:
        """Where to ask now."""
        return [contact for contact in self._all.values() if contact.next_at <= now]

    def next_at(self) -> float:
        """When the next question is due."""
        return min((contact.next_at for contact in self._all.values()), default=float("inf"))

    def asking(self, contact: Contact, now: float) -> None:
        """A question is on its way."""
        contact.next_at = now + EACH

    def answered(self, contact: Contact, hello: Hello, asked_at: float, now: float, own_number: int) -> None:
        """An answer has come; it may be this server's own."""
        if hello.number == own_number:
            self.is_self(contact.address)
            return
        contact.failures = 0
        contact.trouble = ""
        contact.sight = Sight(hello, contact.address, asked_at)
        contact.answered_at = now
        contact.next_at = now + EACH

    def failed(self, contact: Contact, trouble: str, now: float) -> None:
        """No answer has come."""
        contact.failures += 1
        contact.trouble = trouble
        contact.next_at = now + min(self._longest, EACH * 2 ** min(contact.failures - 1, 16))

    def sights(self, now: float) -> list[Sight]:
        """The servers that answered of late, each once: where it says that it is, if it answers there, and as it
        answered last.
        """
        best: dict[int, Sight] = {}
        for contact in self._all.values():
            sight = contact.sight
            if sight is None or now - contact.answered_at > FRESH:
                continue
            other = best.get(sight.hello.number)
            if other is None or _rank(sight) > _rank(other):
                best[sight.hello.number] = sight
        return list(best.values())

    def silent(self) -> list[str]:
        """The addresses of the configuration that do not answer, and why."""
        return [
            f"{contact.address} ({contact.trouble})"
            for contact in self._all.values()
            if contact.configured and contact.trouble
        ]

    def answering(self, now: float) -> tuple[str, ...]:
        """Where servers answered of late."""
        return tuple(c.address for c in self._all.values() if c.sight is not None and now - c.answered_at <= FRESH)

    @property
    def all_tried(self) -> bool:
        """Whether each address of the configuration has answered, or failed to."""
        return all(contact.sight is not None or contact.trouble for contact in self._all.values() if contact.configured)

    @property
    def lonely(self) -> bool:
        """Whether configuration names this server's own address, and no other is known."""
        return bool(self._self) and not self._all

    @property
    def met_anybody(self) -> bool:
        """Whether any address of the configuration ever answered, this server's own included."""
        return bool(self._self) or any(contact.sight is not None for contact in self._all.values())


def _rank(sight: Sight) -> tuple[bool, float]:
    return sight.address == sight.hello.address, sight.asked_at
