"""What the leader writes into the catalog about agents that are no servers of its cluster, as gossip tells of them.
Pure: a store and the members in, commands out.

A node is in the catalog as long as its agent is in gossip: passing while it is alive, critical when it has failed,
gone with all that it has registered when it has left or was forgotten. One that gossip does not know may have been
missed by a server that has just come: it is critical before long, and gone after the time that a failed one has.
"""

from collections.abc import Collection, Container, Sequence

import msgspec

from lictor.model.check import CRITICAL, PASSING, SERF_HEALTH, Check
from lictor.model.command import Command, Deregister, Register
from lictor.model.member import ALIVE, FAILED, LEFT, Member
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.store.store import Store

ROLE = "node"  # of the tag `role`: an agent that is no server; servers of the cluster are in its configuration
ALIVE_TEXT = "Agent alive and reachable"
DEAD_TEXT = "Agent not live or unreachable"
HEALTH = SERF_HEALTH.lower()


class Agents(msgspec.Struct, frozen=True):
    """What gossip knows: the `members`, and the names that it has `forgotten`. It is `settled` once everybody who is
    alive must have been heard of, and `complete` once whoever is unknown may be taken for forgotten.
    """

    members: Sequence[Member] = ()
    forgotten: Collection[str] = ()
    settled: bool = False
    complete: bool = False


NO_GOSSIP = Agents(settled=True, complete=True)


def agent_differences(
    store: Store, agents: Agents, names: Container[str], ids: Container[str], datacenter: str
) -> list[Command]:
    """What brings the catalog in line. `names` and `ids`, in lower case, are those of the cluster's servers."""
    commands: list[Command] = []
    known_names: set[str] = set()
    known_ids: set[str] = set()
    for member in agents.members:
        name, node_id = member.name.lower(), member.tags.get("id", "").lower()
        if member.tags.get("role") != ROLE or member.tags.get("dc") != datacenter or name in names:
            continue
        if node_id in ids or (node_id in known_ids and member.status == ALIVE):
            continue  # a server under its former name, or a second member of one id
        known_names.add(name)
        if member.status == ALIVE:
            known_ids.add(node_id)
            commands += alive(store, member.name, member.tags.get("id", ""), member.addr, datacenter)
        elif member.status == FAILED:
            commands += failed(store, member.name, node_id)
        elif member.status == LEFT:
            commands += _left(store, name, node_id)
    forgotten = {name.lower() for name in agents.forgotten}
    for node in store.nodes:
        name = node.node.lower()
        if name in names or name in known_names:
            continue
        # A node with the id of a member is that one under its former name; registering renames it.
        if node.id and (node.id.lower() in ids or node.id.lower() in known_ids):
            continue
        health = store.checks.get((name, HEALTH))
        if health is None:
            continue
        was_server = store.services.get((name, "consul")) is not None
        if agents.complete or was_server or name in forgotten:
            commands.append(Deregister(node.node))
        elif agents.settled and health.status != CRITICAL:
            commands.append(Register(node, None, (dead(health),), skip_node_update=True))
    return commands


def alive(
    store: Store, node: str, node_id: str, host: str, datacenter: str, service: NodeService | None = None
) -> list[Command]:
    """An agent is alive: it is registered at its address with a passing `serfHealth`, and with a service that it must
    have. Of a node only name, id and address are written, and only where they differ: what only the node itself knows,
    its meta and tagged addresses, comes from its own agent, which may be about to write it.
    """
    name = node.lower()
    commands: list[Command] = []
    known, health = store.nodes.get(name), store.checks.get((name, HEALTH))
    if known is not None and known.id and known.id.lower() != node_id.lower():
        # A name belongs to whoever is healthy under it. Its holder of before is not.
        if health is not None and health.status != CRITICAL:
            commands.append(Register(known, None, (dead(health),), skip_node_update=True))
        health = None
    check = Check(node=node, check_id=SERF_HEALTH, name="Serf Health Status", status=PASSING, output=ALIVE_TEXT)
    same_node = known is not None and (known.id, known.address) == (node_id, host)
    instance = store.services.get((name, service.id)) if service is not None else None
    registered = service is None or (instance is not None and _bare(instance.service) == service)
    healthy = health is not None and (health.status, health.output) == (PASSING, ALIVE_TEXT)
    if same_node and registered and healthy:
        return []
    if known is not None and known.id == node_id:
        row = msgspec.structs.replace(known, address=host)
    else:
        row = Node(node_id, node, host, datacenter)
    return [*commands, Register(row, service, (check,), skip_node_update=same_node or known is None)]


def failed(store: Store, node: str, node_id: str) -> list[Command]:
    """An agent has failed: where it is in the catalog, it is critical there."""
    name = node.lower()
    known, health = store.nodes.get(name), store.checks.get((name, HEALTH))
    if known is None or known.id.lower() != node_id.lower() or health is None or health.status == CRITICAL:
        return []
    return [Register(known, None, (dead(health),), skip_node_update=True)]


def _left(store: Store, name: str, node_id: str) -> list[Command]:
    known = store.nodes.get(name)
    if known is None or known.id.lower() != node_id or store.checks.get((name, HEALTH)) is None:
        return []
    return [Deregister(known.node)]


def dead(health: Check) -> Check:
    """A `serfHealth` that is passing no more."""
    return msgspec.structs.replace(health, status=CRITICAL, output=DEAD_TEXT)


def _bare(service: NodeService) -> NodeService:
    return msgspec.structs.replace(service, create_index=0, modify_index=0)
