"""Address templates. What each gives was compared with the reference on a machine with the same kinds of addresses."""

import random
import socket

import pytest

from lictor.agent.config import read_interfaces
from lictor.agent.config.sockaddr import TemplateError, expand
from tests.agent.config.conftest import MACHINE


@pytest.mark.parametrize(
    ("template", "expanded"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("{{ GetPrivateIP }}", "10.1.2.3"),
        ("{{GetPublicIP}}", "8.8.4.4"),
        ('{{ GetInterfaceIP "eth0" }}', "10.1.2.3"),
        ('{{ GetInterfaceIP "lo" }}', ""),
        ('{{ GetInterfaceIPs "eth0" }}', "10.1.2.3 fe80::1"),
        ('{{ GetAllInterfaces | include "network" "10.0.0.0/8" | attr "address" }}', "10.1.2.3"),
        ('{{ GetAllInterfaces | exclude "type" "IPv6" | join "address" " " }}', "127.0.0.1 10.1.2.3 8.8.4.4"),
        ('{{ GetAllInterfaces | include "name" "^eth" | sort "-address" | limit 1 | attr "address" }}', "fe80::1"),
        ('{{ GetAllInterfaces | include "rfc" "1918" | attr "network" }}', "10.1.2.0"),
        ('{{ GetAllInterfaces | include "flags" "forwardable|up" | offset 1 | attr "name" }}', "eth1"),
        ('{{ GetAllInterfaces | unique "name" | join "name" "," }}', "lo,eth0,eth1"),
        ('{{ GetPrivateInterfaces | math "network" "+5" | attr "string" }}', "10.1.2.5/24"),
        ('{{ GetPrivateInterfaces | math "network" "-1" | attr "address" }}', "10.1.2.255"),
        ('{{ attr "address" (GetDefaultInterfaces | limit 1) }}:80', "10.1.2.3:80"),
        ("{{ GetDefaultInterfaces }}", "10.1.2.3 fe80::1"),
    ],
)
def test_a_template_gives_addresses(template: str, expanded: str) -> None:
    assert expand(template, MACHINE) == expanded


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ Bogus }}", 'function "Bogus" not defined'),
        ("{{ GetPrivateIP", "no closing"),
        ('{{ GetAllInterfaces | include "nope" "x" }}', "invalid include selector"),
        ('{{ GetAllInterfaces | sort "nope" }}', "invalid sort type"),
        ('{{ GetAllInterfaces | attr "nope" }}', "unsupported attribute"),
        ("{{ GetAllInterfaces | limit }}", "wrong number of arguments for limit"),
        ('{{ GetAllInterfaces | limit "x" }}', "wrong type of argument"),
        ('{{ GetAllInterfaces | include "network" "x" }}', "does not appear to be"),
        ('{{ GetAllInterfaces | include "name" "(a+)+b" }}', "unsupported pattern"),
        ('{{ GetAllInterfaces | include "rfc" "1" }}', "names no networks"),
        ("{{ }}", "missing value"),
    ],
)
def test_a_bad_template_says_why(template: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        expand(template, MACHINE)
    assert words in str(caught.value)


def test_random_templates_raise_nothing_but_template_errors() -> None:
    chance = random.Random(6)
    names = "GetAllInterfaces GetPrivateIP | include exclude sort limit attr join math unique offset ( ) 1 -1 {{ }}"
    texts = '"address" "network" "name" "10.0.0.0/8" "+9999999999" "-1" "["'
    words = f"{names} {texts}".split()
    for _ in range(3000):
        text = "{{ " + " ".join(chance.choice(words) for _ in range(chance.randrange(1, 9))) + " }}"
        try:
            expand(text, MACHINE)
        except TemplateError:
            pass


def test_the_machines_own_addresses_are_read() -> None:
    found = read_interfaces()
    assert any(one.address == "127.0.0.1" and "loopback" in one.all_flags for one in found)
    names = {name for _, name in socket.if_nameindex()}
    assert {one.name for one in found} <= names
