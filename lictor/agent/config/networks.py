"""Networks that RFCs set aside, by the RFC's number: what address templates call private, forwardable or `rfc`."""

from __future__ import annotations

import ipaddress

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_BY_RFC = {
    "919": "255.255.255.255/32",
    "1112": "224.0.0.0/4",
    "1122": "0.0.0.0/8 127.0.0.0/8",
    "1918": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
    "2544": "198.18.0.0/15",
    "2928": "2001::/23",
    "3056": "2002::/16",
    "3068": "192.88.99.0/24",
    "3171": "224.0.0.0/4",
    "3849": "2001:db8::/32",
    "3927": "169.254.0.0/16",
    "4193": "fc00::/7",
    "4291": "::/128 ::1/128 ::ffff:0:0/96 fe80::/10",
    "4380": "2001::/32",
    "4843": "2001:10::/28",
    "5180": "2001:2::/48",
    "5735": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 192.88.99.0/24 198.18.0.0/15",
    "5737": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24",
    "6052": "64:ff9b::/96",
    "6333": "192.0.0.0/29",
    "6598": "100.64.0.0/10",
    "6666": "100::/64",
    "6890": (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
        "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32 "
        "::1/128 ::/128 64:ff9b::/96 ::ffff:0:0/96 100::/64 2001::/23 2001:db8::/32 2002::/16 fc00::/7 fe80::/10"
    ),
}

RFC_NETWORKS: dict[str, tuple[IPNetwork, ...]] = {
    number: tuple(ipaddress.ip_network(text) for text in networks.split()) for number, networks in _BY_RFC.items()
}

_NOT_FORWARDED = (
    "0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 192.0.0.0/29 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 "
    "240.0.0.0/4 ::1/128 ::/128 ::ffff:0:0/96 2001:db8::/32 fe80::/10 ff00::/8"
)

FORWARDABLE_NOT: tuple[IPNetwork, ...] = tuple(ipaddress.ip_network(text) for text in _NOT_FORWARDED.split())
"""Networks whose addresses no router forwards: no agent can be reached there from another host."""
