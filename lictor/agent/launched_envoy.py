"""How an Envoy that the agent has started is drained: through its admin interface, whose address it wrote to a file."""

import asyncio
import re
from pathlib import Path

LOOK = 0.25  # seconds between two looks at how many connections there are
ANSWER_MOST = 1024 * 1024  # bytes
PATIENCE = 5.0  # seconds for one answer
_COUNT = re.compile(r"^listener\.(?!admin\.).*\.downstream_cx_active: (\d+)\r?$", re.MULTILINE)


async def drain_envoy(address_file: Path) -> None:
    """Have the Envoy accept no more, and return once it has no connections, or at once where it does not answer."""
    try:
        host, _, port = address_file.read_text().strip().rpartition(":")
        await _ask(host, int(port), "POST", "/drain_listeners")
        while _connections(await _ask(host, int(port), "GET", "/stats?filter=downstream_cx_active")):
            await asyncio.sleep(LOOK)
    except (OSError, ValueError):
        return


def _connections(stats: str) -> int:
    return sum(int(count) for count in _COUNT.findall(stats))


async def _ask(host: str, port: int, method: str, path: str) -> str:
    """An answer's head and body. Raises `OSError`."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host.strip("[]"), port)
        try:
            length = "Content-Length: 0\r\n" if method == "POST" else ""
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n{length}\r\n".encode())
            return (await reader.read(ANSWER_MOST)).decode("utf-8", "replace")
        finally:
            writer.close()
