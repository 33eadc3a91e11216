"""The packet filter's rules that make a proxy transparent: what a service sends goes to the proxy's outbound listener,
and what comes for it to the proxy's inbound one. Pure: the rules as text, for nft and for iptables.

What is let alone: the proxy itself, by its user; the loopback; and what is excluded by port, network or user. IPv4 and
TCP are redirected, and with `dns_address` questions to port 53 too, TCP and UDP.
"""

from __future__ import annotations

import ipaddress

import msgspec

from lictor.model.errors import LictorError

TABLE = "lictor_connect"
_OUT, _IN, _DNS = "LICTOR_CONNECT_OUT", "LICTOR_CONNECT_IN", "LICTOR_CONNECT_DNS"
NFT, IPTABLES = "nft", "iptables"
TOOLS = (NFT, IPTABLES)


class BadRule(LictorError):
    """Something that no rule can be made of; the message names it."""


class Redirection(msgspec.Struct, frozen=True):
    """What is redirected where. `proxy_user` and the excluded users are numbers or names; `inbound_port` 0 leaves what
    comes in alone.
    """

    proxy_user: str
    inbound_port: int = 0
    outbound_port: int = 15001
    exclude_inbound_ports: tuple[int, ...] = ()
    exclude_outbound_ports: tuple[int, ...] = ()
    exclude_outbound_networks: tuple[str, ...] = ()
    exclude_users: tuple[str, ...] = ()
    dns_address: str = ""
    dns_port: int = 53

    def check(self) -> None:
        """Raise `BadRule` for what no rule can be made of."""
        for port in (self.outbound_port, self.dns_port, *self.exclude_inbound_ports, *self.exclude_outbound_ports):
            if not 0 < port < 65536:
                raise BadRule(f"{port} is no port: it must be from 1 to 65535")
        if not 0 <= self.inbound_port < 65536:
            raise BadRule(f"{self.inbound_port} is no port: it must be from 1 to 65535")
        for user in (self.proxy_user, *self.exclude_users):
            if not user or not all(c.isalnum() or c in "-_." for c in user) or user.startswith("-"):
                raise BadRule(f'"{user}" is no user: a number or a name is needed')
        for network in self.exclude_outbound_networks:
            try:
                ipaddress.IPv4Network(network, strict=False)
            except ValueError:
                raise BadRule(f'"{network}" is no IPv4 network such as 10.0.0.0/8') from None
        try:
            if self.dns_address:
                ipaddress.IPv4Address(self.dns_address)
        except ValueError:
            raise BadRule(f'"{self.dns_address}" is no IPv4 address') from None


def nft_rules(wanted: Redirection) -> str:
    """What `nft -f` takes: a table of its own, in one step, in place of one that is there. Raises `BadRule`."""
    wanted.check()
    out = [f"meta skuid {user} return" for user in (wanted.proxy_user, *wanted.exclude_users)]
    dns = []
    if wanted.dns_address:
        to = f"dnat to {wanted.dns_address}:{wanted.dns_port}"
        dns = [f"meta l4proto {kind} {kind} dport 53 {to}" for kind in ("udp", "tcp")]
    rest = ["ip daddr 127.0.0.0/8 return"]
    rest += [f"tcp dport {port} return" for port in wanted.exclude_outbound_ports]
    rest += [f"ip daddr {ipaddress.IPv4Network(one, strict=False)} return" for one in wanted.exclude_outbound_networks]
    rest.append(f"meta l4proto tcp redirect to :{wanted.outbound_port}")
    chains = [_nft_chain("outbound", "output", -100, [*out, *dns, *rest])]
    if wanted.inbound_port:
        inbound = [f"tcp dport {port} return" for port in wanted.exclude_inbound_ports]
        inbound.append(f"meta l4proto tcp redirect to :{wanted.inbound_port}")
        chains.append(_nft_chain("inbound", "prerouting", -100, inbound))
    whole = "\n".join(chains)
    return f"table ip {TABLE} {{}}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{whole}\n}}\n"


def _nft_chain(name: str, hook: str, priority: int, rules: list[str]) -> str:
    head = f"\t\ttype nat hook {hook} priority {priority}; policy accept;"
    return "\n".join([f"\tchain {name} {{", head, *(f"\t\t{rule}" for rule in rules), "\t}"])


def nft_undo() -> str:
    """What takes the table away, and is content where there is none."""
    return f"table ip {TABLE} {{}}\ndelete table ip {TABLE}\n"


def iptables_rules(wanted: Redirection) -> list[list[str]]:
    """The arguments of each call of iptables, in order, where there are no such rules yet. Raises `BadRule`."""
    wanted.check()
    calls = [["-N", _OUT]]
    calls += [["-A", _OUT, "-m", "owner", "--uid-owner", one, "-j", "RETURN"] for one in _users(wanted)]
    if wanted.dns_address:
        to = f"{wanted.dns_address}:{wanted.dns_port}"
        calls += [["-N", _DNS]]
        calls += [
            ["-A", _DNS, "-p", kind, "--dport", "53", "-j", "DNAT", "--to-destination", to] for kind in ("udp", "tcp")
        ]
        calls += [["-A", _OUT, "-j", _DNS]]
    calls.append(["-A", _OUT, "-d", "127.0.0.0/8", "-j", "RETURN"])
    calls += [["-A", _OUT, "-p", "tcp", "--dport", str(one), "-j", "RETURN"] for one in wanted.exclude_outbound_ports]
    calls += [["-A", _OUT, "-d", one, "-j", "RETURN"] for one in wanted.exclude_outbound_networks]
    calls.append(["-A", _OUT, "-p", "tcp", "-j", "REDIRECT", "--to-ports", str(wanted.outbound_port)])
    calls.append(["-A", "OUTPUT", "-j", _OUT])
    if wanted.inbound_port:
        calls.append(["-N", _IN])
        calls += [["-A", _IN, "-p", "tcp", "--dport", str(one), "-j", "RETURN"] for one in wanted.exclude_inbound_ports]
        calls.append(["-A", _IN, "-p", "tcp", "-j", "REDIRECT", "--to-ports", str(wanted.inbound_port)])
        calls.append(["-A", "PREROUTING", "-p", "tcp", "-j", _IN])
    return [["-w", "-t", "nat", *call] for call in calls]


def _users(wanted: Redirection) -> tuple[str, ...]:
    return (wanted.proxy_user, *wanted.exclude_users)


def iptables_undo() -> list[list[str]]:
    """The calls that take the rules away; those for what is not there fail, and that is no harm."""
    calls = [["-D", "OUTPUT", "-j", _OUT], ["-D", "PREROUTING", "-p", "tcp", "-j", _IN]]
    calls += [[what, chain] for chain in (_OUT, _IN, _DNS) for what in ("-F", "-X")]
    return [["-w", "-t", "nat", *call] for call in calls]
