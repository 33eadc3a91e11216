"""Servers that are a cluster of their own, in memory or on disk."""

import random
from pathlib import Path

from lictor.raft.consensus import Consensus, Machine, ServerRecord
from lictor.raft.replica import Replica
from lictor.raft.settings import RaftSettings, World
from lictor.raft.single import SingleVoter
from lictor.server.server import Server
from lictor.store.store import Store
from tests.raft.replicas import fatal, work
from tests.raft.wire import Wire

RECORD = ServerRecord("id", "n1", "127.0.0.1:8300")
SETTINGS = RaftSettings(election_timeout=0.5)


async def in_memory(store: Store) -> Server:
    """A started server without a disk."""
    server = Server(store, lambda machine: SingleVoter(machine, lambda: RECORD))
    await server.start()
    return server


async def on_disk(store: Store, folder: Path, settings: RaftSettings = SETTINGS) -> Server:
    """A started server whose raft folder is `folder`, new or not."""

    def agreement(machine: Machine) -> Consensus:
        world = World(log_work=work, snapshot_work=work, fatal=fatal, chance=random.Random())
        return Replica(machine, lambda: RECORD, folder, Wire().end(RECORD.address), settings, world)

    server = Server(store, agreement)
    await server.start()
    if server.consensus.blank:
        await server.consensus.form([ServerRecord(RECORD.id, RECORD.node, RECORD.address, server.consensus.number)])
    return server
