"""The rules that make a proxy transparent: as text, and in a network of the tests' own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO

import pytest

from lictor.cli.command import CommandError, Io
from lictor.cli.connect.redirect_traffic import run
from lictor.connect_proxy.envoy.redirecting import BadRule, Redirection, iptables_rules, iptables_undo, nft_rules
from tests.cluster.network import PROGRAMS, Namespace
from tests.connect_proxy.envoy.mesh import ENVIRONMENT, ROOT
from tests.patience import PATIENCE

EVERYTHING = Redirection(
    proxy_user="1234",
    inbound_port=21000,
    outbound_port=15001,
    exclude_inbound_ports=(22,),
    exclude_outbound_ports=(5432,),
    exclude_outbound_networks=("10.1.2.3/8",),
    exclude_users=("root",),
    dns_address="127.0.0.1",
    dns_port=8600,
)
ORIGINAL_DESTINATION = 80  # SO_ORIGINAL_DST of linux/netfilter_ipv4.h


def test_rules_for_nft() -> None:
    assert nft_rules(EVERYTHING) == (
        "table ip lictor_connect {}\n"
        "delete table ip lictor_connect\n"
        "table ip lictor_connect {\n"
        "\tchain outbound {\n"
        "\t\ttype nat hook output priority -100; policy accept;\n"
        "\t\tmeta skuid 1234 return\n"
        "\t\tmeta skuid root return\n"
        "\t\tmeta l4proto udp udp dport 53 dnat to 127.0.0.1:8600\n"
        "\t\tmeta l4proto tcp tcp dport 53 dnat to 127.0.0.1:8600\n"
        "\t\tip daddr 127.0.0.0/8 return\n"
        "\t\ttcp dport 5432 return\n"
        "\t\tip daddr 10.0.0.0/8 return\n"
        "\t\tmeta l4proto tcp redirect to :15001\n"
        "\t}\n"
        "\tchain inbound {\n"
        "\t\ttype nat hook prerouting priority -100; policy accept;\n"
        "\t\ttcp dport 22 return\n"
        "\t\tmeta l4proto tcp redirect to :21000\n"
        "\t}\n"
        "}\n"
    )


def test_rules_for_iptables() -> None:
    shown = [" ".join(call) for call in iptables_rules(EVERYTHING)]
    assert shown[:3] == [
        "-w -t nat -N LICTOR_CONNECT_OUT",
        "-w -t nat -A LICTOR_CONNECT_OUT -m owner --uid-owner 1234 -j RETURN",
        "-w -t nat -A LICTOR_CONNECT_OUT -m owner --uid-owner root -j RETURN",
    ]
    assert shown.index("-w -t nat -A LICTOR_CONNECT_OUT -d 127.0.0.0/8 -j RETURN") < shown.index(
        "-w -t nat -A LICTOR_CONNECT_OUT -p tcp -j REDIRECT --to-ports 15001"
    )
    assert shown[-1] == "-w -t nat -A PREROUTING -p tcp -j LICTOR_CONNECT_IN"
    made = {call[-1] for call in iptables_rules(EVERYTHING) if "-N" in call}
    assert made == {call[-1] for call in iptables_undo() if "-X" in call}, "what is made is taken away"


@pytest.mark.parametrize(
    "fields",
    [
        {"outbound_port": 0},
        {"inbound_port": 70000},
        {"exclude_inbound_ports": (-1,)},
        {"proxy_user": "a; flush ruleset"},
        {"exclude_users": ("",)},
        {"exclude_outbound_networks": ("::/0",)},
        {"exclude_outbound_networks": ("10.0.0.0/8 accept",)},
        {"dns_address": "localhost"},
    ],
)
def test_what_no_rule_can_be_made_of_is_refused(fields: dict[str, object]) -> None:
    wanted = Redirection(**{"proxy_user": "1234", **fields})  # type: ignore[arg-type]
    for rules in (nft_rules, iptables_rules):
        with pytest.raises(BadRule):
            rules(wanted)


def test_users_that_this_machine_does_not_have_are_named() -> None:
    io = Io(BytesIO(), BytesIO(), BytesIO(), {})
    for users in (("-proxy-uid=no.such.user",), ("-proxy-uid=root", "-exclude-uid=no.such.user")):
        with pytest.raises(CommandError, match=r"no user no\.such\.user"):
            run(["-tool=nft", "-proxy-inbound-port=21000", *users], io)


# -- in a network of the tests' own -----------------------------------------------------------------------------------

ALONE = os.geteuid() == 0 and all(shutil.which(program) for program in (*PROGRAMS, "nft"))


@pytest.fixture
def alone() -> Iterator[Namespace]:
    """A network with the loopback, and a way to anywhere that leads nowhere."""
    made = Namespace()
    try:
        made.set_up(
            "link add out type veth peer name nobody",
            "address add 192.0.2.1/24 dev out",
            "link set out up",
            "link set nobody up",
        )
        yield made
    finally:
        made.close()


def command(namespace: Namespace, *words: str) -> str:
    """`lictor connect redirect-traffic` there; what it prints."""
    with namespace.inside():
        done = subprocess.run(
            [sys.executable, "-m", "lictor", "connect", "redirect-traffic", *words],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            cwd=ROOT,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ruleset(namespace: Namespace) -> str:
    """The rules that are there."""
    with namespace.inside():
        return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


CONNECT = "import os, socket, sys; os.setuid(int(sys.argv[1])); s = socket.socket(); s.settimeout(2)\n"
CONNECT += "sys.exit(s.connect_ex((sys.argv[2], int(sys.argv[3]))))"


def connects(namespace: Namespace, user: int, address: str, port: int) -> bool:
    """Whether a connection of a user's is taken by somebody."""
    with namespace.inside():
        words = [sys.executable, "-c", CONNECT, str(user), address, str(port)]
        return subprocess.run(words, timeout=PATIENCE, check=False).returncode == 0


