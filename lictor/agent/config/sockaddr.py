"""Templates for addresses: `{{ GetPrivateIP }}`, `{{ GetInterfaceIP "eth0" }}`, and pipelines over the interfaces.

The language is that of the go-sockaddr library, as far as addresses need it: a source function yields interfaces'
addresses, filters follow after `|`, and `attr` or `join` makes text of them. Pure: the addresses of the machine are
handed in; `interfaces` reads them.

    expand('{{ GetAllInterfaces | include "network" "10.0.0.0/8" | attr "address" }}', addresses)
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lictor.agent.config.networks import FORWARDABLE_NOT, RFC_NETWORKS, IPNetwork

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_TEMPLATE = 4096
MAX_PIPELINE = 32


class TemplateError(ValueError):
    """A template that cannot be expanded; the text says why."""


class InterfaceAddress(msgspec.Struct, frozen=True):
    """One address of one interface. `flags` are up, broadcast, loopback, pointtopoint, multicast as the kernel has
    them; `default` says whether the default route leaves through the interface."""

    name: str
    address: str
    prefix: int
    flags: frozenset[str] = frozenset({"up"})
    default: bool = False

    @property
    def ip(self) -> IPAddress:
        """The address."""
        return ipaddress.ip_address(self.address)

    @property
    def network(self) -> IPNetwork:
        """The network that the address is in."""
        return ipaddress.ip_network(f"{self.address}/{self.prefix}", strict=False)

    @property
    def is_private(self) -> bool:
        """Whether the address is one that RFC 6890 sets aside."""
        return in_rfc(self.ip, "6890")

    @property
    def all_flags(self) -> frozenset[str]:
        """The interface's flags, and what the address itself is: forwardable, loopback, multicast, link-local."""
        ip = self.ip
        found = set(self.flags)
        found |= {"forwardable"} if not any(_within(ip, network) for network in FORWARDABLE_NOT) else set()
        found |= {"loopback"} if ip.is_loopback else set()
        found |= {"linklocal", "link-local unicast"} if ip.is_link_local else set()
        found |= {"global unicast"} if ip.is_global or ip.is_private else set()
        return frozenset(found)


def _within(ip: IPAddress, network: IPNetwork) -> bool:
    return ip.version == network.version and ip in network


def in_rfc(ip: IPAddress, number: str) -> bool:
    """Whether an address is in one of the networks of an RFC. Raises TemplateError for an RFC without networks."""
    networks = RFC_NETWORKS.get(number)
    if networks is None:
        raise TemplateError(f"RFC {number} names no networks")
    return any(_within(ip, network) for network in networks)


Value = str | int | tuple[InterfaceAddress, ...]
Addresses = tuple[InterfaceAddress, ...]

