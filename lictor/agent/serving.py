"""The server in an agent that has others beside it: its network, its log, its way into the cluster.

serving = Serving(config, store, record, meta, give_up)      # the server is `serving.server`
await serving.start()                                        # answers other servers from here on
await serving.leave()                                        # where the agent leaves for good
await serving.close()
"""

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from lictor.agent.config.join_sources import JoinAddress
from lictor.agent.config.keys import RuntimeConfig
from lictor.agent.logs import logger
from lictor.agent.rpc_limits import network_limits
from lictor.agent.rpc_tls import rpc_tls
from lictor.agent.worker import Worker
from lictor.model.command import Command, CoordinateUpdate
from lictor.model.coordinate_entry import CoordinateEntry
from lictor.model.errors import LictorError
from lictor.model.host_port import join_host_port
from lictor.raft.consensus import Consensus, Machine, ServerRecord
from lictor.raft.replica import Replica
from lictor.raft.settings import RaftSettings, World, election_timeout
from lictor.raft.wal import DamagedLog, DiskFailed, DiskFull
from lictor.rpc.network import Network
from lictor.rpc.security import Security
from lictor.server import recovery
from lictor.server.for_agents import serve_agents
from lictor.server.formation import Formation
from lictor.server.formation_settings import FormationSettings
from lictor.server.server import Server
from lictor.server.subscriptions import Subscriptions
from lictor.store.store import Store

log = logger("agent.server")


def end_process(error: BaseException) -> None:
    """End at once: what the disk holds, or what this program believes of it, cannot be trusted any more."""
    log.error("the server cannot go on, and ends", error=str(error) or type(error).__name__, exc_info=error)
    os._exit(1)


class Serving:
    """See above. Made on a running loop. `record` is this server as others should know it, `meta` its node's meta;
    `give_up` is told why, where nobody to join was found. Raises `LictorError` for TLS files that cannot be used.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        store: Store,
        record: Callable[[], ServerRecord],
        meta: Callable[[], dict[str, str]],
        give_up: Callable[[str], None],
    ) -> None:
        self._config = config
        self._record = record
        self._folder = Path(config.data_dir) / "raft"
        self._log_work, self._snapshot_work = Worker("raft-log"), Worker("raft-snapshots")
        chance = random.SystemRandom()
        self.network = Network(chance, security=rpc_tls(config), limits=network_limits(config))
        self._world = World(
            log_work=self._log_work, snapshot_work=self._snapshot_work, fatal=end_process, chance=chance
        )
        self._replica: Replica
        self.server = Server(store, self._agreement, hold=config.performance.rpc_hold_timeout)
        self.report: Callable[[CoordinateEntry], Awaitable[None]] | None = None  # has one written before long
        serve_agents(self.network, store, self._apply)
        self.subscriptions = Subscriptions(self.server, self.network, config.datacenter, chance)
        self.formation = Formation(
            self.server.consensus,
            self.network,
            record,
            self._folder,
            _formation_settings(config),
            self._world,
            give_up,
            meta=meta,
        )

    async def _apply(self, command: Command) -> Any:
        """Apply an agent's command; coordinates are gathered by the leader, since every agent sends its own."""
        if not isinstance(command, CoordinateUpdate) or self.report is None:
            return await self.server.apply(command)
        for entry in command.entries:
            await self.report(entry)
        return None

    def _agreement(self, machine: Machine) -> Consensus:
        settings = _raft_settings(self._config)
        self._replica = Replica(machine, self._record, self._folder, self.network, settings, self._world)
        return self._replica

    async def start(self) -> None:
        """Load what is on disk, answer other servers, find them. Raises `OSError`, and `LictorError` for a disk that
        does not let the server start.
        """
        try:
            await self._start_server()
            await self.formation.start()
        except (DamagedLog, DiskFull, DiskFailed) as error:
            raise LictorError(str(error)) from None
        endpoint = self._config.listen.rpc
        if endpoint is None:
            raise LictorError("a server needs a port for other servers: set ports.server")
        try:
            await self.network.listen(endpoint.host, endpoint.port)
        except OSError as error:
            raise OSError(f"cannot listen on {endpoint} for other servers: {error.strerror or error}") from None

    async def _start_server(self) -> None:
        servers = await self._log_work(recovery.read_peers, self._folder, self._record())
        if servers is None:
            await self.server.start()
            return
        log.warn("recovering with the servers of peers.json", servers=", ".join(peer.address for peer in servers))
        await self._replica.start(servers)
        await self._log_work(recovery.remove_peers, self._folder)
        log.info("removed peers.json after the recovery")

    @property
    def heartbeat(self) -> float:
        """The longest silence of a leader that is well, in seconds."""
        return _raft_settings(self._config).tick

    def reload(self, config: RuntimeConfig, security: Security) -> None:
        """Use what the certificate files hold now, and the keys of TLS, limits and snapshots."""
        self.network.configure(security, network_limits(config))
        self._config = config
        self._replica.settings = _raft_settings(config)

    async def leave(self) -> bool:
        """Hand over what this server leads, and have it taken out of the cluster's configuration. Returns whether it
        is; those that do not know yet are to be answered for a while.
        """
        return await self.formation.leave()

    async def close(self) -> None:
        """Finish what was accepted, and stop."""
        await self.formation.close()
        await self.subscriptions.close()
        await self.server.close()
        await self.network.close()
        self._log_work.close()
        self._snapshot_work.close()


def _raft_settings(config: RuntimeConfig) -> RaftSettings:
    return RaftSettings(
        election_timeout=election_timeout(config.performance.raft_multiplier),
        snapshot_threshold=config.raft_snapshot_threshold,
        snapshot_interval=config.raft_snapshot_interval,
        trailing=config.raft_trailing_logs,
    )


def _formation_settings(config: RuntimeConfig) -> FormationSettings:
    return FormationSettings(
        datacenter=config.datacenter,
        expect=config.bootstrap_expect,
        alone=config.bootstrap or config.bootstrap_expect == 1,
        read_replica=config.read_replica,
        join=_places_of_calls(config),
        gossip=len(_places_of_calls(config)) < len(config.join_lan),
        port=config.ports.server,
        retry_interval=config.retry_interval,
        retry_max=config.retry_max,
        rejoin_after_leave=config.rejoin_after_leave,
        serf_port=max(0, config.ports.serf_lan),
    )


def _places_of_calls(config: RuntimeConfig) -> tuple[str, ...]:
    """The addresses of `retry_join` at which servers may take calls: all but those of gossip."""
    gossip = config.ports.serf_lan
    return tuple(
        join_host_port(source.host, source.port) if source.port else source.host
        for source in config.join_lan
        if isinstance(source, JoinAddress) and (source.port != gossip or gossip == config.ports.server)
    )
