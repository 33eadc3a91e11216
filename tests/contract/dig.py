"""DNS questions for the cases, and answers as lines of text."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from dnslib import CLASS, EDNS0, QTYPE, RCODE, RR, DNSHeader, DNSQuestion, DNSRecord

from tests.patience import PATIENCE

# Seconds until a datagram that brought no answer is sent again.
AGAIN = 5.0
TRIES = int(PATIENCE / AGAIN)


@dataclass(frozen=True)
class DnsAnswer:
    """A parsed answer, its size on the wire in bytes, and the transport that brought it."""

    message: DNSRecord
    size: int

    @property
    def rcode(self) -> str:
        """NOERROR, NXDOMAIN, ..."""
        return str(RCODE[self.message.header.rcode])

    def records(self, kind: str) -> list[str]:
        """The answer section's records of a type, as the text of their data."""
        return [str(record.rdata) for record in self.message.rr if QTYPE[record.rtype] == kind]


def question(name: str, kind: str = "A", edns: int | None = None, recursion: bool = True) -> DNSRecord:
    """A question message. `edns` is the advertised UDP size in bytes."""
    message = DNSRecord(DNSHeader(rd=int(recursion)), q=DNSQuestion(name, getattr(QTYPE, kind), CLASS.IN))
    if edns is not None:
        message.add_ar(EDNS0(udp_len=edns))
    return message


def ask(port: int, message: DNSRecord, tcp: bool = False, host: str = "127.0.0.1") -> DnsAnswer:
    """Sends a question to an address. UDP is asked again a few times. Raises OSError where nothing answers."""
    packed = message.pack()
    data = _over_tcp(host, port, packed) if tcp else _over_udp(host, port, packed)
    parsed = DNSRecord.parse(data)
    assert parsed.header.id == message.header.id, "the answer has another id than the question"
    return DnsAnswer(parsed, len(data))


def _over_udp(host: str, port: int, packed: bytes) -> bytes:
    for attempt in range(TRIES):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(AGAIN)
            udp.connect((host, port))
            udp.send(packed)
            try:
                return udp.recv(65535)
            except TimeoutError:
                if attempt == TRIES - 1:
                    raise
    raise TimeoutError("no answer")


def _over_tcp(host: str, port: int, packed: bytes) -> bytes:
    with socket.create_connection((host, port), PATIENCE) as tcp:
        tcp.sendall(len(packed).to_bytes(2, "big") + packed)
        with tcp.makefile("rb") as stream:
            size = int.from_bytes(stream.read(2), "big")
            return stream.read(size)


def lines(answer: DnsAnswer) -> list[str]:
    """An answer as text: code and flags, then each section with its records sorted (servers shuffle them)."""
    header = answer.message.header
    flags = [name for name, bit in (("aa", header.aa), ("tc", header.tc), ("rd", header.rd), ("ra", header.ra)) if bit]
    result = [f"{answer.rcode} {' '.join(flags)}".rstrip()]
    for title, records in (
        ("answer", answer.message.rr),
        ("authority", answer.message.auth),
        ("additional", answer.message.ar),
    ):
        shown = sorted(_record(record) for record in records)
        result += [f"{title}: {text}" for text in shown]
    return result


def _record(record: RR) -> str:
    kind = QTYPE[record.rtype]
    if kind == "OPT":
        return f"OPT udp={record.rclass}"
    data = str(record.rdata)
    if kind == "SOA":
        # The serial is the time of the answer.
        words = data.split()
        data = " ".join([*words[:2], "<serial>", *words[3:]]) if len(words) == 7 else data
    return f"{record.rname} {record.ttl} {kind} {data}"
