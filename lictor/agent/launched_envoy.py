"""How an Envoy that the agent has started is drained: through its admin interface, whose address it wrote to a file.

The file is the proxies' user's, who may be another one than the agent's: what is there is not trusted.
"""

import asyncio
import os
import re
import stat
from pathlib import Path

HOST = "127.0.0.1"  # where it was told to have its interface
LOOK = 0.25  # seconds between two looks at how many connections there are
ADDRESS_MOST = 64  # characters
ANSWER_MOST = 1024 * 1024  # bytes
PATIENCE = 5.0  # seconds for one answer
_COUNT = re.compile(r"^listener\.(?!admin\.).*\.downstream_cx_active: (\d+)\r?$", re.MULTILINE)


async def drain_envoy(address_file: Path) -> None:
    """Have the Envoy accept no more, and return once it has no connections, or at once where it does not answer."""
    try:
        port = admin_port(address_file)
        await _ask(port, "POST", "/drain_listeners")
        while _connections(await _ask(port, "GET", "/stats?filter=downstream_cx_active")):
            await asyncio.sleep(LOOK)
    except (OSError, ValueError):
        return


def admin_port(address_file: Path) -> int:
    """The port of the interface. Raises `OSError` and `ValueError` where that is not what the file says; it never
    waits, whatever is there.
    """
    fd = os.open(address_file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, encoding="ascii") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(f"{address_file} is no file")
        host, _, port = file.read(ADDRESS_MOST).strip().rpartition(":")
    if host != HOST or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{address_file} names no port of {HOST}")
    return int(port)


def _connections(stats: str) -> int:
    return sum(int(count) for count in _COUNT.findall(stats))


async def _ask(port: int, method: str, path: str) -> str:
    """An answer's head and body. Raises `OSError`."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            length = "Content-Length: 0\r\n" if method == "POST" else ""
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n{length}\r\n".encode())
            answer = bytearray()
            while len(answer) < ANSWER_MOST and (part := await reader.read(ANSWER_MOST - len(answer))):
                answer += part
            return answer.decode("utf-8", "replace")
        finally:
            writer.close()
