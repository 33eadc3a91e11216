"""What the leader writes into the catalog about the cluster's members: the live ones with their `serfHealth`, and
nobody else who claims to be one. Pure: a store in, commands out.

A state can come from elsewhere: from a snapshot of another machine, or from a data folder whose `node-id` was lost. It
then tells of members that are no more, and they would count as healthy for ever.
"""

import msgspec

from lictor.model.check import CRITICAL, PASSING, SERF_HEALTH, Check
from lictor.model.command import Command, Deregister, Register
from lictor.model.node import Node
from lictor.model.service import NodeService
from lictor.store.store import Store


def only_member(store: Store, node: Node, service: NodeService) -> list[Command]:
    """What brings the catalog in line where `node`, with the service `consul`, is the whole cluster.

    Of the node only name, id and address are written: what only the node itself knows, its meta and tagged addresses,
    comes from its anti-entropy.
    """
    commands: list[Command] = []
    own = node.node.lower()
    for check in store.checks:
        if check.check_id != SERF_HEALTH or check.node.lower() == own:
            continue
        known = store.nodes.get(check.node.lower())
        # A node with this one's id is this one under its former name; registering renames it.
        if known is not None and known.id.lower() != node.id.lower():
            commands.append(Deregister(check.node))
    known = store.nodes.get(own)
    if known is not None and known.id and known.id.lower() != node.id.lower():
        # A name belongs to whoever is healthy under it. Its holder of before is not.
        health = store.checks.get((own, SERF_HEALTH.lower()))
        if health is not None and health.status != CRITICAL:
            failed = msgspec.structs.replace(health, status=CRITICAL, output="Agent not live or unreachable")
            commands.append(Register(known, None, (failed,), skip_node_update=True))
    alive = Check(
        node=node.node,
        check_id=SERF_HEALTH,
        name="Serf Health Status",
        status=PASSING,
        output="Agent alive and reachable",
    )
    same = known is not None and (known.id, known.address) == (node.id, node.address)
    commands.append(Register(node, service, (alive,), skip_node_update=same))
    return commands