@pytest.mark.skipif(not ALONE, reason="it takes root's rights, and unshare, ip and nft")
def test_what_a_service_sends_comes_to_the_proxy_with_where_it_was_meant_for(alone: Namespace) -> None:
    command(alone, "-proxy-uid=1234", "-proxy-inbound-port=21000", "-exclude-outbound-port=81", "-exclude-uid=1235")
    with alone.inside():
        proxy = socket.create_server(("127.0.0.1", 15001))
        other = socket.create_server(("192.0.2.1", 81))
    with proxy, other:
        proxy.settimeout(PATIENCE)
        assert connects(alone, 1000, "198.51.100.7", 80) is False, "there is no way to other networks"
        assert connects(alone, 1000, "192.0.2.77", 80), "the proxy takes it"
        connection, _ = proxy.accept()
        with connection:
            raw = connection.getsockopt(socket.SOL_IP, ORIGINAL_DESTINATION, 16)
        _, port, address = struct.unpack("!HH4s8x", raw)
        assert (socket.inet_ntoa(address), port) == ("192.0.2.77", 80)
        assert connects(alone, 1000, "192.0.2.1", 81), "an excluded port is let alone"
        other.settimeout(PATIENCE)
        other.accept()[0].close()
        for user in (1234, 1235):
            assert not connects(alone, user, "192.0.2.77", 80), "the proxy itself and who is excluded go their way"
        command(alone, "-undo")
        assert not connects(alone, 1000, "192.0.2.77", 80), "nothing is redirected any more"


@pytest.mark.skipif(not ALONE, reason="it takes root's rights, and unshare, ip and nft")
def test_rules_are_put_in_place_of_former_ones_and_taken_away(alone: Namespace) -> None:
    for port in (21000, 21001):
        command(alone, "-proxy-uid=1234", f"-proxy-inbound-port={port}")
    found = ruleset(alone)
    assert re.findall(r"redirect to :(\d+)", found) == ["15001", "21001"]
    for _ in range(2):
        command(alone, "-undo")
        assert ruleset(alone) == ""


@pytest.mark.skipif(not ALONE, reason="it takes root's rights, and unshare, ip and nft")
def test_to_print_changes_nothing(alone: Namespace) -> None:
    printed = command(alone, "-proxy-uid=1234", "-proxy-inbound-port=21000", "-print")
    assert "redirect to :21000" in printed
    assert "iptables" in command(alone, "-proxy-uid=1234", "-proxy-inbound-port=21000", "-print", "-tool=iptables")
    assert ruleset(alone) == ""
