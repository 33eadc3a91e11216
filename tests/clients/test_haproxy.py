"""HAProxy fills its servers from the agent's DNS: SRV records by `server-template` and a `resolvers` section."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.clients.programs import needed, running
from tests.contract.servers import Server
from tests.patience import PATIENCE, eventually
from tests.ports import free_port

CONFIGURATION = """
global
    log stdout format raw local0
defaults
    mode http
    timeout connect 20s
    timeout client 60s
    timeout server 60s
resolvers agent
    nameserver one 127.0.0.1:{dns}
    accepted_payload_size 8192
    timeout resolve 200ms
    timeout retry 200ms
    hold valid 200ms
    hold nx 200ms
    hold obsolete 0s
frontend door
    bind 127.0.0.1:{door}
    default_backend pool
backend pool
    balance roundrobin
    server-template web 5 _backend._tcp.service.consul resolvers agent init-addr none resolve-prefer ipv4
"""


@contextmanager
def answering(word: str) -> Iterator[int]:
    """A server that answers with a word; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(word)))
            self.end_headers()
            self.wfile.write(word.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_servers_come_and_go_with_their_registrations(agent: Server, tmp_path: Path) -> None:
    haproxy = needed("haproxy", "Debian's package haproxy")
    door = free_port()
    (tmp_path / "haproxy.cfg").write_text(CONFIGURATION.format(dns=agent.ports["dns"], door=door))

    def answers() -> set[str]:
        found = set()
        for _ in range(6):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{door}/", timeout=PATIENCE) as answer:
                    found.add(answer.read().decode())
            except OSError:
                found.add("nobody")
        return found

    def register(word: str, port: int) -> None:
        body = {"Name": "backend", "ID": word, "Address": "127.0.0.1", "Port": port}
        assert agent.api.put("/v1/agent/service/register", body).status == 200

    with answering("one") as one, answering("two") as two, running([haproxy, "-f", "haproxy.cfg"], tmp_path) as log:
        try:
            register("one", one)
            eventually(lambda: answers() == {"one"}, "the first instance answers")
            register("two", two)
            eventually(lambda: answers() == {"one", "two"}, "both instances answer in turn")
            agent.api.put("/v1/agent/service/deregister/one")
            eventually(lambda: answers() == {"two"}, "the second instance answers alone")
            agent.api.put("/v1/agent/service/maintenance/two?enable=true")
            eventually(lambda: answers() == {"nobody"}, "an instance in maintenance is not asked")
        except AssertionError as error:
            raise AssertionError(f"{error}; HAProxy says: {log.read_text()[-2000:]}") from None
