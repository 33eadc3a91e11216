"""A transparent proxy: a service that knows nothing of proxies connects to others by their addresses. All of it runs in
a network of the test's own, with the agent, two Envoys, and the kernel's rules.
"""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import DNSRecord

from tests.cluster.network import PROGRAMS, Namespace
from tests.connect_proxy.envoy.installed import ENVOY
from tests.connect_proxy.envoy.mesh import ENVIRONMENT, ROOT, Agent, Envoy, Handler, service
from tests.patience import PATIENCE, settles
from tests.ports import free_port

pytestmark = [
    pytest.mark.skipif(not ENVOY, reason="envoy is not installed"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(shutil.which(program) for program in (*PROGRAMS, "nft")),
        reason="it takes root's rights, and unshare, ip and nft",
    ),
]

OWN = "192.0.2.1"
STRANGER = 1000  # a user that is not the proxy's
OUTSIDER = 1001  # one whose connections come to the service as those from other machines do
FETCH = """
import encodings.idna, http.client, os, sys
os.setuid(int(sys.argv[1]))
try:
    connection = http.client.HTTPConnection(sys.argv[2], int(sys.argv[3]), timeout=10)
    connection.request("GET", "/")
    print(connection.getresponse().status)
except (OSError, http.client.HTTPException):
    print(0)
"""


def fetched(address: str, port: int, user: int = STRANGER) -> int:
    """What a request of a user's ends with."""
    words = [sys.executable, "-c", FETCH, str(user), address, str(port)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return int(done.stdout)


def bring_in(service: int, proxy: int) -> None:
    """Have the outsider's connections to the service's port come to its proxy, as the rules of `redirect-traffic` have
    those that come in.
    """
    rule = f"meta skuid {OUTSIDER} tcp dport {service} dnat to {OWN}:{proxy}"
    rules = f"table ip outsider {{ chain o {{ type nat hook output priority -150\n{rule}\n}}\n}}\n"
    subprocess.run(["nft", "-f", "-"], check=True, input=rules, text=True)


def looked_up(agent: Agent, name: str) -> str:
    """The address that the agent's DNS has for a name."""
    answer = DNSRecord.question(name).send("127.0.0.1", agent.ports["dns"], timeout=PATIENCE)
    return str(DNSRecord.parse(answer).short())


@pytest.fixture
def alone() -> Iterator[Namespace]:
    """A network with the loopback, and an address of its own through which everything else is looked for."""
    made = Namespace()
    try:
        made.set_up(
            "link add out type veth peer name nobody",
            f"address add {OWN}/24 dev out",
            "link set out up",
            "link set nobody up",
            "route add default dev out",
        )
        yield made
    finally:
        made.close()


def redirect(agent: Agent, *words: str) -> None:
    """`lictor connect redirect-traffic` for the client."""
    command = [sys.executable, "-m", "lictor", "connect", "redirect-traffic", *words]
    environment = {**ENVIRONMENT, "CONSUL_HTTP_ADDR": agent.address}
    subprocess.run(command, check=True, env=environment, cwd=ROOT, timeout=PATIENCE)


def test_what_a_service_sends_goes_through_its_proxy(alone: Namespace, tmp_path: Path) -> None:
    with alone.inside(), service() as behind:
        outside = http.server.ThreadingHTTPServer((OWN, free_port()), Handler)
        thread = threading.Thread(target=outside.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        agent = Agent(tmp_path)
        envoys: list[Envoy] = []
        try:
            agent.configure("proxy-defaults", "global", Config={"protocol": "http"})
            agent.register("server", behind, address=OWN)
            proxy = agent.register("client", free_port(), Mode="transparent")
            envoys += [Envoy(tmp_path, agent, name) for name in ("server", "client")]
            for envoy in envoys:
                envoy.ready()
            redirect(agent, f"-proxy-id={proxy}", "-proxy-uid=0")
            (found,) = agent.get("/v1/catalog/connect/server")
            virtual = found["ServiceTaggedAddresses"]["consul-virtual"]["Address"]
            assert looked_up(agent, "server.virtual.consul") == virtual
            settles(lambda: fetched(virtual, 80), 200, "the service's virtual address leads to it")
            assert fetched(OWN, outside.server_address[1]) == 200, "what is outside of the mesh is reached as before"
            direct = OWN, found["ServicePort"]
            assert fetched(*direct) == 0, "its proxy wants the mesh's TLS, and nobody else knows the address"
            agent.configure("service-defaults", "server", Protocol="http", TransparentProxy={"DialedDirectly": True})
            settles(lambda: fetched(*direct), 200, "an instance is reached by its own address where it may be")
            bring_in(behind, found["ServicePort"])
            assert fetched(OWN, behind, OUTSIDER) == 0, "who is outside of the mesh is kept out"
            agent.configure("mesh", "mesh", AllowEnablingPermissiveMutualTLS=True)
            agent.configure("service-defaults", "server", Protocol="http", MutualTLSMode="permissive")
            settles(lambda: fetched(OWN, behind, OUTSIDER), 200, "a permissive service lets in who has no certificate")
            settles(lambda: fetched(virtual, 80), 200, "and the mesh as before")
            agent.intend("server", {"Name": "client", "Action": "deny"})
            settles(lambda: fetched(virtual, 80) in (0, 403), True, "an intention keeps it out")
            redirect(agent, "-undo")
        except BaseException:
            print(agent.log()[-5000:], *(one.log()[-5000:] for one in envoys), sep="\n----\n")
            raise
        finally:
            for envoy in envoys:
                envoy.close()
            agent.close()
            outside.shutdown()
            outside.server_close()
            thread.join()
