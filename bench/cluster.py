"""Three servers of each kind: durable writes, through the leader and through all of them; and reads through a server
that does not lead.

The CPU time of all three is added up. etcd is measured twice: through its JSON gateway, which is HTTP like the others'
interface, and over gRPC, which its own clients use and which costs it less.
"""

from collections.abc import Callable
from functools import partial

from bench import etcd_grpc
from bench.clusters import Agents, Cluster, Etcd, Server, clusters
from bench.harness import Options, Result, Visit, measure, needs, table, wrk

CONNECTIONS = 64
SIZES = (64, 1024)  # bytes of a value
KEYS = 10_000

_RANDOM = f"""
math.randomseed(os.time())
request = function() return wrk.format("GET", "/v1/kv/random/" .. math.random({KEYS})) end
"""


class _Grpc:
    """etcd's cluster, written to over gRPC."""

    name = "etcd, gRPC"

    def __init__(self, cluster: Etcd) -> None:
        self._cluster = cluster
        self.cpu = cluster.cpu
        self.servers = cluster.servers
        self.wait_until_whole = cluster.wait_until_whole

    def load(self, servers: list[Server], value: bytes, options: Options) -> Visit:
        """Puts, as the cluster's own `load` makes them through the gateway."""
        ports = [int(server.api.rpartition(":")[2]) for server in servers]
        return etcd_grpc.load(ports, value, options.seconds, options.connections)


def _through_leader(value: bytes, options: Options, cluster: Cluster | _Grpc) -> Visit:
    return cluster.load([cluster.wait_until_whole()], value, options)


def _through_all(value: bytes, options: Options, cluster: Cluster | _Grpc) -> Visit:
    cluster.wait_until_whole()
    return cluster.load(cluster.servers, value, options)


def _follower_read(path: str, script: str, options: Options, cluster: Cluster) -> Visit:
    leader = cluster.wait_until_whole()
    follower = next(server for server in cluster.servers if server is not leader)
    return wrk(follower.url + path, options, script)


def _against(results: list[Result]) -> str:
    """This program's cost as a ratio to each peer's."""
    own = min(results[0].costs)
    return "\n" + ", ".join(f"lictor to {peer.name}: {own / min(peer.costs):.2f}" for peer in results[1:])


def run(options: Options) -> None:
    """Measure and print."""
    if not needs("wrk"):
        return
    options = Options(options.rounds, options.seconds, CONNECTIONS)
    started = clusters()
    try:
        writers: list[Cluster | _Grpc] = [*started, *(_Grpc(one) for one in started if isinstance(one, Etcd))]
        for size in SIZES:
            ways: tuple[tuple[str, Callable[[bytes, Options, Cluster | _Grpc], Visit]], ...] = (
                ("the leader", _through_leader),
                ("all three", _through_all),
            )
            for through, way in ways:
                results = measure(writers, partial(way, b"x" * size, options), options)
                print(table(f"Durable PUT of {size} bytes through {through}", results) + _against(results), flush=True)
        agents = [one for one in started if isinstance(one, Agents)]
        for agent in agents:
            agent.fill("random", KEYS)
            agent.write(agent.servers[0], "one", b"x" * 64)
        for title, path, script in (
            ("GET /v1/kv/one through a follower", "/v1/kv/one", ""),
            (f"GET of random keys out of {KEYS} through a follower", "/v1/kv/random", _RANDOM),
        ):
            results = measure(agents, partial(_follower_read, path, script, options), options)
            print(table(title, results), flush=True)
    finally:
        for one in started:
            one.close()