_PART = re.compile(r"\{\{-?(.*?)-?\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|`([^`]*)`|(-?\d+)|([A-Za-z]\w*)|([|()]))')


def expand(text: str, addresses: Sequence[InterfaceAddress]) -> str:
    """`text` with its templates replaced. Raises TemplateError."""
    if len(text) > MAX_TEMPLATE:
        raise TemplateError("template is too long")
    if "{{" not in text:
        return text
    expanded = _PART.sub(lambda match: _text(_Pipeline(match[1], tuple(addresses)).run()), text)
    if "{{" in expanded and "{{" in _PART.sub("", text):
        raise TemplateError("{{ has no closing }}")
    return expanded


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return " ".join(str(address.ip) for address in value)
    return str(value)


class _Pipeline:
    """One `{{ ... }}`: a source, then filters, each given what came before as its last argument."""

    def __init__(self, text: str, addresses: Addresses) -> None:
        self.addresses = addresses
        self.tokens = _tokens(text)
        self.position = 0

    def run(self) -> Value:
        value = self._pipe(0)
        if self.position < len(self.tokens):
            raise TemplateError(f"unexpected {self.tokens[self.position][1]!r}")
        return value

    def _pipe(self, depth: int) -> Value:
        if depth > MAX_PIPELINE:
            raise TemplateError("parentheses are nested too deeply")
        value = self._command(None, depth)
        while self._peek() == ("mark", "|"):
            self.position += 1
            value = self._command(value, depth)
        return value

    def _peek(self) -> tuple[str, Any] | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def _command(self, piped: Value | None, depth: int) -> Value:
        head = self._peek()
        if head is None:
            raise TemplateError("missing value for command")
        self.position += 1
        if head[0] != "name":
            if piped is not None:
                raise TemplateError("a filter must be a function's name")
            return self._argument(head, depth)
        arguments: list[Value] = []
        while (token := self._peek()) is not None and token not in (("mark", "|"), ("mark", ")")):
            self.position += 1
            arguments.append(self._argument(token, depth))
        if piped is not None:
            arguments.append(piped)
        return _call(head[1], arguments, self.addresses)

    def _argument(self, token: tuple[str, Any], depth: int) -> Value:
        if token[0] in ("text", "number"):
            literal: Value = token[1]
            return literal
        if token == ("mark", "("):
            value = self._pipe(depth + 1)
            if self._peek() != ("mark", ")"):
                raise TemplateError("( has no closing )")
            self.position += 1
            return value
        if token[0] == "name":
            return _call(token[1], [], self.addresses)
        raise TemplateError(f"unexpected {token[1]!r}")


def _tokens(text: str) -> list[tuple[str, Any]]:
    tokens: list[tuple[str, Any]] = []
    position = 0
    body = text.rstrip()
    while position < len(body):
        match = _TOKEN.match(body, position)
        if match is None:
            raise TemplateError(f"unexpected {body[position : position + 20].strip()!r}")
        position = match.end()
        quoted, raw, number, name, mark = match.groups()
        if quoted is not None:
            tokens.append(("text", re.sub(r"\\(.)", r"\1", quoted)))
        elif raw is not None:
            tokens.append(("text", raw))
        elif number is not None:
            tokens.append(("number", int(number[:10])))
        else:
            tokens.append(("name", name) if name else ("mark", mark))
    return tokens


# -- functions -----------------------------------------------------------------------------------------------------


def _call(name: str, arguments: list[Value], addresses: Addresses) -> Value:
    source = _SOURCES.get(name)
    if source is not None:
        if arguments:
            raise TemplateError(f"{name} takes no arguments")
        return source(addresses)
    if name in ("GetInterfaceIP", "GetInterfaceIPs"):
        (interface,) = _take(name, arguments, (str,))
        found = _sorted("type,size", tuple(one for one in addresses if one.name == interface))
        if name == "GetInterfaceIP":
            found = tuple(one for one in found if "forwardable" in one.all_flags)[:1]
        return " ".join(one.address for one in found)
    if name not in _FILTERS:
        raise TemplateError(f'function "{name}" not defined')
    kinds, function = _FILTERS[name]
    return function(*_take(name, arguments, kinds))


def _take(name: str, arguments: list[Value], kinds: tuple[type, ...]) -> list[Any]:
    if len(arguments) != len(kinds):
        raise TemplateError(f"wrong number of arguments for {name}: want {len(kinds)} got {len(arguments)}")
    for argument, kind in zip(arguments, kinds, strict=True):
        if not isinstance(argument, kind):
            raise TemplateError(f"wrong type of argument for {name}")
    return arguments


def _private(addresses: Addresses) -> Addresses:
    return _sorted(
        "default,type,size", tuple(one for one in addresses if one.is_private and "forwardable" in one.all_flags)
    )


def _public(addresses: Addresses) -> Addresses:
    usable = (one for one in addresses if not one.is_private and "forwardable" in one.all_flags)
    return _sorted("default,type,size", tuple(usable))


_SOURCES: dict[str, Callable[[Addresses], Value]] = {
    "GetAllInterfaces": lambda addresses: addresses,
    "GetDefaultInterfaces": lambda addresses: tuple(one for one in addresses if one.default),
    "GetPrivateInterfaces": _private,
    "GetPublicInterfaces": _public,
    "GetPrivateIP": lambda addresses: " ".join(one.address for one in _private(addresses)[:1]),
    "GetPrivateIPs": lambda addresses: " ".join(one.address for one in _private(addresses)),
    "GetPublicIP": lambda addresses: " ".join(one.address for one in _public(addresses)[:1]),
    "GetPublicIPs": lambda addresses: " ".join(one.address for one in _public(addresses)),
}


def _matches(selector: str, parameter: str, one: InterfaceAddress) -> bool:
    """Whether an address is selected; several parameters are separated by `|`, one is enough (all for flags)."""
    wanted = parameter.split("|")
    kind = selector.lower()
    if kind in ("flag", "flags"):
        return all(flag.lower() in one.all_flags for flag in wanted)
    if kind == "address":
        return bool(_search(parameter, one.address))
    if kind == "name":
        return bool(_search(parameter, one.name))
    if kind == "network":
        try:
            return any(_within(one.ip, ipaddress.ip_network(text.strip(), strict=False)) for text in wanted)
        except ValueError as error:
            raise TemplateError(str(error)) from None
    if kind == "rfc":
        return any(in_rfc(one.ip, number.strip()) for number in wanted)
    if kind == "size":
        if not parameter.isdigit():
            raise TemplateError(f'"{parameter}" is not a size of a network')
        return one.prefix == int(parameter[:4])
    if kind == "type":
        return any(text.lower() in ("ip", f"ipv{one.ip.version}") for text in wanted)
    raise TemplateError(f'invalid include selector "{selector}"')


def _search(pattern: str, text: str) -> bool:
    """Regular expressions select names and addresses; only their plain parts are supported: `^`, `$`, `.`, `*`, `|`,
    sets, so that no pattern can take long."""
    if (
        len(pattern) > 256
        or not re.fullmatch(r"[\w.:\-/^$|*+?\[\]()%]*", pattern)
        or re.search(r"[*+?)]\s*[*+?]", pattern)
    ):
        raise TemplateError(f'unsupported pattern "{pattern[:40]}"')
    if len(re.findall(r"[*+?]", pattern)) > 4:
        raise TemplateError(f'unsupported pattern "{pattern[:40]}"')
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError) as error:
        raise TemplateError(f'"{pattern[:40]}" is not a pattern: {error}') from None


