"""How fresh reads are at the doors of real servers: a leader that was asleep, and a server that is left alone."""

import signal
import socket
from pathlib import Path

import pytest

from tests.cluster.servers import IMPATIENT, Server, cluster
from tests.contract.dig import ask, question
from tests.patience import PATIENCE, eventually

FRESH = "dns_config { allow_stale = false }"


class Line:
    """One connection to a server's HTTP door."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.ports["http"]), PATIENCE)
        self.reader = self.socket.makefile("rb")

    def send(self, path: str) -> None:
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with their names in lower case, and body."""
        status = int(self.reader.readline().split()[1])
        headers = {}
        while (line := self.reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, self.reader.read(int(headers.get("content-length", "0")))

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.send(path)
        return self.answer()

    def close(self) -> None:
        self.reader.close()
        self.socket.close()


def test_a_leader_that_was_asleep_does_not_answer_with_what_it_kept(tmp_path: Path) -> None:
    """Its answers lie ready, and its clock may not have been looked at since; others have led and written meanwhile."""
    with cluster(tmp_path, "s1", "s2", "s3") as servers:
        servers.start()
        sleeper = servers.leader()
        sleeper.write("a", b"one")
        line, stale = Line(sleeper), Line(sleeper)
        for _ in range(4):
            assert line.get("/v1/kv/a?raw")[2] == b"one"
        assert sleeper.process is not None
        sleeper.process.send_signal(signal.SIGSTOP)
        try:
            others = [server for server in servers if server is not sleeper]
            eventually(lambda: any(s.leader() == s.address for s in others), "another leads")
            others[0].write("a", b"two")
            line.send("/v1/kv/a?raw")
            stale.send("/v1/kv/a?raw&stale")
        finally:
            sleeper.process.send_signal(signal.SIGCONT)
        status, _, body = line.answer()
        assert (status, body) in ((200, b"two"), (500, b"No cluster leader"))
        assert stale.answer()[2] in (b"one", b"two")
        servers.settle()
        assert sleeper.read("a") == b"two"
        line.close()
        stale.close()


@pytest.mark.parametrize(("dns", "rcode"), [("", "NOERROR"), (FRESH, "SERVFAIL")], ids=["stale", "fresh"])
def test_a_server_that_is_left_alone_answers_what_may_be_stale(tmp_path: Path, dns: str, rcode: str) -> None:
    with cluster(tmp_path, "s1", "s2", "s3") as servers:
        left = servers["s3"]
        left.flags += ["-hcl", IMPATIENT + " " + dns]
        servers.start()
        servers["s1"].write("a", b"one")
        assert left.read("a") == b"one"
        name = question("consul.service.consul")

        def named() -> bool:
            return len(ask(left.ports["dns"], name).records("A")) > 0

        eventually(named, "the servers are in the catalog")
        servers["s1"].kill()
        servers["s2"].kill()
        eventually(lambda: left.leader() == "", "there is no leader")
        line = Line(left)
        status, headers, body = line.get("/v1/kv/a?raw&stale")
        assert (status, headers["x-consul-knownleader"], body) == (200, "false", b"one")
        assert line.get("/v1/kv/a?raw")[::2] == (500, b"No cluster leader")
        later = line.get("/v1/kv/a?raw&stale")[1]
        assert int(later["x-consul-lastcontact"]) > int(headers["x-consul-lastcontact"])
        assert ask(left.ports["dns"], name).rcode == rcode
        line.close()
