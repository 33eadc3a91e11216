"""Three real servers with client agents beside them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.servers import ClientAgent, Cluster, Server, cluster
from tests.patience import eventually


class Datacenter:
    """Three servers and some agents beside them, which all have the `flags`."""

    def __init__(self, servers: Cluster, *flags: str) -> None:
        self.servers = servers
        self._flags = flags
        self.clients: list[ClientAgent] = []

    def client(self, name: str, *flags: str, ports: dict[str, int] | None = None) -> ClientAgent:
        """One more agent, started, with servers to talk to; its ports may be those of one that has ended. One of that
        name, of a test's first run, is taken out of the way: its node begins anew.
        """
        former = next((agent for agent in self.clients if agent.name == name), None)
        if former is not None:
            former.close()
            shutil.rmtree(former.folder)
            self.clients.remove(former)
        joins = [f"-retry-join=127.0.0.1:{server.ports['serf-lan']}" for server in self.servers]
        agent = ClientAgent(self.servers.folder, name, *joins, "-retry-interval=1s", *self._flags, *flags)
        agent.ports = ports or agent.ports
        agent.node_id = former.node_id if former is not None else agent.node_id
        self.clients.append(agent)
        agent.start()
        eventually(lambda: agent.leader(), f"{name} has found the servers")
        return agent

    def any(self) -> Server:
        """Any server that runs."""
        return next(server for server in self.servers if server.runs)

    def close(self) -> None:
        """End the agents."""
        for agent in self.clients:
            if agent.runs:
                agent.kill()


@contextmanager
def datacenter_in(folder: Path, *flags: str) -> Iterator[Datacenter]:
    """A datacenter whose servers run; all of it is ended with the block. What was logged is shown where it fails."""
    with cluster(folder, "a", "b", "c", flags=flags) as servers:
        servers.start()
        made = Datacenter(servers, *flags)
        try:
            yield made
        except BaseException:
            for agent in made.clients:
                print(f"---- {agent.name}\n{agent.log()[-6000:]}")
            raise
        finally:
            made.close()