def _include(selector: str, parameter: str, addresses: Addresses) -> Addresses:
    return tuple(one for one in addresses if _matches(selector, parameter, one))


def _exclude(selector: str, parameter: str, addresses: Addresses) -> Addresses:
    return tuple(one for one in addresses if not _matches(selector, parameter, one))


_ORDERS: dict[str, Callable[[InterfaceAddress], Any]] = {
    "address": lambda one: (one.ip.version, int(one.ip)),
    "default": lambda one: not one.default,
    "name": lambda one: one.name,
    "network": lambda one: (one.ip.version, int(one.network.network_address), one.prefix),
    "port": lambda one: 0,
    "private": lambda one: not one.is_private,
    "size": lambda one: -one.prefix if one.ip.version == 4 else -one.prefix + 32,
    "type": lambda one: one.ip.version,
}


def _sorted(order: str, addresses: Addresses) -> Addresses:
    result = list(addresses)
    for term in reversed(order.split(",")):
        word = term.strip().lower()
        key = _ORDERS.get(word.lstrip("+-"))
        if key is None:
            raise TemplateError(f'invalid sort type: "{term}"')
        result.sort(key=key, reverse=word.startswith("-"))
    return tuple(result)


def _attribute(name: str, one: InterfaceAddress) -> str:
    network = one.network
    values: dict[str, Callable[[], str]] = {
        "address": lambda: one.address,
        "name": lambda: one.name,
        "flags": lambda: "|".join(sorted(one.flags)),
        "port": lambda: "0",
        "type": lambda: f"IPv{one.ip.version}",
        "string": lambda: f"{one.address}/{one.prefix}",
        "host": lambda: one.address,
        "network": lambda: str(network.network_address),
        "netmask": lambda: str(network.netmask),
        "mask_bits": lambda: str(one.prefix),
        "size": lambda: str(network.num_addresses),
        "broadcast": lambda: str(network.broadcast_address),
        "first_usable": lambda: str(network[0] if network.num_addresses <= 2 else network[1]),
        "last_usable": lambda: str(network[-1] if network.num_addresses <= 2 else network[-2]),
    }
    if name.lower() not in values:
        raise TemplateError(f'unsupported attribute "{name}"')
    return values[name.lower()]()


def _attr(name: str, addresses: Addresses) -> str:
    return _attribute(name, addresses[0]) if addresses else ""


def _join(name: str, separator: str, addresses: Addresses) -> str:
    return separator.join(_attribute(name, one) for one in addresses)


def _limit(count: int, addresses: Addresses) -> Addresses:
    if count < 0:
        raise TemplateError(f"Unable to limit {count} elements")
    return addresses[:count]


def _offset(count: int, addresses: Addresses) -> Addresses:
    return addresses[count:]


def _unique(selector: str, addresses: Addresses) -> Addresses:
    if selector not in ("address", "name"):
        raise TemplateError(f'unable to handle unique selector "{selector}"')
    first = {_attribute(selector, one): one for one in reversed(addresses)}
    return tuple(one for one in addresses if first[_attribute(selector, one)] is one)


def _math(operation: str, amount: str, addresses: Addresses) -> Addresses:
    """`address` moves within all addresses, `network` within the network, from its start or (negative) its end."""
    if not re.fullmatch(r"[+-]?\d{1,20}", amount):
        raise TemplateError(f'"{amount}" is not an amount')
    number = int(amount)
    moved = []
    for one in addresses:
        if operation == "address":
            base = int(one.ip)
        elif operation == "network":
            base = int(one.network.network_address) if number >= 0 else int(one.network.broadcast_address) + 1
        else:
            raise TemplateError(f'unsupported math operation: "{operation}"')
        try:
            address = type(one.ip)(base + number)
        except ValueError as error:
            raise TemplateError(str(error)) from None
        moved.append(msgspec.structs.replace(one, address=str(address)))
    return tuple(moved)


_FILTERS: dict[str, tuple[tuple[type, ...], Callable[..., Value]]] = {
    "include": ((str, str, tuple), _include),
    "exclude": ((str, str, tuple), _exclude),
    "sort": ((str, tuple), _sorted),
    "attr": ((str, tuple), _attr),
    "Attr": ((str, tuple), _attr),
    "join": ((str, str, tuple), _join),
    "limit": ((int, tuple), _limit),
    "offset": ((int, tuple), _offset),
    "unique": ((str, tuple), _unique),
    "math": ((str, str, tuple), _math),
}
