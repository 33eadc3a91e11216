"""A thousand blocking queries on one service, and one change: how long until all are answered, and at what cost."""

import asyncio
import time

from bench.harness import Agent, Options, Result, agents, close_all, table

WATCHERS = 1000


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
        elif line.startswith(b"transfer-encoding:"):
            while (size := int(await reader.readuntil(b"\r\n"), 16)) or size:
                await reader.readexactly(size + 2)
            await reader.readuntil(b"\r\n")
    return head


async def round_of(agent: Agent, number: int) -> tuple[float, float]:
    """Seconds until all are answered, and CPU seconds of the server."""
    first_reader, first_writer = await asyncio.open_connection("127.0.0.1", agent.http)
    first_writer.write(b"GET /v1/health/service/web HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await _answer(first_reader)
    index = next(
        line.split(b":")[1].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"x-consul-index")
    )
    first_writer.close()
    request = b"GET /v1/health/service/web?index=%s&wait=120s HTTP/1.1\r\nHost: x\r\n\r\n" % index
    clients = [await asyncio.open_connection("127.0.0.1", agent.http) for _ in range(WATCHERS)]
    for _, writer in clients:
        writer.write(request)
    await asyncio.sleep(2)  # the servers have no way to say that all are waiting
    body = b'{"Node":"node1","Address":"10.0.0.1","Service":{"Service":"web","Port":%d}}' % (1000 + number)
    before, started = agent.cpu(), time.monotonic()
    await asyncio.to_thread(agent.put, "/v1/catalog/register", body)
    await asyncio.gather(*(_answer(reader) for reader, _ in clients))
    took = time.monotonic() - started
    used = agent.cpu() - before
    for _, writer in clients:
        writer.close()
    return took, used


def run(options: Options) -> None:
    """Measure and print; an operation is one watcher answered."""
    peers = agents("-hcl=limits { http_max_conns_per_client = 5000 }")
    results = [Result(peer.name, [], []) for peer in peers]
    try:
        for number in range(options.rounds):
            for peer, result in zip(peers, results, strict=True):
                took, used = asyncio.run(round_of(peer, number))
                result.costs.append(used / WATCHERS * 1e6)
                result.rates.append(WATCHERS / took)
        print(table(f"{WATCHERS} blocking queries answered after one change", results))
    finally:
        close_all(peers)
