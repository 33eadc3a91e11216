"""Protocol versions: what this node speaks, and whether all nodes of two pools can understand each other.

A version vector is six bytes: the protocol's least and greatest understood and spoken version, then the delegate's.
"""

from __future__ import annotations

from collections.abc import Iterable

from lictor.gossip.members import Member
from lictor.gossip.messages import NodeState, State

PROTOCOL_MIN = 1
PROTOCOL_MAX = 5
DELEGATE_MIN = 2
DELEGATE_MAX = 5
_SIZE = 6


def own_versions(protocol: int, delegate: int) -> bytes:
    """This node's version vector."""
    return bytes((PROTOCOL_MIN, PROTOCOL_MAX, protocol, DELEGATE_MIN, DELEGATE_MAX, delegate))


def incompatibility(states: Iterable[NodeState], members: Iterable[Member]) -> str:
    """Why the nodes of an exchange and the known ones cannot be one pool; empty when they can.

    The common range is from the greatest minimum to the least maximum of all that are alive; everyone has to speak a
    version in it. A node whose versions are unknown takes no part.
    """
    everyone = [(s.name, s.vsn, s.state == State.ALIVE) for s in states]
    everyone += [(m.name, m.vsn, m.state is State.ALIVE) for m in members]
    known = [(name, vsn, alive) for name, vsn, alive in everyone if len(vsn) >= _SIZE]
    vectors = [vsn for _, vsn, alive in known if alive]
    for at, what in ((0, "protocol version"), (3, "delegate protocol version")):
        low = max((v[at] for v in vectors), default=0)
        high = min((v[at + 1] for v in vectors), default=255)
        for name, vsn, _ in known:
            if not low <= vsn[at + 2] <= high:
                return f"Node '{name}' {what} ({vsn[at + 2]}) is incompatible: [{low}, {high}]"
    return ""
