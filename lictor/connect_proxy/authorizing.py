"""Which peers may connect to a service: the intentions that were last heard of, asked once for each peer.

Decisions are kept until the intentions change, so that a connection costs a look into a table.
"""

from collections.abc import Sequence

import msgspec

from lictor.connect_proxy.certificates import Peer
from lictor.model.intention import DefaultPolicy, Intention, Verdict, decide, in_order
from lictor.model.spiffe import NAMESPACE

REMEMBERED = 4096  # decisions


class Ruling(msgspec.Struct, frozen=True):
    """Whether a peer may connect, and why (not)."""

    allowed: bool
    reason: str


class Authorizer:
    """The intentions of one destination. Without any word of them nobody is let in."""

    def __init__(self) -> None:
        self._intentions: Sequence[Intention] | None = None
        self._default = DefaultPolicy(False)
        self._domain = ""
        self._known: dict[str, Ruling] = {}

    @property
    def ready(self) -> bool:
        """Whether the intentions are known."""
        return self._intentions is not None

    def update(self, intentions: Sequence[Intention], default_allow: bool) -> bool:
        """Take over what the agent says; `intentions` are those of the destination. Returns whether that is new."""
        found = in_order(intentions)
        default = DefaultPolicy(default_allow)
        if self._intentions == found and default == self._default:
            return False
        self._intentions, self._default = found, default
        self._known.clear()
        return True

    def trust(self, domain: str) -> None:
        """Say which trust domain is the own one."""
        if domain != self._domain:
            self._domain = domain
            self._known.clear()

    def rule(self, peer: Peer) -> Ruling:
        """Whether a peer may connect."""
        known = self._known.get(peer.uri)
        if known is None:
            known = self._rule(peer)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[peer.uri] = known
        return known

    def _rule(self, peer: Peer) -> Ruling:
        if peer.service.domain != self._domain:
            return Ruling(False, f"Identity from an external trust domain: {peer.service.domain}")
        if peer.service.namespace != NAMESPACE or peer.service.partition:
            # No intention is about it: that for all sources would pass it over.
            return Ruling(False, "Identity of a namespace or partition that is not here")
        if self._intentions is None:
            return Ruling(False, "The intentions are not known yet")
        decision = decide(self._intentions, peer.service, self._default)
        reason = decision.reason
        if decision.verdict is Verdict.NEEDS_L7:
            reason += "; it looks at single requests, which this proxy does not understand: use Envoy for this service"
        return Ruling(decision.allowed, reason)
