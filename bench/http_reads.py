"""HTTP reads: a KV entry, a service's health, a service's catalog, each from the answer cache; and random keys, past
it.
"""

import functools

from bench.harness import Agent, Options, Visit, agents, close_all, measure, needs, table, wrk

KEYS = 100_000
_RANDOM = f"""
math.randomseed(os.time())
request = function() return wrk.format("GET", "/v1/kv/random/" .. math.random({KEYS})) end
"""


def _fill(agent: Agent) -> None:
    agent.put("/v1/kv/one", b"x" * 64)
    for n in range(3):
        agent.put(
            "/v1/catalog/register",
            b'{"Node":"node%d","Address":"10.0.0.%d","Service":{"Service":"web","Port":80},'
            b'"Check":{"Name":"alive","Status":"passing","ServiceID":"web"}}' % (n, n + 1),
        )


def _fill_random(agent: Agent) -> None:
    for start in range(0, KEYS, 64):
        ops = ",".join(
            f'{{"KV":{{"Verb":"set","Key":"random/{n}","Value":"eHh4eHh4eHg="}}}}'
            for n in range(start + 1, min(start + 64, KEYS) + 1)
        )
        agent.put("/v1/txn", f"[{ops}]".encode())


def _load(path: str, options: Options, agent: Agent) -> Visit:
    return wrk(agent.url + path, options)


def run(options: Options) -> None:
    """Measure and print."""
    if not needs("wrk"):
        return
    peers = agents()
    try:
        for peer in peers:
            _fill(peer)
        for path in ("/v1/kv/one", "/v1/health/service/web?passing", "/v1/catalog/service/web"):
            results = measure(peers, functools.partial(_load, path, options), options)
            print(table(f"GET {path}", results))
        for peer in peers:
            _fill_random(peer)
        print(
            table(f"GET of random keys out of {KEYS}", measure(peers, lambda p: wrk(p.url, options, _RANDOM), options))
        )
    finally:
        close_all(peers)
