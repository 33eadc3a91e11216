"""Scenario files of the DNS door: what is registered, what is asked, what is answered, in a form that a person reads.

    # Text for the reader.
    ! set a_record_limit=2 service_ttl={"web":3}             settings, in JSON where they are no plain text
    ! node n1 10.0.0.1 meta.rack=r1 tagged.wan=192.0.2.1
    ! service n1 web port=80 tag=v1,v2 address=10.0.0.9 weights=5/3 check=warning meta.k=v tagged.wan=192.0.2.9:81
    ! query {"Name": "q", "Service": {"Service": "web"}}
    ! config {"Kind": "ingress-gateway", "Name": "edge"}     a config entry
    > web.service.consul SRV tcp edns=1232                   a question: name, type, options (tcp, edns=SIZE, norec)
      NOERROR aa rd                                          the answer: code and flags, then its records, sorted
      answer: web.service.consul. 0 SRV 1 1 80 n1.node.dc1.consul.

A `!` line after a question changes the store before the next one. Every question is asked four times under different
ids, which takes it through every cache; all the answers must be the same. `python -m tests.dns.scenario` records the
answers anew; read the difference before you keep it.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from dnslib import DNSRecord

from lictor.dns.responder import Responder
from lictor.dns.settings import DnsSettings
from lictor.model.check import Check
from lictor.model.command import ConfigWrite, QuerySet, Register
from lictor.model.node import Node
from lictor.model.prepared_query import PreparedQuery
from lictor.model.service import NodeService, ServiceAddress, Weights
from lictor.store.commands import apply
from lictor.store.store import Store
from tests.contract.dig import DnsAnswer, lines, question

FOLDER = Path(__file__).parent / "scenarios"
NOW = 1_700_000_000.0
TIMES = 4


class Zone:
    """A store with a responder over it; `do` carries out a `!` line, `ask` a `>` line."""

    def __init__(self) -> None:
        self.store = Store()
        self.responder = Responder(self.store, DnsSettings("here"), lambda: NOW, Random(4))
        self.asked = 0

    def do(self, line: str) -> None:
        """Carry out `set`, `node`, `service`, `query` or `config`."""
        verb, _, rest = line.partition(" ")
        if verb == "set":
            known: dict[str, Any] = msgspec.structs.asdict(self.responder.settings)
            known |= {key: _value(text) for key, text in _pairs(rest.split()).items()}
            self.responder.reload(msgspec.convert(msgspec.to_builtins(known), DnsSettings))
        elif verb == "node":
            self.put_node(rest.split())
        elif verb == "service":
            self.put_service(rest.split())
        elif verb == "query":
            query = msgspec.json.decode(rest, type=PreparedQuery)
            number = len(self.store.queries)
            query = msgspec.structs.replace(query, id=f"00000000-0000-0000-0000-{number:012}")
            apply(self.store, QuerySet(query), NOW)
        elif verb == "config":
            body = json.loads(rest)
            apply(self.store, ConfigWrite("upsert", body["Kind"], body["Name"], body), NOW)
        else:
            raise ValueError(f"`! {line}`: known are set, node, service, query and config")
        self.store.flush()

    def put_node(self, words: list[str]) -> None:
        """`NAME ADDRESS [meta.KEY=VALUE] [tagged.TAG=ADDRESS]`"""
        pairs = _pairs(words[2:])
        node = Node(
            node=words[0],
            address=words[1],
            datacenter=pairs.get("datacenter", "dc1"),
            meta=_under(pairs, "meta.") or None,
            tagged_addresses=_under(pairs, "tagged.") or None,
        )
        apply(self.store, Register(node), NOW)

    def put_service(self, words: list[str]) -> None:
        """`NODE NAME [KEY=VALUE]`, see the text of this file."""
        node = self.store.nodes.get(words[0].lower())
        assert node is not None, f"{words[0]} must be registered first"
        pairs = _pairs(words[2:])
        passing, _, warning = pairs.get("weights", "1/1").partition("/")
        tagged = {}
        for tag, text in _under(pairs, "tagged.").items():
            address, _, port = text.rpartition(":") if text.count(":") == 1 else (text, "", "0")
            tagged[tag] = ServiceAddress(address, int(port))
        service = NodeService(
            kind=pairs.get("kind", ""),
            id=pairs.get("id", words[1]),
            service=words[1],
            tags=tuple(pairs["tag"].split(",")) if "tag" in pairs else (),
            address=pairs.get("address", ""),
            port=int(pairs.get("port", "0")),
            meta=_under(pairs, "meta.") or None,
            weights=Weights(int(passing), int(warning)),
            tagged_addresses=tagged or None,
        )
        if "proxy" in pairs:
            proxy = msgspec.structs.replace(service.proxy, destination_service_name=pairs["proxy"])
            service = msgspec.structs.replace(service, proxy=proxy)
        checks: tuple[Check, ...] = ()
        if "check" in pairs:
            check_id = f"check-{service.id}"
            checks = (Check(check_id=check_id, status=pairs["check"], service_id=service.id, service_name=words[1]),)
        apply(self.store, Register(node, service, checks), NOW)

    def send(self, packet: bytes, tcp: bool = False) -> bytes:
        """The answer's bytes, as the server would send them."""
        finished = self.responder.finished[tcp].answers.get(packet[2:])
        if finished is not None:
            return packet[:2] + finished.take()
        reply = self.responder.respond(packet, "127.0.0.1", tcp)
        assert isinstance(reply, bytes), f"not answered at once: {reply}"
        return reply

    def ask(self, line: str) -> list[str]:
        """The answer to a `>` line as text."""
        name, kind, *options = line.split()
        edns = next((int(option[5:]) for option in options if option.startswith("edns=")), None)
        answers = []
        for _ in range(TIMES):
            self.asked += 1
            message = question(name, kind, edns, recursion="norec" not in options)
            message.header.id = self.asked
            data = self.send(bytes(message.pack()), "tcp" in options)
            parsed = DNSRecord.parse(data)
            assert parsed.header.id == self.asked, "the answer has another id than the question"
            answer = lines(DnsAnswer(parsed, len(data)))
            answers.append([answer[0], *sorted(answer[1:])])
        assert answers[1:] == answers[:-1], f"{line}: caches answer differently"
        return answers[0]


def _pairs(words: list[str]) -> dict[str, str]:
    return {word.partition("=")[0]: word.partition("=")[2] for word in words}


def _under(pairs: dict[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in pairs.items() if key.startswith(prefix)}


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def play(path: Path) -> tuple[list[str], list[str]]:
    """The file's lines as they are, and as they would be with the answers of now."""
    zone = Zone()
    written = path.read_text().splitlines()
    played: list[str] = []
    for line in written:
        if line.startswith("  "):
            continue
        played.append(line)
        if line.startswith("! "):
            zone.do(line[2:])
        elif line.startswith("> "):
            played += ["  " + text for text in zone.ask(line[2:])]
        elif line and not line.startswith("#"):
            raise ValueError(f"{path}: a line starts with `# `, `! `, `> ` or two spaces: {line!r}")
    return written, played


if __name__ == "__main__":
    for file in sorted(FOLDER.glob("*.txt")):
        file.write_text("\n".join(play(file)[1]) + "\n")
